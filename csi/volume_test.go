package csi_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

func TestDeleteVolume(t *testing.T) {
	for name, test := range map[string]struct {
		handle  string // empty: the created one's
		prepare func(t *testing.T, e *env, f fixture, v *spec.Volume)
		want    codes.Code
		left    int
	}{
		"unused":             {want: codes.OK},
		"absent":             {handle: "pvc-absent", want: codes.OK, left: 1},
		"malformed":          {handle: "$(reboot)", want: codes.InvalidArgument, left: 1},
		"unconfigured array": {handle: "pvc-absent.elsewhere", want: codes.FailedPrecondition, left: 1},
		"published": {prepare: func(t *testing.T, e *env, _ fixture, v *spec.Volume) { e.mustPublish(t, v, "node-a", rwxBlock) },
			want: codes.FailedPrecondition, left: 1},
		"attached, whatever the ledger says": {prepare: func(_ *testing.T, e *env, _ fixture, v *spec.Volume) { e.cluster.attach(v.GetVolumeId(), "node-a") },
			want: codes.FailedPrecondition, left: 1},
		"ledger erased": {prepare: func(t *testing.T, _ *env, f fixture, v *spec.Volume) { f.setComment(t, v.GetVolumeId(), "") }, want: codes.OK},
		"begun before": {prepare: func(t *testing.T, _ *env, f fixture, v *spec.Volume) {
			f.setComment(t, v.GetVolumeId(), "rds1 g3 deleting")
		}, want: codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, f fixture) {
				v := e.create(t, pvName, rwxBlock)
				if test.prepare != nil {
					test.prepare(t, e, f, v)
				}
				handle := test.handle
				if handle == "" {
					handle = v.GetVolumeId()
				}
				for range 2 {
					_, err := e.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: handle})
					wantCode(t, err, test.want)
				}
				if n := e.count(t); n != test.left {
					t.Errorf("%d volumes left, want %d", n, test.left)
				}
			})
		})
	}
	t.Run("no volume", func(t *testing.T) {
		e, _ := serveMemory(t)
		_, err := e.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{})
		wantCode(t, err, codes.InvalidArgument)
	})
}

func TestExpandVolume(t *testing.T) {
	for name, test := range map[string]struct {
		capacity *spec.CapacityRange
		prepare  func(t *testing.T, e *env, f fixture, v *spec.Volume)
		want     codes.Code
		size     int64
	}{
		"larger":                  {capacity: &spec.CapacityRange{RequiredBytes: 2 * gib}, size: 2 * gib},
		"rounded up":              {capacity: &spec.CapacityRange{RequiredBytes: gib + 1}, size: gib + 1<<20},
		"the same":                {capacity: &spec.CapacityRange{RequiredBytes: gib}, size: gib},
		"smaller":                 {capacity: &spec.CapacityRange{RequiredBytes: 1}, size: gib},
		"a limit only":            {capacity: &spec.CapacityRange{LimitBytes: 4 * gib}, size: gib},
		"limit below what it has": {capacity: &spec.CapacityRange{LimitBytes: gib / 2}, want: codes.OutOfRange, size: gib},
		"no range":                {want: codes.InvalidArgument, size: gib},
		"negative":                {capacity: &spec.CapacityRange{RequiredBytes: -5}, want: codes.InvalidArgument, size: gib},
		"while published": {capacity: &spec.CapacityRange{RequiredBytes: 2 * gib}, size: 2 * gib,
			prepare: func(t *testing.T, e *env, _ fixture, v *spec.Volume) { e.mustPublish(t, v, "node-a", rwxBlock) }},
		"while dual-attached": {capacity: &spec.CapacityRange{RequiredBytes: 2 * gib}, want: codes.Aborted, size: gib,
			prepare: func(t *testing.T, e *env, _ fixture, v *spec.Volume) {
				e.mustPublish(t, v, "node-a", rwxBlock)
				e.mustPublish(t, v, "node-b", rwxBlock)
			}},
		"while dual-attached, ledger erased": {capacity: &spec.CapacityRange{RequiredBytes: 2 * gib}, want: codes.Aborted, size: gib,
			prepare: func(t *testing.T, e *env, f fixture, v *spec.Volume) {
				f.setComment(t, v.GetVolumeId(), "")
				e.cluster.attach(v.GetVolumeId(), "node-a", "node-b")
			}},
		"beyond the pool": {capacity: &spec.CapacityRange{RequiredBytes: 1 << 50}, want: codes.OutOfRange, size: gib},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, f fixture) {
				v := e.create(t, pvName, rwxBlock)
				if test.prepare != nil {
					test.prepare(t, e, f, v)
				}
				r, err := e.ControllerExpandVolume(t.Context(), &spec.ControllerExpandVolumeRequest{VolumeId: v.GetVolumeId(), CapacityRange: test.capacity, VolumeCapability: rwxBlock})
				wantCode(t, err, test.want)
				if err == nil && (r.GetCapacityBytes() != test.size || !r.GetNodeExpansionRequired()) {
					t.Errorf("answer %v", r)
				}
				if got := f.volume(t, v.GetVolumeId()).Size; got != test.size {
					t.Errorf("the array has %d bytes, want %d", got, test.size)
				}
			})
		})
	}
	t.Run("absent", func(t *testing.T) {
		e, _ := serveMemory(t)
		_, err := e.ControllerExpandVolume(t.Context(), &spec.ControllerExpandVolumeRequest{VolumeId: "pvc-absent", CapacityRange: &spec.CapacityRange{RequiredBytes: gib}})
		wantCode(t, err, codes.NotFound)
	})
}

func TestListVolumesPages(t *testing.T) {
	arrays := map[string]rds.Array{"main": newMemory(), "west": newMemory()}
	e := serve(t, arrays, []string{"main", "west"}, nil)
	var want []string
	for i := range 7 {
		r, err := e.CreateVolume(t.Context(), &spec.CreateVolumeRequest{
			Name: fmt.Sprintf("volume-%d", i), VolumeCapabilities: []*spec.VolumeCapability{rwxBlock},
			Parameters: map[string]string{"array": []string{"main", "west"}[i%2]},
		})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, r.GetVolume().GetVolumeId())
	}
	slices.Sort(want)
	e.mustPublish(t, &spec.Volume{VolumeId: want[0]}, "node-b", rwxBlock)
	for _, size := range []int32{0, 1, 2, 3, 7, 8} {
		t.Run(fmt.Sprintf("%d at a time", size), func(t *testing.T) {
			var got, held []string
			token := ""
			for {
				r, err := e.ListVolumes(t.Context(), &spec.ListVolumesRequest{MaxEntries: size, StartingToken: token})
				if err != nil {
					t.Fatal(err)
				}
				if size > 0 && len(r.GetEntries()) > int(size) {
					t.Fatalf("%d entries", len(r.GetEntries()))
				}
				for _, entry := range r.GetEntries() {
					got = append(got, entry.GetVolume().GetVolumeId())
					held = append(held, entry.GetStatus().GetPublishedNodeIds()...)
				}
				if token = r.GetNextToken(); token == "" {
					break
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error("volumes (-want +got):\n" + diff)
			}
			if diff := cmp.Diff([]string{"node-b"}, held); diff != "" {
				t.Error("holders (-want +got):\n" + diff)
			}
		})
	}
	t.Run("a volume goes between two pages", func(t *testing.T) {
		first, err := e.ListVolumes(t.Context(), &spec.ListVolumesRequest{MaxEntries: 3})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: want[2]}); err != nil {
			t.Fatal(err)
		}
		rest, err := e.ListVolumes(t.Context(), &spec.ListVolumesRequest{StartingToken: first.GetNextToken()})
		if err != nil {
			t.Fatal(err)
		}
		if got := rest.GetEntries()[0].GetVolume().GetVolumeId(); got != want[3] {
			t.Errorf("the second page begins with %s, want %s", got, want[3])
		}
	})
	for name, token := range map[string]string{"a word": "invalid-token", "not ours": "aGFsbG8", "too clever": "YWZ0ZXI6YSBi", "binary": "\x01\x02"} {
		t.Run("token: "+name, func(t *testing.T) {
			_, err := e.ListVolumes(t.Context(), &spec.ListVolumesRequest{StartingToken: token})
			wantCode(t, err, codes.Aborted)
		})
	}
	t.Run("negative number", func(t *testing.T) {
		_, err := e.ListVolumes(t.Context(), &spec.ListVolumesRequest{MaxEntries: -1})
		wantCode(t, err, codes.InvalidArgument)
	})
}

// csi-attacher takes a volume that is not listed for detached, so half a listing
// is worse than none.
func TestListVolumesNeedsEveryArray(t *testing.T) {
	west := newMemory()
	west.before = func(context.Context, string, string) error { return &rds.Error{Kind: rds.ErrUnreachable} }
	e := serve(t, map[string]rds.Array{"main": newMemory(), "west": west}, []string{"main", "west"}, nil)
	_, err := e.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
	wantCode(t, err, codes.Unavailable)
}

func TestGetVolume(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, _ fixture) {
		v := e.create(t, pvName, rwxBlock)
		e.mustPublish(t, v, "node-a", rwxBlock)
		r, err := e.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})
		if err != nil {
			t.Fatal(err)
		}
		if r.GetVolume().GetVolumeId() != v.GetVolumeId() || r.GetVolume().GetCapacityBytes() != gib || !slices.Equal(r.GetStatus().GetPublishedNodeIds(), []string{"node-a"}) {
			t.Errorf("answer %v", r)
		}
		_, err = e.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: "pvc-absent"})
		wantCode(t, err, codes.NotFound)
		_, err = e.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{})
		wantCode(t, err, codes.InvalidArgument)
	})
}

func TestGetCapacity(t *testing.T) {
	rwxMount := capability(spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, true)
	for name, test := range map[string]struct {
		pool    rds.Pool
		reserve int64
		request *spec.GetCapacityRequest
		want    int64
		code    codes.Code
	}{
		"free space bounds":      {pool: rds.Pool{Size: 100 * gib, Free: 30 * gib}, want: 30 * gib},
		"promises bound":         {pool: rds.Pool{Size: 100 * gib, Free: 90 * gib, Allocated: 80 * gib}, want: 20 * gib},
		"the reserve is kept":    {pool: rds.Pool{Size: 100 * gib, Free: 30 * gib}, reserve: 10 * gib, want: 20 * gib},
		"never negative":         {pool: rds.Pool{Size: 100 * gib, Free: gib}, reserve: 10 * gib, want: 0},
		"none of what cannot be": {pool: rds.Pool{Size: 100 * gib, Free: 30 * gib}, request: &spec.GetCapacityRequest{VolumeCapabilities: []*spec.VolumeCapability{rwxMount}}, want: 0},
		"of a class":             {pool: rds.Pool{Size: 100 * gib, Free: 30 * gib}, request: &spec.GetCapacityRequest{Parameters: map[string]string{"array": "main"}}, want: 30 * gib},
		"unknown array":          {request: &spec.GetCapacityRequest{Parameters: map[string]string{"array": "x"}}, code: codes.InvalidArgument},
		"unknown parameter":      {request: &spec.GetCapacityRequest{Parameters: map[string]string{"x": "x"}}, code: codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			m.pool = test.pool
			e := serve(t, map[string]rds.Array{"main": m}, []string{"main"}, func(c *csi.Config) { c.Backends[0].Reserve = test.reserve })
			if test.request == nil {
				test.request = &spec.GetCapacityRequest{}
			}
			r, err := e.GetCapacity(t.Context(), test.request)
			wantCode(t, err, test.code)
			if got := r.GetAvailableCapacity(); got != test.want {
				t.Errorf("capacity %d, want %d", got, test.want)
			}
		})
	}
}

func TestValidateVolumeCapabilities(t *testing.T) {
	rwxMount := capability(spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, true)
	for name, test := range map[string]struct {
		handle     string
		caps       []*spec.VolumeCapability
		parameters map[string]string
		want       codes.Code
		confirmed  bool
	}{
		"fine":              {"", []*spec.VolumeCapability{rwxBlock, rwoMount}, nil, codes.OK, true},
		"one is not":        {"", []*spec.VolumeCapability{rwxBlock, rwxMount}, nil, codes.OK, false},
		"unknown parameter": {"", []*spec.VolumeCapability{rwxBlock}, map[string]string{"x": "y"}, codes.OK, false},
		"absent":            {"pvc-absent", []*spec.VolumeCapability{rwxBlock}, nil, codes.NotFound, false},
		"no capabilities":   {"", nil, nil, codes.InvalidArgument, false},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, _ fixture) {
				handle := e.create(t, pvName, rwxBlock).GetVolumeId()
				if test.handle != "" {
					handle = test.handle
				}
				r, err := e.ValidateVolumeCapabilities(t.Context(), &spec.ValidateVolumeCapabilitiesRequest{VolumeId: handle, VolumeCapabilities: test.caps, Parameters: test.parameters})
				wantCode(t, err, test.want)
				if got := r.GetConfirmed() != nil; got != test.confirmed {
					t.Errorf("confirmed %t (%s)", got, r.GetMessage())
				}
			})
		})
	}
}
