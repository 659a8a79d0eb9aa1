package csi_test

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// cluster is a hand-written Cluster: what the test says is attached is.
type cluster struct {
	mu       sync.Mutex
	nodes    []string
	attached map[string][]string // by any spelling of a handle
	others   map[string][]string // with an attachment that does not say attached
	singlePV map[string]string
	down     error
	asked    int // live reads
}

func newCluster() *cluster {
	return &cluster{nodes: []string{"node-a", "node-b", "node-c"}, attached: map[string][]string{}, others: map[string][]string{}, singlePV: map[string]string{}}
}

func (c *cluster) AttachedNodes(_ context.Context, handles ...string) (attached, others []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	for _, h := range handles {
		attached, others = append(attached, c.attached[h]...), append(others, c.others[h]...)
	}
	return attached, others, c.down
}

func (c *cluster) NodeExists(_ context.Context, node string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.Contains(c.nodes, node)
	if known {
		return true, nil
	}
	return false, c.down
}

func (c *cluster) SingleNodePV(_ context.Context, handles ...string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range handles {
		if pv := c.singlePV[h]; pv != "" {
			return pv, nil
		}
	}
	return "", nil
}

func (c *cluster) NodeIDs(keys []string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
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

func (c *cluster) attach(handle string, nodes ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attached[handle] = nodes
}

// mention makes attachments that do not say attached, yet or any more.
func (c *cluster) mention(handle string, nodes ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.others[handle] = nodes
}

// fail makes the API server unreachable, or with nil reachable again.
func (c *cluster) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = err
}

func (c *cluster) reads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// allowSecond grants every second node.
type allowSecond struct{}

func (allowSecond) MayShare(context.Context, string, string, ...string) error { return nil }

// env is a plugin behind a real socket.
type env struct {
	spec.ControllerClient
	identity spec.IdentityClient
	cluster  *cluster
	registry *prometheus.Registry
}

// serve starts a plugin on the arrays; the first is the default one.
func serve(t testing.TB, arrays map[string]rds.Array, order []string, change func(*csi.Config)) *env {
	t.Helper()
	e := &env{cluster: newCluster(), registry: prometheus.NewRegistry()}
	config := csi.Config{DriverName: csi.DefaultDriverName, Version: "test", Cluster: e.cluster, Guard: allowSecond{}, Now: func() time.Time { return time.Unix(1_760_000_000, 0) }}
	for _, name := range order {
		config.Backends = append(config.Backends, csi.Backend{Name: name, Array: arrays[name], Addresses: []string{"10.0.0.1", "10.0.1.1"}, Port: 4420})
	}
	if change != nil {
		change(&config)
	}
	server, err := csi.New(config)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := csi.NewMetrics(e.registry, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, csi.Interceptor(logr.Discard(), metrics, config.Ready), server.Register)
	e.ControllerClient, e.identity = spec.NewControllerClient(conn), spec.NewIdentityClient(conn)
	return e
}

func dial(t testing.TB, edge grpc.UnaryServerInterceptor, register func(grpc.ServiceRegistrar)) *grpc.ClientConn {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "csi.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.UnaryInterceptor(edge))
	register(g)
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// serveMemory starts a plugin on one array in memory.
func serveMemory(t *testing.T) (*env, *memory) {
	t.Helper()
	m := newMemory()
	return serve(t, map[string]rds.Array{"main": m}, []string{"main"}, nil), m
}

func capability(mode spec.VolumeCapability_AccessMode_Mode, mount bool) *spec.VolumeCapability {
	c := &spec.VolumeCapability{
		AccessType: &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}},
		AccessMode: &spec.VolumeCapability_AccessMode{Mode: mode},
	}
	if mount {
		c.AccessType = &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{FsType: "ext4"}}
	}
	return c
}

var (
	rwxBlock = capability(spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, false)
	rwoBlock = capability(spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER, false)
	rwoMount = capability(spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER, true)
)

const (
	pvName = "pvc-3fd2c1a4-5b6e-4f70-8a91-b2c3d4e5f607"
	gib    = int64(1) << 30
)

func (e *env) create(t *testing.T, name string, c *spec.VolumeCapability) *spec.Volume {
	t.Helper()
	r, err := e.CreateVolume(t.Context(), &spec.CreateVolumeRequest{Name: name, VolumeCapabilities: []*spec.VolumeCapability{c}})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetVolume()
}

func (e *env) publish(t *testing.T, v *spec.Volume, node string, c *spec.VolumeCapability) (map[string]string, error) {
	t.Helper()
	r, err := e.ControllerPublishVolume(t.Context(), &spec.ControllerPublishVolumeRequest{
		VolumeId: v.GetVolumeId(), NodeId: node, VolumeCapability: c, VolumeContext: v.GetVolumeContext(),
	})
	return r.GetPublishContext(), err
}

func (e *env) mustPublish(t *testing.T, v *spec.Volume, node string, c *spec.VolumeCapability) map[string]string {
	t.Helper()
	context, err := e.publish(t, v, node, c)
	if err != nil {
		t.Fatal(err)
	}
	return context
}

func (e *env) unpublish(t *testing.T, handle, node string) error {
	t.Helper()
	_, err := e.ControllerUnpublishVolume(t.Context(), &spec.ControllerUnpublishVolumeRequest{VolumeId: handle, NodeId: node})
	return err
}

// holders is who the array says holds the volume.
func (e *env) holders(t *testing.T, handle string) []string {
	t.Helper()
	r, err := e.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: handle})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetStatus().GetPublishedNodeIds()
}

func (e *env) count(t *testing.T) int {
	t.Helper()
	r, err := e.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return len(r.GetEntries())
}

func codeOf(err error) codes.Code { return status.Code(err) }

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Fatalf("code %s (%v), want %s", got, err, want)
	}
}
