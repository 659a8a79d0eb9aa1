package sanity_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	csisanity "github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	client "git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/sanity"
)

const (
	mib    = int64(1) << 20
	nodeID = "node-a"
)

// TestSanity drives the controller, on a pool that can snapshot and on one that
// has to copy, through the SSH client that real arrays are reached with.
func TestSanity(t *testing.T) {
	servers := map[string]*routeros.Server{}
	setups := map[string]*csisanity.TestConfig{}
	for _, fs := range []string{"btrfs", "xfs"} {
		server, array := simulate(t, fs)
		address := serve(t, array)
		servers[fs], setups["on "+fs] = server, sanity.NewConfig(address, address, 64*mib)
	}
	sanity.Run(t, setups, sanity.NotOffered(), sanity.NoNode())
	for fs, server := range servers {
		if err := server.WaitIdle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(server.Disks()); n != 1 {
			t.Errorf("on %s %d disks are left", fs, n-1)
		}
		for _, f := range server.Files() {
			if f.Name != "raid10" && f.Name != "raid10/k8s" {
				t.Errorf("on %s %s is left", fs, f.Name)
			}
		}
	}
}

func simulate(t *testing.T, fs string) (*routeros.Server, *client.Array) {
	t.Helper()
	server, err := routeros.New(routeros.Options{HostKeyType: routeros.Ed25519})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	must(t, server.AddPool(routeros.Pool{Name: "raid10", FS: fs, Size: 1 << 40}))
	must(t, server.AddDirectory("raid10/k8s"))
	must(t, server.Start(""))
	key := filepath.Join(t.TempDir(), "key")
	must(t, routeros.WriteKey(key))
	array, err := client.New(client.Config{
		Name: "main", Address: server.Addr(), User: "admin", KeyFile: key,
		HostKey: client.HostKeys{ssh.FingerprintSHA256(server.HostKey())}, BasePath: "raid10/k8s",
	})
	must(t, err)
	t.Cleanup(func() { must(t, array.Close()) })
	return server, array
}

// serve starts the controller, and beside it what the suite asks of a node: its id.
func serve(t *testing.T, array *client.Array) string {
	t.Helper()
	server, err := csi.New(csi.Config{DriverName: csi.DefaultDriverName, Version: "test", Cluster: cluster{}, Backends: []csi.Backend{
		{Name: "main", Array: array, Addresses: []string{"192.0.2.1"}, Port: 4420},
	}})
	must(t, err)
	metrics, err := csi.NewMetrics(prometheus.NewRegistry(), nil, nil)
	must(t, err)
	socket := filepath.Join(t.TempDir(), "csi.sock")
	listener, err := net.Listen("unix", socket)
	must(t, err)
	g := grpc.NewServer(grpc.UnaryInterceptor(csi.Interceptor(logr.Discard(), metrics, nil)))
	server.Register(g)
	spec.RegisterNodeServer(g, node{})
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	return socket
}

type node struct{ spec.UnimplementedNodeServer }

func (node) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	return &spec.NodeGetInfoResponse{NodeId: nodeID}, nil
}

func (node) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	return &spec.NodeGetCapabilitiesResponse{}, nil
}

// NodeUnpublishVolume succeeds: nothing is ever published here.
func (node) NodeUnpublishVolume(context.Context, *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	return &spec.NodeUnpublishVolumeResponse{}, nil
}

// cluster has one node, and attachments of which it knows nothing.
type cluster struct{}

func (cluster) AttachedNodes(context.Context, ...string) (attached, others []string, err error) {
	return nil, nil, nil
}
func (cluster) NodeExists(_ context.Context, id string) (bool, error)   { return id == nodeID, nil }
func (cluster) SingleNodePV(context.Context, ...string) (string, error) { return "", nil }
func (cluster) NodeIDs(keys []string) []string                          { return keys }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
