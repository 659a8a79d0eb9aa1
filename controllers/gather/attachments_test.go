package gather

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
)

// plain is a pod of nobody in particular.
func plain(name, node string, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := launcher(name, node, 0, "disk")
	pod.OwnerReferences = nil
	for _, f := range change {
		f(pod)
	}
	return pod
}

// TestVolumePods: who counts as a user of a volume, and for whom.
func TestVolumePods(t *testing.T) {
	phase := func(p corev1.PodPhase) func(*corev1.Pod) { return func(pod *corev1.Pod) { pod.Status.Phase = p } }
	going := func(pod *corev1.Pod) { now := at(5); pod.DeletionTimestamp = &now }
	leaving := launcher("y", b, 0, "disk")
	going(leaving)
	owner := launcher("run", a, 0)
	ephemeral := plain("own", a)
	ephemeral.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}}
	scratch := func(pvc *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) {
		pv.Spec.ClaimRef.Name = "own-scratch"
	}
	cases := map[string]struct {
		reason  string
		objects []client.Object
		want    []unexplained.Pod
		vms     int
	}{
		"running":       {"", []client.Object{plain("x", a, phase(corev1.PodRunning))}, []unexplained.Pod{{Name: "x", UID: "uid-x", Node: a}}, 0},
		"starting":      {"It may open the volume any moment.", []client.Object{plain("x", a, phase(corev1.PodPending))}, []unexplained.Pod{{Name: "x", UID: "uid-x", Node: a}}, 0},
		"not scheduled": {"", []client.Object{plain("x", "")}, nil, 0},
		"succeeded":     {"A finished clone or importer pod.", []client.Object{plain("x", a, phase(corev1.PodSucceeded))}, nil, 0},
		"failed":        {"", []client.Object{plain("x", a, phase(corev1.PodFailed))}, nil, 0},
		"terminating": {"The old launcher of a VM that restarts.", []client.Object{plain("x", a), leaving},
			[]unexplained.Pod{{Name: "x", UID: "uid-x", Node: a}, {Name: "y", UID: "uid-y", Node: b, VM: "web", Leaving: at(5).Time}}, 0},
		"terminated":    {"Its containers have ended; only the unmount is left.", []client.Object{plain("x", a, going, phase(corev1.PodSucceeded))}, nil, 0},
		"another claim": {"", []client.Object{launcher("x", a, 0, "data")}, nil, 0},
		"VM": {"Its launcher and its hotplug pod are one owner.", []client.Object{owner, launcher("x", a, 0, "disk"), hotplug(owner, "disk")},
			[]unexplained.Pod{{Name: "x", UID: "uid-x", Node: a, VM: "web"}, {Name: "hp-volume-run", Node: a, VM: "web"}}, 1},
		"orphan":    {"A hotplug pod whose launcher is gone is next to go.", []client.Object{hotplug(owner, "disk")}, nil, 0},
		"ephemeral": {"A claim made for one pod is named after it.", append(storage("scratch", scratch), ephemeral), []unexplained.Pod{{Name: "own", UID: "uid-own", Node: a}}, 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cl, pv := newCluster(t, append(storage("disk"), tc.objects...)...), "pv-disk"
			if name == "ephemeral" {
				pv = "pv-scratch"
			}
			got, err := cl.gatherer().Volume(t.Context(), pv, noon)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got.Snapshot.Pods); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if len(got.Instances) != tc.vms || (tc.vms > 0 && got.Instances[0] != web) {
				t.Errorf("VMIs: %v", got.Instances)
			}
		})
	}
}

// TestVolumeAttachments: each with its node's state and the id that the ledger knows.
func TestVolumeAttachments(t *testing.T) {
	deleting := attachment("disk", b, true, 0)
	now := at(9)
	deleting.DeletionTimestamp, deleting.UID = &now, "uid-b"
	deleting.Annotations = map[string]string{nodeIDAnnotation: "id-b"}
	deleting.Status.DetachError = &storagev1.VolumeError{Message: "no"}
	cl := newCluster(t, append(storage("disk"), node(a, corev1.ConditionTrue), node(b, corev1.ConditionUnknown),
		attachment("disk", a, true, 0), deleting, attachment("disk", c, false, 0), attachment("data", a, true, 0))...)
	got, err := cl.gatherer().Volume(t.Context(), "pv-disk", noon)
	if err != nil {
		t.Fatal(err)
	}
	want := []unexplained.Attachment{
		{Name: "csi-disk-" + a, Node: a, NodeID: a, Created: at(0).Time, Attached: true, Ready: true},
		{Name: "csi-disk-" + b, UID: "uid-b", Node: b, NodeID: "id-b", Created: at(0).Time, Attached: true, Deleting: now.Time, Error: "no"},
		{Name: "csi-disk-" + c, Node: c, NodeID: c, Created: at(0).Time, NodeGone: true},
	}
	if diff := cmp.Diff(want, got.Snapshot.Attachments); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s := got.Snapshot
	s.Attachments, s.Told = nil, unexplained.Told{}
	if diff := cmp.Diff(unexplained.Snapshot{Now: noon, Claim: "disk", Slot: "slot-disk", Sharing: unexplained.LiveMigration}, s,
		cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the rest (-want +got):\n%s", diff)
	}
	names, err := cl.gatherer().VolumesOnNode(t.Context(), a)
	slices.Sort(names)
	if !slices.Equal(names, []string{"pv-data", "pv-disk"}) || err != nil {
		t.Errorf("on %s: %v, %v", a, names, err)
	}
}

// TestOurs: volumes of our driver that belong to a claim, and how many may share them.
func TestOurs(t *testing.T) {
	type change = func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume)
	share := func(value string) change {
		return func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) {
			pv.Spec.CSI.VolumeAttributes[sharingAttribute] = value
		}
	}
	for name, tc := range map[string]struct {
		change change
		ours   bool
		want   unexplained.Sharing
	}{
		"another plugin's, as it is": {func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) {}, true, unexplained.LiveMigration},
		"live migration":             {share("LiveMigration"), true, unexplained.LiveMigration},
		"any":                        {share("Any"), true, unexplained.AnyTwo},
		"one node": {func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) {
			pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		}, true, unexplained.OneNode},
		"unclaimed":    {func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) { pv.Spec.ClaimRef = nil }, false, 0},
		"not CSI":      {func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) { pv.Spec.CSI = nil }, false, 0},
		"other driver": {func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) { pv.Spec.CSI.Driver = "x" }, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := newCluster(t, storage("disk", tc.change)...).gatherer().Volume(t.Context(), "pv-disk", noon)
			if err != nil || (got != nil) != tc.ours || (tc.ours && got.Snapshot.Sharing != tc.want) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	if got, err := newCluster(t).gatherer().Volume(t.Context(), "pv-disk", noon); got != nil || err != nil {
		t.Errorf("a volume that is gone: %+v, %v", got, err)
	}
}

// TestVolumesOfPod: by its claims, as far as they are bound.
func TestVolumesOfPod(t *testing.T) {
	free := func(pvc *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) { pvc.Spec.VolumeName = "" }
	cl := newCluster(t, append(storage("disk"), storage("free", free)...)...)
	got, err := cl.gatherer().VolumesOfPod(t.Context(), launcher("x", a, 0, "disk", "free", "gone"))
	if !slices.Equal(got, []string{"pv-disk"}) || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

// TestVolumesOfInstance: what its launcher and hotplug pods use now, of ours.
func TestVolumesOfInstance(t *testing.T) {
	other := func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) { pv.Spec.CSI.Driver = "other" }
	over := launcher("old", b, 0, "gone")
	over.Status.Phase = corev1.PodSucceeded
	run := launcher("run", a, 0, "disk", "foreign")
	cl := newCluster(t, slices.Concat(storage("disk"), storage("plugged"), storage("gone"), storage("foreign", other), storage("apart"),
		[]client.Object{over, run, hotplug(run, "plugged", "disk"), plain("x", a)})...)
	got, err := cl.gatherer().VolumesOfInstance(t.Context(), web)
	if !slices.Equal(got, []string{"pv-disk", "pv-plugged"}) || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	for _, fails := range []any{&corev1.PodList{}, &corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}} {
		cl.fails = map[reflect.Type]error{reflect.TypeOf(fails): errDown}
		if _, err := cl.gatherer().VolumesOfInstance(t.Context(), web); !errors.Is(err, errDown) {
			t.Errorf("%T: err = %v", fails, err)
		}
	}
}

// TestVolumeFails: what cannot be read is not taken for absent.
func TestVolumeFails(t *testing.T) {
	owner := launcher("run", a, 0)
	for name, fails := range map[string]any{
		"volume": &corev1.PersistentVolume{}, "attachments": &storagev1.VolumeAttachmentList{}, "node": &corev1.Node{},
		"pods": &corev1.PodList{}, "launcher": &corev1.Pod{},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newCluster(t, append(storage("disk"), attachment("disk", a, true, 0), owner, hotplug(owner, "disk"))...)
			cl.fails[reflect.TypeOf(fails)] = errDown
			if got, err := cl.gatherer().Volume(t.Context(), "pv-disk", noon); !errors.Is(err, errDown) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestSlimPod: the cache keeps of a pod what is read, and nothing is decided otherwise.
func TestSlimPod(t *testing.T) {
	fat := launcher("x", a, 3, "disk")
	fat.Labels["kubevirt.io/migrationJobUID"] = "uid-m"
	now := at(9)
	fat.DeletionTimestamp, fat.ResourceVersion, fat.Status.Phase = &now, "7", corev1.PodRunning
	want := fat.DeepCopy()
	fat.Annotations, fat.ManagedFields, fat.Spec.Containers = map[string]string{"long": "text"}, nil, []corev1.Container{{Name: "compute"}}
	fat.Spec.Volumes = append(fat.Spec.Volumes, corev1.Volume{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	got, err := Slim(fat)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	other := plain("y", a)
	other.Labels = map[string]string{"app": "shop"}
	if got, _ := Slim(other); got.(*corev1.Pod).Labels != nil {
		t.Error("the labels of others are not read")
	}
}
