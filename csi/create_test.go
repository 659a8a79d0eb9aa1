package csi_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

func TestCreateVolumeRefusesBadInput(t *testing.T) {
	base := func() *spec.CreateVolumeRequest {
		return &spec.CreateVolumeRequest{Name: pvName, VolumeCapabilities: []*spec.VolumeCapability{rwoMount}}
	}
	for name, test := range map[string]struct {
		change func(*spec.CreateVolumeRequest)
		want   codes.Code
		says   string
	}{
		"no name":            {func(r *spec.CreateVolumeRequest) { r.Name = "" }, codes.InvalidArgument, "name"},
		"a quote":            {func(r *spec.CreateVolumeRequest) { r.Name = `a"b` }, codes.InvalidArgument, "name"},
		"a dollar sign":      {func(r *spec.CreateVolumeRequest) { r.Name = "a$slot" }, codes.InvalidArgument, "name"},
		"a newline":          {func(r *spec.CreateVolumeRequest) { r.Name = "a\n/system/reset-configuration" }, codes.InvalidArgument, "name"},
		"a trailing newline": {func(r *spec.CreateVolumeRequest) { r.Name = "abc\n" }, codes.InvalidArgument, "name"},
		"a slash":            {func(r *spec.CreateVolumeRequest) { r.Name = "../etc" }, codes.InvalidArgument, "name"},
		"too long":           {func(r *spec.CreateVolumeRequest) { r.Name = strings.Repeat("x", 254) }, codes.InvalidArgument, "name"},
		"no capabilities":    {func(r *spec.CreateVolumeRequest) { r.VolumeCapabilities = nil }, codes.InvalidArgument, "volume_capabilities"},
		"a null capability": {func(r *spec.CreateVolumeRequest) {
			r.VolumeCapabilities = []*spec.VolumeCapability{{}}
		}, codes.InvalidArgument, "neither block nor mount"},
		"no access mode": {func(r *spec.CreateVolumeRequest) {
			r.VolumeCapabilities = []*spec.VolumeCapability{capability(spec.VolumeCapability_AccessMode_UNKNOWN, false)}
		}, codes.InvalidArgument, "access mode"},
		"RWX filesystem": {func(r *spec.CreateVolumeRequest) {
			r.VolumeCapabilities = []*spec.VolumeCapability{capability(spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, true)}
		}, codes.InvalidArgument, "volumeMode Block"},
		"RWX filesystem behind a good one": {func(r *spec.CreateVolumeRequest) {
			r.VolumeCapabilities = append(r.VolumeCapabilities, capability(spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, true))
		}, codes.InvalidArgument, "volumeMode Block"},
		"ROX": {func(r *spec.CreateVolumeRequest) {
			r.VolumeCapabilities = []*spec.VolumeCapability{capability(spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY, false)}
		}, codes.InvalidArgument, "MULTI_NODE_READER_ONLY"},
		"one writer, many readers": {func(r *spec.CreateVolumeRequest) {
			r.VolumeCapabilities = []*spec.VolumeCapability{capability(spec.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER, false)}
		}, codes.InvalidArgument, "MULTI_NODE_SINGLE_WRITER"},
		"negative size":  {func(r *spec.CreateVolumeRequest) { r.CapacityRange = &spec.CapacityRange{RequiredBytes: -1} }, codes.InvalidArgument, "negative"},
		"negative limit": {func(r *spec.CreateVolumeRequest) { r.CapacityRange = &spec.CapacityRange{LimitBytes: -1} }, codes.InvalidArgument, "negative"},
		"required above limit": {func(r *spec.CreateVolumeRequest) {
			r.CapacityRange = &spec.CapacityRange{RequiredBytes: 2, LimitBytes: 1}
		}, codes.InvalidArgument, "at most"},
		"rounded up above limit": {func(r *spec.CreateVolumeRequest) {
			r.CapacityRange = &spec.CapacityRange{RequiredBytes: gib + 1, LimitBytes: gib + 2}
		}, codes.OutOfRange, "rounded"},
		"limit below one MiB": {func(r *spec.CreateVolumeRequest) { r.CapacityRange = &spec.CapacityRange{LimitBytes: 1000} }, codes.OutOfRange, "MiB"},
		"beyond int64":        {func(r *spec.CreateVolumeRequest) { r.CapacityRange = &spec.CapacityRange{RequiredBytes: math.MaxInt64} }, codes.OutOfRange, "more than"},
		"unknown parameter": {func(r *spec.CreateVolumeRequest) {
			r.Parameters = map[string]string{"dualattach": "Any"}
		}, codes.InvalidArgument, `"dualattach" is not known; known are array, dualAttach and migrationTimeoutSeconds`},
		"unknown array":            {func(r *spec.CreateVolumeRequest) { r.Parameters = map[string]string{"array": "nowhere"} }, codes.InvalidArgument, "main"},
		"unknown dualAttach":       {func(r *spec.CreateVolumeRequest) { r.Parameters = map[string]string{"dualAttach": "Never"} }, codes.InvalidArgument, "LiveMigration"},
		"timeout not a number":     {func(r *spec.CreateVolumeRequest) { r.Parameters = map[string]string{"migrationTimeoutSeconds": "5m"} }, codes.InvalidArgument, "30 to 3600"},
		"timeout too short":        {func(r *spec.CreateVolumeRequest) { r.Parameters = map[string]string{"migrationTimeoutSeconds": "29"} }, codes.InvalidArgument, "30 to 3600"},
		"timeout too long":         {func(r *spec.CreateVolumeRequest) { r.Parameters = map[string]string{"migrationTimeoutSeconds": "3601"} }, codes.InvalidArgument, "30 to 3600"},
		"mutable parameters":       {func(r *spec.CreateVolumeRequest) { r.MutableParameters = map[string]string{"a": "b"} }, codes.InvalidArgument, "mutable"},
		"from what is no snapshot": {func(r *spec.CreateVolumeRequest) { r.VolumeContentSource = fromSnapshot("s") }, codes.NotFound, `no snapshot "s"`},
		"from no volume":           {func(r *spec.CreateVolumeRequest) { r.VolumeContentSource = fromVolume("a/b") }, codes.InvalidArgument, "handle"},
		"from nothing":             {func(r *spec.CreateVolumeRequest) { r.VolumeContentSource = &spec.VolumeContentSource{} }, codes.InvalidArgument, "neither"},
		"from no array":            {func(r *spec.CreateVolumeRequest) { r.VolumeContentSource = fromVolume("pvc-a.nowhere") }, codes.FailedPrecondition, "not configured"},
	} {
		t.Run(name, func(t *testing.T) {
			e, m := serveMemory(t)
			m.before = func(_ context.Context, op, _ string) error {
				t.Errorf("the array was asked (%s)", op)
				return nil
			}
			r := base()
			test.change(r)
			_, err := e.CreateVolume(t.Context(), r)
			wantCode(t, err, test.want)
			if message := status.Convert(err).Message(); !strings.Contains(message, test.says) {
				t.Errorf("message %q does not speak of %q", message, test.says)
			}
		})
	}
}

func TestCreateVolumeSizes(t *testing.T) {
	for name, test := range map[string]struct {
		capacity *spec.CapacityRange
		want     int64
	}{
		"no range":             {nil, gib},
		"an empty range":       {&spec.CapacityRange{}, gib},
		"exact":                {&spec.CapacityRange{RequiredBytes: 3 * gib}, 3 * gib},
		"1.5 GiB stays so":     {&spec.CapacityRange{RequiredBytes: gib * 3 / 2}, gib * 3 / 2},
		"one byte":             {&spec.CapacityRange{RequiredBytes: 1}, 1 << 20},
		"rounded up":           {&spec.CapacityRange{RequiredBytes: gib + 1}, gib + 1<<20},
		"decimal":              {&spec.CapacityRange{RequiredBytes: 10_000_000_000}, 10_000_269_312},
		"rounded up to limit":  {&spec.CapacityRange{RequiredBytes: gib + 1, LimitBytes: gib + 1<<20}, gib + 1<<20},
		"required is limit":    {&spec.CapacityRange{RequiredBytes: gib, LimitBytes: gib}, gib},
		"a low limit alone":    {&spec.CapacityRange{LimitBytes: gib/2 + 7}, gib / 2},
		"a high limit alone":   {&spec.CapacityRange{LimitBytes: 5 * gib}, gib},
		"one TiB less one MiB": {&spec.CapacityRange{RequiredBytes: 128*gib - 1<<20}, 128*gib - 1<<20},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, f fixture) {
				r, err := e.CreateVolume(t.Context(), &spec.CreateVolumeRequest{
					Name: pvName, CapacityRange: test.capacity, VolumeCapabilities: []*spec.VolumeCapability{rwoMount},
				})
				if err != nil {
					t.Fatal(err)
				}
				onArray := f.volume(t, r.GetVolume().GetVolumeId()).Size
				if got := r.GetVolume().GetCapacityBytes(); got != test.want || onArray != test.want {
					t.Errorf("reported %d, on the array %d, want %d", got, onArray, test.want)
				}
			})
		})
	}
}

func TestCreateVolumeDescribesTheVolume(t *testing.T) {
	arrays := map[string]rds.Array{"main": newMemory(), "west": newMemory()}
	e := serve(t, arrays, []string{"main", "west"}, nil)
	metadata := map[string]string{"csi.storage.k8s.io/pv/name": pvName, "csi.storage.k8s.io/pvc/name": "disk", "csi.storage.k8s.io/pvc/namespace": "vms"}
	with := func(base map[string]string, more ...string) map[string]string {
		out := map[string]string{}
		for k, v := range base {
			out[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	addresses := map[string]string{"nvmeAddress": "10.0.0.1", "nvmeAddresses": "10.0.0.1,10.0.1.1", "nvmePort": "4420"}
	for name, test := range map[string]struct {
		parameters map[string]string
		capability *spec.VolumeCapability
		handle     string
		context    map[string]string
	}{
		"plain": {nil, rwoMount, rds.SlotFor("plain"), with(addresses, "dualAttach", "LiveMigration", "accessMode", "ReadWriteOnce")},
		"everything": {with(metadata, "array", "west", "dualAttach", "Any", "migrationTimeoutSeconds", "600", "csi.storage.k8s.io/fstype", "ext4"), rwxBlock,
			rds.SlotFor("everything") + ".west", with(with(addresses, "dualAttach", "Any", "accessMode", "ReadWriteMany", "migrationTimeoutSeconds", "600"), "csi.storage.k8s.io/pv/name", pvName, "csi.storage.k8s.io/pvc/name", "disk", "csi.storage.k8s.io/pvc/namespace", "vms")},
		"default array by name": {map[string]string{"array": "main"}, rwxBlock, rds.SlotFor("default array by name"), with(addresses, "dualAttach", "LiveMigration", "accessMode", "ReadWriteMany")},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := e.CreateVolume(t.Context(), &spec.CreateVolumeRequest{
				Name: strings.ReplaceAll(name, " ", "-"), Parameters: test.parameters, VolumeCapabilities: []*spec.VolumeCapability{test.capability},
			})
			if err != nil {
				t.Fatal(err)
			}
			handle := strings.ReplaceAll(test.handle, rds.SlotFor(name), rds.SlotFor(strings.ReplaceAll(name, " ", "-")))
			if got := r.GetVolume().GetVolumeId(); got != handle {
				t.Errorf("handle %s, want %s", got, handle)
			}
			if diff := cmp.Diff(test.context, r.GetVolume().GetVolumeContext()); diff != "" {
				t.Error("volume context (-want +got):\n" + diff)
			}
		})
	}
}

func TestCreateVolumeAgain(t *testing.T) {
	for name, test := range map[string]struct {
		first, second *spec.CapacityRange
		want          codes.Code
		size          int64
	}{
		"the same":                  {&spec.CapacityRange{RequiredBytes: gib}, &spec.CapacityRange{RequiredBytes: gib}, codes.OK, gib},
		"the same after rounding":   {&spec.CapacityRange{RequiredBytes: gib - 1}, &spec.CapacityRange{RequiredBytes: gib}, codes.OK, gib},
		"larger":                    {&spec.CapacityRange{RequiredBytes: gib}, &spec.CapacityRange{RequiredBytes: 2 * gib}, codes.AlreadyExists, 0},
		"smaller":                   {&spec.CapacityRange{RequiredBytes: 2 * gib}, &spec.CapacityRange{RequiredBytes: gib}, codes.AlreadyExists, 0},
		"within the allowed range":  {&spec.CapacityRange{RequiredBytes: 2 * gib}, &spec.CapacityRange{RequiredBytes: gib, LimitBytes: 3 * gib}, codes.OK, 2 * gib},
		"within a limit alone":      {&spec.CapacityRange{RequiredBytes: gib / 2}, &spec.CapacityRange{LimitBytes: 3 * gib}, codes.OK, gib / 2},
		"outside the allowed range": {&spec.CapacityRange{RequiredBytes: 4 * gib}, &spec.CapacityRange{RequiredBytes: gib, LimitBytes: 3 * gib}, codes.AlreadyExists, 0},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, _ fixture) {
				r := &spec.CreateVolumeRequest{Name: pvName, CapacityRange: test.first, VolumeCapabilities: []*spec.VolumeCapability{rwoMount}}
				if _, err := e.CreateVolume(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				r.CapacityRange = test.second
				got, err := e.CreateVolume(t.Context(), r)
				wantCode(t, err, test.want)
				if size := got.GetVolume().GetCapacityBytes(); size != test.size {
					t.Errorf("size %d, want %d", size, test.size)
				}
				if n := e.count(t); n != 1 {
					t.Errorf("%d volumes on the array", n)
				}
			})
		})
	}
}

func TestCreateVolumeWhileItIsBeingDeleted(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, f fixture) {
		v := e.create(t, pvName, rwoMount)
		f.setComment(t, v.GetVolumeId(), "rds1 g0 deleting")
		_, err := e.CreateVolume(t.Context(), &spec.CreateVolumeRequest{Name: pvName, VolumeCapabilities: []*spec.VolumeCapability{rwoMount}})
		wantCode(t, err, codes.Aborted)
	})
}

// A creation whose outcome is unknown must not end in a code that csi-provisioner
// takes for final until the array has said what became of it.
func TestCreateVolumeLeaksNothingAfterAnUnknownOutcome(t *testing.T) {
	e, m := serveMemory(t)
	source := e.create(t, "source", rwoMount)
	request := &spec.CreateVolumeRequest{Name: pvName, VolumeCapabilities: []*spec.VolumeCapability{rwoMount}, VolumeContentSource: fromVolume(source.GetVolumeId())}
	steps := []struct {
		kind    error
		want    codes.Code
		cluster error // what asking who holds the source comes to
	}{
		{kind: rds.ErrDenied, want: codes.PermissionDenied}, // nothing under way yet
		{kind: rds.ErrUnknownOutcome, want: codes.Aborted},
		{kind: rds.ErrDenied, want: codes.Aborted},
		{kind: rds.ErrUnreachable, want: codes.Unavailable},
		{kind: rds.ErrDenied, want: codes.Aborted},
		{kind: rds.ErrLedger, cluster: errors.New("no API server"), want: codes.Unavailable},
		{kind: rds.ErrDenied, want: codes.Aborted},
		{want: codes.OK},
		{kind: rds.ErrDenied, want: codes.PermissionDenied},
	}
	for i, step := range steps {
		e.cluster.fail(step.cluster)
		m.before = func(context.Context, string, string) error {
			if step.kind == nil {
				return nil
			}
			return &rds.Error{Kind: step.kind, Op: "create volume"}
		}
		_, err := e.CreateVolume(t.Context(), request)
		if got := status.Code(err); got != step.want {
			t.Fatalf("step %d: %s (%v), want %s", i, got, err, step.want)
		}
	}
}

// Neither is another request for its source an answer.
func TestCreateVolumeLeaksNothingWhileItsSourceIsBusy(t *testing.T) {
	e, m := serveMemory(t)
	source := e.create(t, "source", rwoMount)
	request := &spec.CreateVolumeRequest{Name: pvName, VolumeCapabilities: []*spec.VolumeCapability{rwoMount}, VolumeContentSource: fromVolume(source.GetVolumeId())}
	create := func(kind error) error {
		m.before = func(_ context.Context, op, _ string) error {
			if op != "create" {
				return nil
			}
			return &rds.Error{Kind: kind, Op: "create volume"}
		}
		_, err := e.CreateVolume(t.Context(), request)
		return err
	}
	wantCode(t, create(rds.ErrUnknownOutcome), codes.Aborted)
	began, end := make(chan struct{}), make(chan struct{})
	m.before = func(_ context.Context, op, _ string) error {
		if op == "delete" {
			close(began)
			<-end
		}
		return nil
	}
	deleted := make(chan error, 1)
	go func() {
		_, err := e.DeleteVolume(context.Background(), &spec.DeleteVolumeRequest{VolumeId: source.GetVolumeId()})
		deleted <- err
	}()
	<-began
	wantCode(t, create(rds.ErrLedger), codes.Aborted)
	wantCode(t, create(rds.ErrDenied), codes.Aborted)
	close(end)
	if err := <-deleted; err != nil {
		t.Fatal(err)
	}
}
