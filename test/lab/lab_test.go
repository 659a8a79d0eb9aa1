package lab

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// One lab serves all tests of the package; each has a namespace of its own.
var shared *Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

var keep = flag.Bool("keep", false, "leave the lab's folder, with its logs, in place and say where it is")

func run(m *testing.M) (code int) {
	flag.Parse()
	if testing.Short() {
		return m.Run()
	}
	started := time.Now()
	progress := func(format string, args ...any) {
		if testing.Verbose() {
			fmt.Printf("[%5.1fs] %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute) // a cold build
	defer cancel()
	cluster, err := Start(ctx, Options{
		Nodes:    []string{"node-a", "node-b", "node-c"},
		KubeVirt: KubeVirtOptions{ParallelMigrations: 50, ParallelOutbound: 50},
		Progress: progress,
		Keep:     *keep,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared = cluster
	if *keep {
		fmt.Println("the lab's folder:", cluster.Dir)
	}
	defer func() {
		if err := cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	stop, err := startFakeDriver(ctx, cluster)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	return m.Run()
}

// setUp gives a test the lab, a namespace and a deadline.
func setUp(t *testing.T) (context.Context, *Cluster, string) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a whole cluster: run without -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	namespace := fmt.Sprintf("test-%d", nextNamespace())
	if err := shared.CreateNamespace(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	return ctx, shared, namespace
}

var (
	namespaceMu sync.Mutex
	namespaces  int
)

func nextNamespace() int {
	namespaceMu.Lock()
	defer namespaceMu.Unlock()
	namespaces++
	return namespaces
}

// fakeDriver is a CSI controller that attaches everything to everyone.
type fakeDriver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
}

func startFakeDriver(ctx context.Context, c *Cluster) (stop func(), err error) {
	socket := filepath.Join(c.Dir, "csi.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, &fakeDriver{})
	csi.RegisterControllerServer(server, &fakeDriver{})
	go func() { _ = server.Serve(listener) }()
	_, err = c.StartAttacher(ctx, AttacherOptions{Socket: socket})
	return server.Stop, err
}

func (*fakeDriver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: Driver, VendorVersion: "test"}, nil
}

func (*fakeDriver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{
		Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}},
	}}}, nil
}

func (*fakeDriver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func (*fakeDriver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{
		Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{
			Type: csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		}},
	}}}, nil
}

func (*fakeDriver) ControllerPublishVolume(context.Context, *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	return &csi.ControllerPublishVolumeResponse{}, nil
}

func (*fakeDriver) ControllerUnpublishVolume(context.Context, *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}
