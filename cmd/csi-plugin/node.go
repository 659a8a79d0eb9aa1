package main

import (
	"cmp"
	"context"
	"path/filepath"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/node"
)

// runNode serves the Node service until ctx ends. It needs neither the arrays'
// configuration nor the Kubernetes API: what a node must know comes with each
// request.
func runNode(ctx context.Context, o Options, log logr.Logger, registry *prometheus.Registry) error {
	metrics, err := csi.NewNodeMetrics(registry)
	if err != nil {
		return err
	}
	server, err := node.New(node.Config{
		DriverName: o.DriverName, Version: buildVersion(), Options: o.Node,
		// Beside the socket is kubelet's directory for this driver, which stays.
		StateDir: cmp.Or(o.Node.StateDir, filepath.Join(filepath.Dir(o.socket()), "stages")),
	})
	if err != nil {
		return err
	}
	if err := registry.Register(server); err != nil {
		return err
	}
	at := &endpoint{path: o.socket(), grace: o.ShutdownTimeout, register: func(g *grpc.Server) { server.Register(g) }, edge: csi.Interceptor(log, metrics, nil)}
	stopAdmin, err := serveAdmin(log, o.MetricsAddress, registry, at.serving.Load)
	if err != nil {
		return err
	}
	defer stopAdmin()
	go server.Watch(ctx)
	return at.serve(ctx, nil)
}
