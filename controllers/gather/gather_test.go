package gather

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// scene is a migration with both nodes attached, and things that are not part of it.
func scene() []client.Object {
	other := launcher("other", c, -60, "disk")
	other.OwnerReferences = controlledBy("VirtualMachineInstance", "mail", "uid-mail")
	elsewhere := vmim("far-1", 0)
	elsewhere.Namespace = "office"
	mail := vmim("mail-1", 0)
	mail.Spec.VMIName = "mail"
	return append(storage("disk"),
		instance(a, nil), vmim("web-1", 0), vmim("web-0", -600), mail, elsewhere, other,
		launcher("run", a, -86400, "disk"), target(launcher("new", b, 1, "disk"), "uid-web-1"),
		attachment("disk", a, true, -86400), attachment("disk", b, true, 3),
		node(a, corev1.ConditionTrue), node(b, corev1.ConditionUnknown),
	)
}

func TestInstance(t *testing.T) {
	in, err := newCluster(t, scene()...).gatherer().Instance(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	var migrations, pods []string
	for _, m := range in.Migrations {
		migrations = append(migrations, m.Name)
	}
	for _, pod := range in.pods {
		pods = append(pods, pod.Name)
	}
	if in.VMI == nil || in.VMI.Name != "web" || in.Key != web {
		t.Errorf("VMI: %+v", in.VMI)
	}
	if diff := cmp.Diff([]string{"web-0", "web-1"}, migrations); diff != "" {
		t.Errorf("its migrations, oldest first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"run", "new"}, pods); diff != "" {
		t.Errorf("its launcher pods (-want +got):\n%s", diff)
	}
	gone, err := newCluster(t).gatherer().Instance(t.Context(), web)
	if err != nil || gone.VMI != nil || gone.Migrations != nil {
		t.Errorf("nothing there: %+v, %v", gone, err)
	}
}

func TestSnapshot(t *testing.T) {
	g := newCluster(t, scene()...).gatherer()
	in, err := g.Instance(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	known := &Known{Migration: in.Migrations[1]}
	got, err := g.Snapshot(t.Context(), in, known, noon)
	if err != nil {
		t.Fatal(err)
	}
	want := dualattach.Snapshot{
		Now: noon, Migration: in.Migrations[1], Instance: in.VMI,
		Source: dualattach.Side{Node: a, Ready: true, Pod: "run", PodCreated: noon.Add(-24 * time.Hour)},
		Target: dualattach.Side{Node: b, Ready: false, Pod: "new", PodCreated: noon.Add(time.Second)},
		Volumes: []dualattach.Volume{{Claim: "disk", PV: "pv-disk", Ledger: rds.Ledger{Known: true, Foreign: "slot-disk"},
			Attachments: []dualattach.Attachment{
				{Node: a, Attached: true, Created: noon.Add(-24 * time.Hour)},
				{Node: b, Attached: true, Created: noon.Add(3 * time.Second)},
			}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
}

// TestSnapshotGoesOnWithoutPods: pods, claims, the volume, nodes and the VMIM may
// all go; the attachments that stay are followed all the same.
func TestSnapshotGoesOnWithoutPods(t *testing.T) {
	cl := newCluster(t, scene()...)
	g := cl.gatherer()
	in, err := g.Instance(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	known := &Known{Migration: in.Migrations[1]}
	if _, err := g.Snapshot(t.Context(), in, known, noon); err != nil {
		t.Fatal(err)
	}
	known.VanishedAt = noon
	cl.objects = []client.Object{attachment("disk", b, true, 3)}
	in, err = g.Instance(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	got, err := g.Snapshot(t.Context(), in, known, noon)
	if err != nil {
		t.Fatal(err)
	}
	if got.Instance != nil || got.Source.Node != a || got.Source.Ready || got.Target.Node != b || got.Target.Ready || !got.VanishedAt.Equal(noon) {
		t.Errorf("snapshot: %+v", got)
	}
	if len(got.Volumes) != 1 || got.Volumes[0].PV != "" || len(got.Volumes[0].Attachments) != 1 {
		t.Errorf("volumes: %+v", got.Volumes)
	}
}

// TestThereAndBack: two migrations of one VMI, A to B and at once B to A. The
// attachment of A is the old one; each migration has its own sides.
func TestThereAndBack(t *testing.T) {
	second := vmim("web-2", 60)
	done := vmim("web-1", 0, func(m *kubevirtv1.VirtualMachineInstanceMigration) {
		m.Status.Phase = kubevirtv1.MigrationSucceeded
		m.Status.MigrationState = state("web-1", a, b)
		m.Status.MigrationState.SourcePod = "run"
	})
	g := newCluster(t, append(storage("disk"), instance(b, state("web-1", a, b)), done, second,
		launcher("run", a, -86400, "disk"), target(launcher("new", b, 1, "disk"), "uid-web-1"), target(launcher("back", a, 61, "disk"), "uid-web-2"),
		attachment("disk", a, true, -86400), attachment("disk", b, true, 3))...).gatherer()
	in, err := g.Instance(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	type ends struct{ SourcePod, TargetPod, Source, Target, Successor string }
	var got []ends
	for _, m := range in.Migrations {
		s, err := g.Snapshot(t.Context(), in, &Known{Migration: m}, noon)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ends{s.Source.Pod, s.Target.Pod, s.Source.Node, s.Target.Node, s.SuccessorTarget})
	}
	want := []ends{{"run", "new", a, b, a}, {"new", "back", b, a, ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sides (-want +got):\n%s", diff)
	}
}

// TestStartedAnew: a VMI of the same name that was made later is not the migration's: it
// has its own limit and conditions, and on the node that the migration is releasing it
// supersedes it.
func TestStartedAnew(t *testing.T) {
	anew := func(node string) *kubevirtv1.VirtualMachineInstance {
		vmi := instance(node, nil)
		vmi.UID = "uid-anew"
		return vmi
	}
	made := target(launcher("new", b, 1, "disk"), "uid-web-1")
	cases := map[string]struct {
		reason string
		seen   bool // while its VMI was there
		then   []client.Object
		own    bool
		want   string
	}{
		"the same":       {"It was the migration's all along.", true, []client.Object{instance(b, nil)}, true, ""},
		"gone":           {"The old one may be gone for a while.", true, nil, false, ""},
		"not placed yet": {"Nobody knows yet.", true, []client.Object{anew("")}, false, ""},
		"on the target":  {"There it uses what the migration was releasing.", true, []client.Object{anew(b)}, false, b},
		"migrating": {"A migration of the new one tells more.", true,
			[]client.Object{anew(a), vmim("web-2", 600), target(launcher("back", b, 601, "disk"), "uid-web-2")}, false, b},
		"made for the new one": {"The migration was waiting while the VMI was made anew.", true,
			[]client.Object{anew(a), ownedBy(made, "uid-anew")}, true, ""},
		"at first sight":            {"The target's pod tells whose the migration is.", false, []client.Object{anew(b), made}, false, b},
		"at first sight, pods gone": {"Nothing tells.", false, []client.Object{anew(b)}, true, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			known := &Known{Migration: vmim("web-1", 0)}
			look := func(objects []client.Object) dualattach.Snapshot {
				g := newCluster(t, objects...).gatherer()
				in, err := g.Instance(t.Context(), web)
				if err != nil {
					t.Fatal(err)
				}
				s, err := g.Snapshot(t.Context(), in, known, noon)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			if tc.seen {
				look([]client.Object{instance(a, nil)})
			}
			s := look(tc.then)
			if (s.Instance != nil) != tc.own || s.SuccessorTarget != tc.want {
				t.Errorf("%s: the VMI is its own: %t, superseded on %q, want %t, %q", tc.reason, s.Instance != nil, s.SuccessorTarget, tc.own, tc.want)
			}
		})
	}
}

// TestReadErrors: what cannot be read is an error, never an absence.
func TestReadErrors(t *testing.T) {
	for name, kind := range map[string]any{
		"VMI":         &kubevirtv1.VirtualMachineInstance{},
		"migrations":  &kubevirtv1.VirtualMachineInstanceMigrationList{},
		"pods":        &corev1.PodList{},
		"claim":       &corev1.PersistentVolumeClaim{},
		"volume":      &corev1.PersistentVolume{},
		"attachments": &storagev1.VolumeAttachmentList{},
		"node":        &corev1.Node{},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newCluster(t, scene()...)
			cl.fails[reflect.TypeOf(kind)] = errDown
			g := cl.gatherer()
			in, err := g.Instance(t.Context(), web)
			if err == nil {
				_, err = g.Snapshot(t.Context(), in, &Known{Migration: in.Migrations[1]}, noon)
			}
			if !errors.Is(err, errDown) {
				t.Errorf("err = %v", err)
			}
		})
	}
	t.Run("hotplug pods", func(t *testing.T) {
		cl := newCluster(t, scene()...)
		g := cl.gatherer()
		in, err := g.Instance(t.Context(), web)
		if err != nil {
			t.Fatal(err)
		}
		cl.fails[reflect.TypeOf(&corev1.PodList{})] = errDown
		if _, err := g.Snapshot(t.Context(), in, &Known{Migration: in.Migrations[1]}, noon); !errors.Is(err, errDown) {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("the target's node and a known volume", func(t *testing.T) {
		cl := newCluster(t, instance(a, nil))
		g := cl.gatherer()
		in, err := g.Instance(t.Context(), web)
		if err != nil {
			t.Fatal(err)
		}
		known := &Known{Migration: vmim("web-1", 0), Claims: []Claim{{Name: "disk", PV: "pv-disk"}}}
		cl.fails[reflect.TypeOf(&corev1.PersistentVolume{})] = errDown
		if _, err := g.Snapshot(t.Context(), in, known, noon); !errors.Is(err, errDown) {
			t.Errorf("err = %v", err)
		}
		in.VMI, known = nil, &Known{Migration: known.Migration, Target: dualattach.Side{Node: b}}
		cl.fails[reflect.TypeOf(&corev1.Node{})] = errDown
		if _, err := g.Snapshot(t.Context(), in, known, noon); !errors.Is(err, errDown) {
			t.Errorf("err = %v", err)
		}
	})
}

// TestNodeReady: a node is Ready when its condition says so, and in no other case.
func TestNodeReady(t *testing.T) {
	for status, want := range map[corev1.ConditionStatus]bool{corev1.ConditionTrue: true, corev1.ConditionFalse: false, corev1.ConditionUnknown: false} {
		if got := NodeReady(node(a, status)); got != want {
			t.Errorf("Ready %s: %t", status, got)
		}
	}
	if NodeReady(&corev1.Node{}) {
		t.Error("a node without conditions is Ready")
	}
}

// TestInstanceOfPod: launcher pods and the hotplug pods that they own.
func TestInstanceOfPod(t *testing.T) {
	running := launcher("run", a, -60)
	alone := &corev1.Pod{}
	ofJob := &corev1.Pod{}
	ofJob.OwnerReferences = controlledBy("Job", "import", "uid-job")
	orphan := hotplug(launcher("gone", a, -60))
	ofOther := launcher("builder", a, -60)
	ofOther.OwnerReferences = controlledBy("ReplicaSet", "builder", "uid-rs")
	g := newCluster(t, running, ofOther).gatherer()
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want types.NamespacedName
	}{
		"launcher":                       {running, web},
		"hotplug pod":                    {hotplug(running), web},
		"hotplug pod, launcher gone":     {orphan, types.NamespacedName{}},
		"owned by a pod of another sort": {hotplug(ofOther), types.NamespacedName{}},
		"of a Job":                       {ofJob, types.NamespacedName{}},
		"alone":                          {alone, types.NamespacedName{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := g.InstanceOfPod(t.Context(), tc.pod)
			if ok != (tc.want != types.NamespacedName{}) || (ok && got != tc.want) {
				t.Errorf("InstanceOfPod = %s, %t", got, ok)
			}
		})
	}
}

// TestInstancesOfVolume: from a volume to the VMIs that use its claim now.
func TestInstancesOfVolume(t *testing.T) {
	running := launcher("run", a, -60, "disk")
	cl := newCluster(t, append(append(append(storage("disk"), storage("foreign", func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) { pv.Spec.CSI.Driver = "other" })...),
		storage("free", func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) { pv.Spec.ClaimRef = nil })...),
		running, hotplug(running, "disk"), launcher("new", b, 1, "data"), &corev1.Pod{})...)
	g := cl.gatherer()
	for pv, want := range map[string]int{"pv-disk": 2, "pv-foreign": 0, "pv-free": 0, "pv-gone": 0} {
		got, err := g.InstancesOfVolume(t.Context(), pv)
		if err != nil || len(got) != want || (want > 0 && got[0] != web) {
			t.Errorf("%s: %v, %v; want %d", pv, got, err, want)
		}
	}
	cl.fails[reflect.TypeOf(&corev1.PodList{})] = errDown
	if _, err := g.InstancesOfVolume(t.Context(), "pv-disk"); !errors.Is(err, errDown) {
		t.Errorf("err = %v", err)
	}
}

// view is one array's last view.
type view struct {
	volumes map[string]rds.Volume
	stale   bool
}

func (v view) Last() rds.View       { return rds.View{ObservedAt: noon, Volumes: v.volumes} }
func (v view) Stale(time.Time) bool { return v.stale }

// TestArraysTold: stale, missing or foreign is unknown, and unknown says why; only a
// view that is fresh has a time.
func TestArraysTold(t *testing.T) {
	volumes := map[string]rds.Volume{"pvc-1": {Exported: true, Ledger: rds.Ledger{Known: true, Generation: 7}}}
	arrays := Arrays{"": view{volumes, false}, "old": view{volumes, true}}
	for handle, want := range map[string]struct{ known, fresh bool }{
		"pvc-1": {true, true}, "pvc-2": {false, true}, "pvc-1.old": {}, "pvc-1.nowhere": {}, "not a handle!": {},
	} {
		got := arrays.Told(handle, noon)
		if got.Ledger.Known != want.known || got.Fresh() != want.fresh || got.Exported != want.known || (!want.known && got.Ledger.Problem == "") {
			t.Errorf("%s: %+v", handle, got)
		}
	}
}

// TestIndexErrors: an index that cannot be made stops the start.
func TestIndexErrors(t *testing.T) {
	for _, add := range []func(context.Context, client.FieldIndexer) error{AddIndexes, AddMigrationIndexes} {
		if err := add(t.Context(), noIndexes{}); !errors.Is(err, errDown) {
			t.Errorf("err = %v", err)
		}
	}
}
