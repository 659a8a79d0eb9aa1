package dataplane

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Controller is the plugin's Controller service on an array, and the part of a
// cluster that it asks: which nodes there are and which attachments.
type Controller struct {
	spec.ControllerClient
	cluster *cluster
	server  *grpc.Server
	conn    *grpc.ClientConn
	// Socket is where it serves.
	Socket string
}

// OpenController serves the Controller service at a socket. The addresses are
// those that the array's configuration names: one for each path that a node makes.
func (b *Bed) OpenController(a *Array, addresses ...string) (*Controller, error) {
	c := &Controller{
		cluster: &cluster{attached: map[string][]string{}},
		Socket:  b.path("controller-" + strings.Join(addresses, "-") + ".sock"),
	}
	for _, n := range b.Nodes {
		c.cluster.nodes = append(c.cluster.nodes, n.Name)
	}
	service, err := csi.New(csi.Config{
		DriverName: csi.DefaultDriverName, Version: "test", Cluster: c.cluster, Guard: allowSecond{},
		Backends: []csi.Backend{{Name: "main", Array: a.Client, Addresses: addresses, Port: ArrayPort}},
	})
	if err != nil {
		return nil, err
	}
	metrics, err := csi.NewMetrics(prometheus.NewRegistry(), nil, nil)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", c.Socket)
	if err != nil {
		return nil, err
	}
	ready := func() error { return nil }
	c.server = grpc.NewServer(grpc.UnaryInterceptor(csi.Interceptor(logr.Discard(), metrics, ready)))
	service.Register(c.server)
	go func() { _ = c.server.Serve(listener) }()
	c.conn, err = grpc.NewClient("unix://"+c.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.server.Stop()
		return nil, err
	}
	c.ControllerClient = spec.NewControllerClient(c.conn)
	return c, nil
}

// Close ends the service.
func (c *Controller) Close() {
	_ = c.conn.Close()
	c.server.Stop()
}

// allowSecond grants every second node: there are no pods here to tell a migration by.
type allowSecond struct{}

// MayShare always grants.
func (allowSecond) MayShare(context.Context, string, string, ...string) error { return nil }

// cluster is a csi.Cluster with the attachments that a test has made.
type cluster struct {
	nodes []string

	mu       sync.Mutex
	attached map[string][]string // by handle
}

func (c *cluster) AttachedNodes(_ context.Context, handles ...string) (attached, others []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range handles {
		attached = append(attached, c.attached[h]...)
	}
	return attached, nil, nil
}

func (c *cluster) NodeExists(_ context.Context, node string) (bool, error) {
	return slices.Contains(c.nodes, node), nil
}

func (c *cluster) SingleNodePV(context.Context, ...string) (string, error) { return "", nil }

func (c *cluster) NodeIDs(keys []string) []string {
	ids := slices.Clone(keys)
	for i, key := range ids {
		for _, node := range c.nodes {
			if rds.NodeKey(node) == key {
				ids[i] = node
			}
		}
	}
	return ids
}

// attach says, as a VolumeAttachment does, whether a volume is attached to a node.
func (c *cluster) attach(handle, node string, attached bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	others := slices.DeleteFunc(c.attached[handle], func(n string) bool { return n == node })
	if attached {
		others = append(others, node)
	}
	c.attached[handle] = others
}
