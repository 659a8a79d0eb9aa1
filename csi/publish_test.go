package csi_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

func TestPublishTellsNodesHowToConnect(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, f fixture) {
		v := e.create(t, pvName, rwxBlock)
		got := e.mustPublish(t, v, "node-a", rwxBlock)
		onArray := f.volume(t, v.GetVolumeId())
		generation, ours := rds.GenerationOf(onArray.NQN, onArray.Slot)
		if !ours {
			t.Errorf("NQN %s", onArray.NQN)
		}
		want := map[string]string{
			"nqn": onArray.NQN, "nvmeAddresses": "10.0.0.1,10.0.1.1", "nvmePort": "4420", "generation": strconv.FormatUint(generation, 10),
			"sizeBytes": strconv.FormatInt(onArray.Size, 10),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error("publish context (-want +got):\n" + diff)
		}
		if n := e.cluster.reads(); n != 0 {
			t.Errorf("a healthy first publication asked the API %d times", n)
		}
		if again := e.mustPublish(t, v, "node-a", rwxBlock); !cmp.Equal(want, again) {
			t.Errorf("the same request again: %v", again)
		}
		second := e.mustPublish(t, v, "node-b", rwxBlock)
		if second["nqn"] != want["nqn"] {
			t.Errorf("the second node got NQN %s, the first has %s", second["nqn"], want["nqn"])
		}
		if diff := cmp.Diff([]string{"node-a", "node-b"}, e.holders(t, v.GetVolumeId())); diff != "" {
			t.Error("holders (-want +got):\n" + diff)
		}
		if !f.volume(t, v.GetVolumeId()).Exported {
			t.Error("not exported")
		}
	})
}

func TestPublishTakesANewNQNFromNobodyToSomebody(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, f fixture) {
		v := e.create(t, pvName, rwoMount)
		first := e.mustPublish(t, v, "node-a", rwoMount)
		if err := e.unpublish(t, v.GetVolumeId(), "node-a"); err != nil {
			t.Fatal(err)
		}
		if f.volume(t, v.GetVolumeId()).Exported {
			t.Error("exported to nobody")
		}
		second := e.mustPublish(t, v, "node-b", rwoMount)
		if first["nqn"] == second["nqn"] {
			t.Errorf("a host that was cut off could come back with %s", first["nqn"])
		}
	})
}

// Who may hold a volume that others hold already.
func TestPublishToASecondNode(t *testing.T) {
	withContext := func(v *spec.Volume, key, value string) *spec.Volume {
		v.VolumeContext[key] = value
		return v
	}
	for name, test := range map[string]struct {
		created  *spec.VolumeCapability
		holders  []string
		asked    *spec.VolumeCapability
		change   func(*env, *spec.Volume) *spec.Volume
		want     codes.Code
		mentions string
	}{
		"RWO":            {created: rwoBlock, holders: []string{"node-a"}, asked: rwoBlock, want: codes.FailedPrecondition, mentions: "node-a"},
		"RWO filesystem": {created: rwoMount, holders: []string{"node-a"}, asked: rwoMount, want: codes.FailedPrecondition, mentions: "node-a"},
		"RWX":            {created: rwxBlock, holders: []string{"node-a"}, asked: rwxBlock, want: codes.OK},
		"RWX, any": {created: rwxBlock, holders: []string{"node-a"}, asked: rwxBlock, want: codes.OK,
			change: func(_ *env, v *spec.Volume) *spec.Volume { return withContext(v, "dualAttach", "Any") }},
		"RWX of another plugin's volume": {created: rwxBlock, holders: []string{"node-a"}, asked: rwxBlock, want: codes.OK,
			change: func(_ *env, v *spec.Volume) *spec.Volume { v.VolumeContext = nil; return v }},
		"RWX request for a volume made RWO": {created: rwoBlock, holders: []string{"node-a"}, asked: rwxBlock, want: codes.FailedPrecondition, mentions: "ReadWriteOnce"},
		"RWX request, PV says RWO": {created: rwxBlock, holders: []string{"node-a"}, asked: rwxBlock, want: codes.FailedPrecondition, mentions: "old-pv",
			change: func(e *env, v *spec.Volume) *spec.Volume { e.cluster.singlePV[v.GetVolumeId()] = "old-pv"; return v }},
		"RWX request, PV says RWO by the long handle": {created: rwxBlock, holders: []string{"node-a"}, asked: rwxBlock, want: codes.FailedPrecondition, mentions: "old-pv",
			change: func(e *env, v *spec.Volume) *spec.Volume {
				e.cluster.singlePV[v.GetVolumeId()+".main"] = "old-pv"
				return v
			}},
		"RWO request for an RWX volume in use": {created: rwxBlock, holders: []string{"node-a"}, asked: rwoBlock, want: codes.FailedPrecondition, mentions: "node-a"},
		"a third":                              {created: rwxBlock, holders: []string{"node-a", "node-b"}, asked: rwxBlock, want: codes.FailedPrecondition, mentions: "third"},
		"a third, any": {created: rwxBlock, holders: []string{"node-a", "node-b"}, asked: rwxBlock, want: codes.FailedPrecondition, mentions: "third",
			change: func(_ *env, v *spec.Volume) *spec.Volume { return withContext(v, "dualAttach", "Any") }},
		"a policy nobody knows": {created: rwxBlock, holders: []string{"node-a"}, asked: rwxBlock, want: codes.InvalidArgument, mentions: "dualAttach",
			change: func(_ *env, v *spec.Volume) *spec.Volume { return withContext(v, "dualAttach", "Yes") }},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, _ fixture) {
				v := e.create(t, pvName, test.created)
				for _, node := range test.holders {
					e.mustPublish(t, v, node, test.created)
				}
				if test.change != nil {
					v = test.change(e, v)
				}
				_, err := e.publish(t, v, "node-c", test.asked)
				wantCode(t, err, test.want)
				if message := status.Convert(err).Message(); !strings.Contains(message, test.mentions) {
					t.Errorf("%q does not mention %q", message, test.mentions)
				}
				want := len(test.holders)
				if test.want == codes.OK {
					want++
				}
				if got := e.holders(t, v.GetVolumeId()); len(got) != want {
					t.Errorf("holders %v", got)
				}
			})
		})
	}
}

// guard records what it is asked.
type guard struct {
	asked  []string
	answer error
}

func (g *guard) MayShare(_ context.Context, node, holder string, handles ...string) error {
	g.asked = append(g.asked, fmt.Sprintf("%s: %s joins %s", strings.Join(handles, " or "), node, holder))
	return g.answer
}

func TestPublishAsksTheGuard(t *testing.T) {
	long := "node-" + strings.Repeat("x", 80)
	for name, test := range map[string]struct {
		answer     error
		dualAttach string
		attached   bool // node-b's own attachment says so
		want       codes.Code
		asked      int
	}{
		"granted":                    {nil, "LiveMigration", false, codes.OK, 1},
		"refused":                    {fmt.Errorf("%w by pod p", rds.ErrInUse), "LiveMigration", false, codes.FailedPrecondition, 1},
		"refused, but a repair":      {fmt.Errorf("%w by pod p", rds.ErrInUse), "LiveMigration", true, codes.OK, 1},
		"any node may":               {fmt.Errorf("%w by pod p", rds.ErrInUse), "Any", false, codes.OK, 0},
		"nobody can tell":            {errors.New("no idea"), "LiveMigration", false, codes.Unavailable, 1},
		"nobody can tell, no repair": {errors.New("no idea"), "LiveMigration", true, codes.Unavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := &guard{answer: test.answer}
			e := serve(t, map[string]rds.Array{"main": newMemory()}, []string{"main"}, func(c *csi.Config) { c.Guard = g })
			e.cluster.nodes = append(e.cluster.nodes, long)
			v := e.create(t, pvName, rwxBlock)
			v.VolumeContext["dualAttach"] = test.dualAttach
			e.mustPublish(t, v, long, rwxBlock)
			if test.attached {
				e.cluster.attach(v.GetVolumeId(), "node-b", long)
			}
			_, err := e.publish(t, v, "node-b", rwxBlock)
			wantCode(t, err, test.want)
			var want []string
			if test.asked > 0 {
				want = []string{v.GetVolumeId() + " or " + v.GetVolumeId() + ".main: node-b joins " + long}
			}
			if diff := cmp.Diff(want, g.asked); diff != "" {
				t.Error("asked (-want +got):\n" + diff)
			}
		})
	}
}

// Of a node without a VolumeAttachment nobody will ever take the volume: who is refused
// because of it is told so, and what to do. One that is attached, or about to be, is left
// to Kubernetes.
func TestRefusalNamesTheWayOut(t *testing.T) {
	const entry = "take node-a=1760000000 out of the comment of disk "
	type given struct {
		*env
		handle string
		guard  *guard
	}
	for name, test := range map[string]struct {
		holders []string
		asked   *spec.VolumeCapability
		change  func(given)
		told    []string // nil: nothing beyond the refusal
	}{
		"one node only": {asked: rwoBlock, told: []string{"access mode", entry}},
		"no migration": {asked: rwxBlock, told: []string{"by pod p", entry},
			change: func(g given) { g.guard.answer = fmt.Errorf("%w by pod p", rds.ErrInUse) }},
		"a third": {holders: []string{"node-b"}, asked: rwxBlock, told: []string{"third", entry},
			change: func(g given) { g.cluster.attach(g.handle, "node-b") }},
		"attached": {asked: rwoBlock,
			change: func(g given) { g.cluster.attach(g.handle, "node-a") }},
		"not attached yet": {asked: rwoBlock,
			change: func(g given) { g.cluster.mention(g.handle, "node-a") }},
		"not attached yet, no migration": {asked: rwxBlock,
			change: func(g given) {
				g.guard.answer = fmt.Errorf("%w by pod p", rds.ErrInUse)
				g.cluster.mention(g.handle, "node-a")
			}},
		"attached by the handle's other form": {asked: rwoBlock,
			change: func(g given) { g.cluster.attach(g.handle+".main", "node-a") }},
		"nobody can tell": {asked: rwoBlock,
			change: func(g given) { g.cluster.down = errors.New("connection refused") }},
	} {
		t.Run(name, func(t *testing.T) {
			g := &guard{}
			e := serve(t, map[string]rds.Array{"main": newMemory()}, []string{"main"}, func(c *csi.Config) { c.Guard = g })
			v := e.create(t, pvName, rwxBlock)
			for _, node := range append([]string{"node-a"}, test.holders...) {
				e.mustPublish(t, v, node, rwxBlock)
			}
			if test.change != nil {
				test.change(given{e, v.GetVolumeId(), g})
			}
			_, err := e.publish(t, v, "node-c", test.asked)
			wantCode(t, err, codes.FailedPrecondition)
			message := status.Convert(err).Message()
			for _, part := range test.told {
				if !strings.Contains(message, part) {
					t.Errorf("%q does not mention %q", message, part)
				}
			}
			if strings.Contains(message, "VolumeAttachment") != (test.told != nil) || strings.Contains(message, "node-b=") {
				t.Errorf("%q says too much or too little", message)
			}
		})
	}
}

// What a refusal tells to do helps, and whoever did hold the volume does not come back.
func TestTheWayOut(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, f fixture) {
		v := e.create(t, pvName, rwoBlock)
		first := e.mustPublish(t, v, "node-a", rwoBlock)
		_, err := e.publish(t, v, "node-c", rwoBlock)
		wantCode(t, err, codes.FailedPrecondition)
		onArray := f.volume(t, v.GetVolumeId())
		f.setComment(t, onArray.Slot, strings.Replace(onArray.Comment, " node-a=1760000000", "", 1))
		second := e.mustPublish(t, v, "node-c", rwoBlock)
		if second["nqn"] == first["nqn"] {
			t.Errorf("node-a could come back with %s", first["nqn"])
		}
		if diff := cmp.Diff([]string{"node-c"}, e.holders(t, v.GetVolumeId())); diff != "" {
			t.Error("holders (-want +got):\n" + diff)
		}
	})
}

func TestPublishRefusesBadInput(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*spec.ControllerPublishVolumeRequest)
		want   codes.Code
	}{
		"no volume":          {func(r *spec.ControllerPublishVolumeRequest) { r.VolumeId = "" }, codes.InvalidArgument},
		"malformed volume":   {func(r *spec.ControllerPublishVolumeRequest) { r.VolumeId = `a" or slot!="` }, codes.InvalidArgument},
		"two dots":           {func(r *spec.ControllerPublishVolumeRequest) { r.VolumeId = "a.b.c" }, codes.InvalidArgument},
		"unknown volume":     {func(r *spec.ControllerPublishVolumeRequest) { r.VolumeId = "pvc-unknown" }, codes.NotFound},
		"unconfigured array": {func(r *spec.ControllerPublishVolumeRequest) { r.VolumeId = "pvc-unknown.elsewhere" }, codes.FailedPrecondition},
		"no node":            {func(r *spec.ControllerPublishVolumeRequest) { r.NodeId = "" }, codes.InvalidArgument},
		"malformed node":     {func(r *spec.ControllerPublishVolumeRequest) { r.NodeId = "a b=1" }, codes.InvalidArgument},
		"unknown node":       {func(r *spec.ControllerPublishVolumeRequest) { r.NodeId = "node-z" }, codes.NotFound},
		"no capability":      {func(r *spec.ControllerPublishVolumeRequest) { r.VolumeCapability = nil }, codes.InvalidArgument},
		"RWX filesystem": {func(r *spec.ControllerPublishVolumeRequest) {
			r.VolumeCapability = capability(spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, true)
		}, codes.InvalidArgument},
		"read-only": {func(r *spec.ControllerPublishVolumeRequest) { r.Readonly = true }, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, f fixture) {
				v := e.create(t, pvName, rwoMount)
				r := &spec.ControllerPublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: "node-a", VolumeCapability: rwoMount, VolumeContext: v.GetVolumeContext()}
				test.change(r)
				_, err := e.ControllerPublishVolume(t.Context(), r)
				wantCode(t, err, test.want)
				if f.volume(t, v.GetVolumeId()).Exported {
					t.Error("the volume was exported")
				}
			})
		})
	}
}

func TestUnpublish(t *testing.T) {
	for name, test := range map[string]struct {
		published []string
		node      string
		attached  []string // what the cluster says
		holders   []string
		exported  bool
	}{
		"the only one":                 {[]string{"node-a"}, "node-a", []string{"node-a"}, nil, false},
		"the source":                   {[]string{"node-a", "node-b"}, "node-a", []string{"node-a", "node-b"}, []string{"node-b"}, true},
		"the target":                   {[]string{"node-a", "node-b"}, "node-b", []string{"node-a", "node-b"}, []string{"node-a"}, true},
		"a node that does not hold it": {[]string{"node-a"}, "node-c", []string{"node-a"}, []string{"node-a"}, true},
		"an empty node means all":      {[]string{"node-a", "node-b"}, "", []string{"node-a", "node-b"}, nil, false},
		"nobody holds it":              {nil, "node-a", nil, nil, false},
		"the ledger lacks one that the cluster knows": {[]string{"node-a"}, "node-a", []string{"node-a", "node-b"}, []string{"node-b"}, true},
		"all, but the cluster knows another":          {[]string{"node-a"}, "", []string{"node-a", "node-b"}, []string{"node-b"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, f fixture) {
				v := e.create(t, pvName, rwxBlock)
				for _, node := range test.published {
					e.mustPublish(t, v, node, rwxBlock)
				}
				e.cluster.attach(v.GetVolumeId(), test.attached...)
				for range 2 { // the second time nothing is left to do
					if err := e.unpublish(t, v.GetVolumeId(), test.node); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(test.holders, e.holders(t, v.GetVolumeId())); diff != "" {
						t.Error("holders (-want +got):\n" + diff)
					}
					if got := f.volume(t, v.GetVolumeId()).Exported; got != test.exported {
						t.Errorf("exported %t", got)
					}
					if test.node == "" && len(test.holders) > 0 {
						break // again would take it from that one, too
					}
				}
			})
		})
	}
}

func TestUnpublishEdges(t *testing.T) {
	for name, test := range map[string]struct {
		handle string
		want   codes.Code
	}{
		"absent":             {"pvc-absent", codes.OK},
		"no volume":          {"", codes.InvalidArgument},
		"malformed":          {"a b", codes.InvalidArgument},
		"unconfigured array": {"pvc-absent.elsewhere", codes.FailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, _ fixture) {
				wantCode(t, e.unpublish(t, test.handle, "node-a"), test.want)
			})
		})
	}
}

// An array that is down proves nothing: neither that a volume is gone nor that it
// was never there.
func TestOutageIsNotNotFound(t *testing.T) {
	e, m := serveMemory(t)
	v := e.create(t, pvName, rwoMount)
	m.before = func(context.Context, string, string) error {
		return &rds.Error{Kind: rds.ErrUnreachable, Op: "read the array", Array: "main"}
	}
	_, err := e.publish(t, v, "node-a", rwoMount)
	wantCode(t, err, codes.Unavailable)
	wantCode(t, e.unpublish(t, v.GetVolumeId(), "node-a"), codes.Unavailable)
	_, err = e.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
	wantCode(t, err, codes.Unavailable)
	_, err = e.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
	wantCode(t, err, codes.Unavailable)
	_, err = e.GetCapacity(t.Context(), &spec.GetCapacityRequest{})
	wantCode(t, err, codes.Unavailable)
}

// Where the cluster must be asked and cannot be, nothing changes.
func TestClusterOutageChangesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		act func(t *testing.T, e *env, v *spec.Volume) error
	}{
		"unpublish of the last": {func(t *testing.T, e *env, v *spec.Volume) error { return e.unpublish(t, v.GetVolumeId(), "node-a") }},
		"unpublish of all":      {func(t *testing.T, e *env, v *spec.Volume) error { return e.unpublish(t, v.GetVolumeId(), "") }},
		"unknown node": {func(t *testing.T, e *env, v *spec.Volume) error {
			_, err := e.publish(t, v, "node-new", rwxBlock)
			return err
		}},
		"delete": {func(t *testing.T, e *env, v *spec.Volume) error {
			_, err := e.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, f fixture) {
				v := e.create(t, pvName, rwxBlock)
				e.mustPublish(t, v, "node-a", rwxBlock)
				before := f.volume(t, v.GetVolumeId())
				e.cluster.down = errors.New("connection refused")
				wantCode(t, test.act(t, e, v), codes.Unavailable)
				if diff := cmp.Diff(before, f.volume(t, v.GetVolumeId())); diff != "" {
					t.Error("the volume changed (-before +after):\n" + diff)
				}
			})
		})
	}
}
