package csi_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Every kind of failure keeps its own meaning, also when it is wrapped.
func TestCodes(t *testing.T) {
	for _, test := range []struct {
		kind error
		want codes.Code
	}{
		{rds.ErrUnreachable, codes.Unavailable},
		{rds.ErrUnknownOutcome, codes.Aborted},
		{rds.ErrDenied, codes.PermissionDenied},
		{rds.ErrBusy, codes.Aborted},
		{rds.ErrNotFound, codes.NotFound},
		{rds.ErrExists, codes.AlreadyExists},
		{rds.ErrNoSpace, codes.ResourceExhausted},
		{rds.ErrUnsupported, codes.FailedPrecondition},
		{rds.ErrConflict, codes.Aborted},
		{rds.ErrInUse, codes.FailedPrecondition},
		{rds.ErrLedger, codes.FailedPrecondition},
		{rds.ErrInvalid, codes.InvalidArgument},
		{rds.ErrUnderWay, codes.Aborted},
		{rds.ErrOutOfRange, codes.OutOfRange},
		{rds.ErrFailed, codes.Internal},
	} {
		t.Run(test.kind.Error(), func(t *testing.T) {
			e, m := serveMemory(t)
			m.before = func(context.Context, string, string) error {
				return fmt.Errorf("wrapped: %w", &rds.Error{Kind: test.kind, Op: "update", Words: "failure: out of coffee", Hint: "brew some"})
			}
			_, err := e.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: "pvc-x"})
			wantCode(t, err, test.want)
			for _, part := range []string{"pvc-x", "out of coffee", "brew some"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the message lacks %q: %v", part, err)
				}
			}
		})
	}
}

// A command that was in flight when the caller's patience ended: not Aborted, which
// would say that another operation is under way, and never a final code.
func TestContextEndsWithACommandInFlight(t *testing.T) {
	metrics, err := csi.NewMetrics(prometheus.NewRegistry(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	edge := csi.Interceptor(logr.Discard(), metrics, nil)
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx  context.Context
		want codes.Code
	}{
		"deadline": {expired, codes.DeadlineExceeded},
		"canceled": {canceled, codes.Canceled},
		"still on": {t.Context(), codes.Aborted},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := edge(test.ctx, &spec.CreateVolumeRequest{}, &grpc.UnaryServerInfo{FullMethod: "/csi.v1.Controller/CreateVolume"},
				func(ctx context.Context, _ any) (any, error) {
					return nil, &rds.Error{Kind: rds.ErrUnknownOutcome, Op: "create volume", Err: ctx.Err()}
				})
			wantCode(t, err, test.want)
		})
	}
}

func TestPanicIsOneRequestsProblem(t *testing.T) {
	e, m := serveMemory(t)
	m.before = func(_ context.Context, _, slot string) error {
		if slot == "pvc-bad" {
			panic("out of range")
		}
		return nil
	}
	for range 2 { // the second one is not told that the first is still pending
		_, err := e.publish(t, &spec.Volume{VolumeId: "pvc-bad"}, "node-a", rwoBlock)
		wantCode(t, err, codes.Internal)
	}
	e.create(t, pvName, rwoBlock)
}

func TestLogKnowsTheRequestAndNoSecret(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	log := funcr.New(func(_, args string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, args)
	}, funcr.Options{Verbosity: 10})
	metrics, err := csi.NewMetrics(prometheus.NewRegistry(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	server, err := csi.New(csi.Config{DriverName: "d", Cluster: newCluster(), Backends: []csi.Backend{{Name: "main", Array: newMemory(), Addresses: []string{"a"}, Port: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	client := spec.NewControllerClient(dial(t, csi.Interceptor(log, metrics, nil), server.Register))
	_, _ = client.CreateVolume(t.Context(), &spec.CreateVolumeRequest{Name: pvName, Secrets: map[string]string{"k": "hunter2"}, VolumeCapabilities: []*spec.VolumeCapability{rwoMount}})
	_, err = client.ControllerPublishVolume(t.Context(), &spec.ControllerPublishVolumeRequest{VolumeId: "pvc-x", NodeId: "node-a", VolumeCapability: rwoMount, Secrets: map[string]string{"k": "hunter2"}})
	wantCode(t, err, codes.NotFound)
	mu.Lock()
	defer mu.Unlock()
	all := strings.Join(lines, "\n")
	if strings.Contains(all, "hunter2") {
		t.Error("a secret is in the log")
	}
	for _, part := range []string{`"method"="ControllerPublishVolume"`, `"volume"="pvc-x"`, `"node"="node-a"`, `"code"="NotFound"`, pvName} {
		if !strings.Contains(all, part) {
			t.Errorf("the log lacks %s:\n%s", part, all)
		}
	}
}

func TestNotReadyServesNothing(t *testing.T) {
	var mu sync.Mutex
	var reason error
	e := serve(t, map[string]rds.Array{"main": newMemory()}, []string{"main"}, func(c *csi.Config) {
		c.Ready = func() error {
			mu.Lock()
			defer mu.Unlock()
			return reason
		}
	})
	probe := func(want bool) {
		t.Helper()
		r, err := e.identity.Probe(t.Context(), &spec.ProbeRequest{})
		if err != nil || r.GetReady().GetValue() != want {
			t.Errorf("probe: %v, %v", r, err)
		}
	}
	probe(true)
	v := e.create(t, pvName, rwoMount)
	mu.Lock()
	reason = errors.New("the Lease is not held")
	mu.Unlock()
	probe(false)
	_, err := e.publish(t, v, "node-a", rwoMount)
	wantCode(t, err, codes.Unavailable)
}

func TestMetrics(t *testing.T) {
	e, m := serveMemory(t)
	e.create(t, pvName, rwoMount)
	m.before = func(context.Context, string, string) error { return &rds.Error{Kind: rds.ErrUnreachable} }
	_, _ = e.CreateVolume(t.Context(), &spec.CreateVolumeRequest{Name: "other", VolumeCapabilities: []*spec.VolumeCapability{rwoMount}})
	families, err := e.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			key := family.GetName()
			for _, label := range metric.GetLabel() {
				key += " " + label.GetValue()
			}
			got[key] = metric.GetHistogram().GetSampleCount()
		}
	}
	for key, want := range map[string]uint64{
		"rds_csi_rpc_duration_seconds OK CreateVolume":                            1,
		"rds_csi_rpc_duration_seconds Unavailable CreateVolume":                   1,
		"rds_csi_rpc_duration_seconds FailedPrecondition ControllerPublishVolume": 0,
	} {
		if n, exists := got[key]; !exists || n != want {
			t.Errorf("%s: %d (exists %t), want %d", key, n, exists, want)
		}
	}
}

func TestSecondOperationOnAVolumeIsAborted(t *testing.T) {
	e, m := serveMemory(t)
	v := e.create(t, pvName, rwxBlock)
	other := e.create(t, "other", rwxBlock)
	entered, release := make(chan struct{}), make(chan struct{})
	m.before = func(_ context.Context, op, slot string) error {
		if op == "update" && slot == v.GetVolumeId() {
			close(entered)
			<-release
		}
		return nil
	}
	first := make(chan error, 1)
	go func() {
		_, err := e.ControllerPublishVolume(context.WithoutCancel(t.Context()), &spec.ControllerPublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: "node-a", VolumeCapability: rwxBlock, VolumeContext: v.GetVolumeContext()})
		first <- err
	}()
	<-entered
	_, err := e.publish(t, v, "node-b", rwxBlock)
	wantCode(t, err, codes.Aborted)
	wantCode(t, e.unpublish(t, v.GetVolumeId()+".main", "node-a"), codes.Aborted) // by its other name
	_, err = e.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
	wantCode(t, err, codes.Aborted)
	// Nothing of that keeps another volume waiting, nor reading.
	e.mustPublish(t, other, "node-a", rwxBlock)
	if n := e.count(t); n != 2 {
		t.Errorf("%d volumes", n)
	}
	close(release)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
}

func TestIdentity(t *testing.T) {
	e, _ := serveMemory(t)
	info, err := e.identity.GetPluginInfo(t.Context(), &spec.GetPluginInfoRequest{})
	if err != nil || info.GetName() != csi.DefaultDriverName || info.GetVendorVersion() != "test" {
		t.Errorf("%v, %v", info, err)
	}
	capabilities, err := e.identity.GetPluginCapabilities(t.Context(), &spec.GetPluginCapabilitiesRequest{})
	if err != nil || len(capabilities.GetCapabilities()) != 2 {
		t.Errorf("%v, %v", capabilities, err)
	}
	// What is offered works, and what is not offered is Unimplemented.
	_, err = e.ControllerModifyVolume(t.Context(), &spec.ControllerModifyVolumeRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}
