package main

import (
	"cmp"
	"context"
	"path/filepath"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/node"
)

// The reasons of events about volumes.
const (
	reasonInaccessible = "VolumeInaccessible"
	reasonDegraded     = "VolumeDegraded"
	reasonWell         = "VolumeHealthy"
)

// runNode serves the Node service until ctx ends. It needs no configuration of
// the arrays: what a node must know comes with each request. The Kubernetes API is
// used for events only; volumes come and go without it.
func runNode(ctx context.Context, o Options, log logr.Logger, registry *prometheus.Registry) error {
	metrics, err := csi.NewNodeMetrics(registry)
	if err != nil {
		return err
	}
	announce, err := announcer(ctx, o)
	if err != nil {
		return err
	}
	server, err := node.New(node.Config{
		DriverName: o.DriverName, Version: buildVersion(), Options: o.Node, Announce: announce,
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
	stopAdmin, err := serveAdmin(log, o, registry, at.serving.Load)
	if err != nil {
		return err
	}
	defer stopAdmin()
	go server.Watch(ctx)
	return at.serve(ctx, nil)
}

// announcer makes events of changes in the health of volumes, or is nil if there
// are to be none.
func announcer(ctx context.Context, o Options) (func(context.Context, node.HealthChange) error, error) {
	if !o.VolumeEvents {
		return nil, nil
	}
	client, err := newClient(o)
	if err != nil {
		return nil, err
	}
	events := kube.NewVolumeEvents(ctx, client, o.DriverName, o.Node.NodeName)
	return func(ctx context.Context, c node.HealthChange) error {
		switch {
		case c.Problems == "":
			return events.Note(ctx, c.Volume, reasonWell, "it is well again")
		case c.Inaccessible:
			return events.Warn(ctx, c.Volume, reasonInaccessible, c.Problems)
		}
		return events.Warn(ctx, c.Volume, reasonDegraded, c.Problems)
	}, nil
}
