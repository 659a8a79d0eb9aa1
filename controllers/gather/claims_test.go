package gather

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// TestSharedClaim: ours is what is bound, of our driver, and may be on several nodes.
func TestSharedClaim(t *testing.T) {
	type change = func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume)
	attribute := func(value string) change {
		return func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) {
			pv.Spec.CSI.VolumeAttributes["migrationTimeoutSeconds"] = value
		}
	}
	ours := Claim{Name: "disk", UID: "uid-disk", PV: "pv-disk", Handle: "slot-disk"}
	limited := ours
	limited.Timeout = 10 * time.Minute
	cases := map[string]struct {
		reason  string
		objects []client.Object
		want    Claim
		ours    bool
	}{
		"ours":  {"Bound, our driver, ReadWriteMany.", storage("disk"), ours, true},
		"limit": {"The StorageClass's parameter arrives in the volume's attributes.", storage("disk", attribute("600")), limited, true},
		"not a number": {"What is no number of seconds is no limit.",
			storage("disk", attribute("10m")), ours, true},
		"negative": {"Nor is a negative one.",
			storage("disk", attribute("-5")), ours, true},
		"no claim":  {"It may be deleted already.", nil, Claim{}, false},
		"no volume": {"So may its volume.", storage("disk")[:1], Claim{}, false},
		"not bound": {"", storage("disk", func(pvc *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) { pvc.Spec.VolumeName = "" }), Claim{}, false},
		"another driver": {"", storage("disk", func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) { pv.Spec.CSI.Driver = "other" }),
			Claim{}, false},
		"no CSI volume": {"", storage("disk", func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) { pv.Spec.CSI = nil }),
			Claim{}, false},
		"one node only": {"A backend-storage claim (TPM, EFI) is copied, not shared, unless it is ReadWriteMany.",
			storage("disk", func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) {
				pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
			}), Claim{}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, ours, err := newCluster(t, tc.objects...).gatherer().sharedClaim(t.Context(), types.NamespacedName{Namespace: "shop", Name: "disk"})
			if err != nil || ours != tc.ours {
				t.Fatalf("%s: ours = %t, %v", tc.reason, ours, err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestClaims: whose pods name the shared claims, and until when.
func TestClaims(t *testing.T) {
	rwo := func(_ *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) {
		pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	}
	objects := append(append(append(storage("disk"), storage("data")...), storage("extra")...), storage("tpm", rwo)...)
	running := launcher("run", a, -60, "disk", "tpm", "data")
	bare := launcher("run", a, -60, "disk")
	made := launcher("new", b, 1, "disk", "extra")
	known := []Claim{{Name: "before"}}
	final := func(m *kubevirtv1.VirtualMachineInstanceMigration) { m.Status.Phase = kubevirtv1.MigrationSucceeded }
	failed := func(m *kubevirtv1.VirtualMachineInstanceMigration) {
		m.Status.Phase = kubevirtv1.MigrationFailed
		m.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{
			{Phase: kubevirtv1.MigrationFailed, PhaseTransitionTimestamp: at(60)}}
	}
	written := func(m *kubevirtv1.VirtualMachineInstanceMigration) {
		m.Status.Conditions = []kubevirtv1.VirtualMachineInstanceMigrationCondition{
			{Type: dualattach.ConditionMigrated, Status: corev1.ConditionUnknown, Reason: dualattach.ReleasingTarget.String()}}
	}
	none := launcher("run", a, -60, "tpm")
	plugged := func(owner *corev1.Pod, created int) []*corev1.Pod {
		pod := hotplug(owner, "extra")
		pod.CreationTimestamp = at(created)
		return []*corev1.Pod{pod}
	}
	cases := map[string]struct {
		reason         string
		source, target *corev1.Pod
		pods           []*corev1.Pod
		known          []Claim
		migration      *kubevirtv1.VirtualMachineInstanceMigration
		want           []string
	}{
		"the source's": {"Shared ones of ours, by name; not the TPM's.",
			running, made, nil, nil, vmim("web-1", 0), []string{"data", "disk"}},
		"the source's and its hotplug pods'": {"A hotplugged disk is a shared one.",
			bare, made, []*corev1.Pod{hotplug(bare, "extra", "disk"), hotplug(made, "data")}, nil, vmim("web-1", 0), []string{"disk", "extra"}},
		"the target's": {"The source's pod is gone and nothing is known: the target's tell.",
			nil, made, nil, nil, vmim("web-1", 0), []string{"disk", "extra"}},
		"known": {"The source's pod is gone: what it told before is better than the target's.",
			nil, made, nil, known, vmim("web-1", 0), []string{"before"}},
		"hotplugged meanwhile": {"While it is under way the claims are looked at again.",
			running, made, []*corev1.Pod{hotplug(running, "extra")}, known, vmim("web-1", 0), []string{"data", "disk", "extra"}},
		"final": {"After the end they stay what they were: the pods may use others by then.",
			running, made, nil, known, vmim("web-1", 0, final), []string{"before"}},
		"final at first sight": {"Then they are looked at once.",
			running, made, nil, nil, vmim("web-1", 0, final), []string{"data", "disk"}},
		"plugged in before the end": {"It took part.",
			none, nil, plugged(none, 30), nil, vmim("web-1", 0, failed), []string{"extra"}},
		"plugged in after the end": {"KubeVirt keeps final VMIMs for long: what is plugged in later took no part.",
			none, nil, plugged(none, 18000), nil, vmim("web-1", 0, failed), nil},
		"plugged in after the end, source gone": {"The same of the target's.",
			nil, none, plugged(none, 18000), nil, vmim("web-1", 0, failed), nil},
		"plugged in after the end of one of ours": {"KubeVirt makes the pod anew for each disk: it may hold one that took part.",
			none, nil, plugged(none, 18000), nil, vmim("web-1", 0, failed, written), []string{"extra"}},
		"a pod of nobody's": {"It has no part in this.",
			bare, made, []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: web.Namespace, Name: "alone"}}}, nil, vmim("web-1", 0), []string{"disk"}},
		"no pod at all": {"", nil, nil, nil, nil, vmim("web-1", 0), nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			all := objects
			for _, pod := range tc.pods {
				all = append(all[:len(all):len(all)], pod)
			}
			k := &Known{Migration: tc.migration, Claims: tc.known}
			s := &dualattach.Snapshot{Migration: tc.migration}
			if err := newCluster(t, all...).gatherer().claims(t.Context(), s, k, tc.source, tc.target); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, claim := range k.Claims {
				got = append(got, claim.Name)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestVolume reads attachments as they are, and never forgets those of a volume
// that is gone.
func TestVolume(t *testing.T) {
	failing := attachment("disk", b, false, 5)
	failing.Status.AttachError = &storagev1.VolumeError{Message: "refused"}
	leaving := attachment("disk", a, true, -60)
	leaving.Status.AttachError = &storagev1.VolumeError{Message: "long ago"}
	leaving.Status.DetachError = &storagev1.VolumeError{Message: "busy"}
	inline := attachment("disk", c, true, 0)
	inline.Spec.Source.PersistentVolumeName = nil
	claim := Claim{Name: "disk", PV: "pv-disk", Handle: "slot-disk", Timeout: time.Minute}
	want := dualattach.Volume{Claim: "disk", PV: "pv-disk", Timeout: time.Minute, Ledger: rds.Ledger{Known: true, Foreign: "slot-disk"},
		Attachments: []dualattach.Attachment{
			{Node: b, Created: noon.Add(5 * time.Second), Error: "refused"},
			{Node: a, Attached: true, Created: noon.Add(-time.Minute), Error: "busy", Leaving: true},
		}}
	for name, objects := range map[string][]client.Object{"bound": storage("disk"), "gone": nil} {
		t.Run(name, func(t *testing.T) {
			objects = append(objects, failing, leaving, inline, attachment("data", c, true, 0))
			got, err := newCluster(t, objects...).gatherer().sharedVolume(t.Context(), "shop", claim, noon)
			if err != nil {
				t.Fatal(err)
			}
			want := want
			if name == "gone" {
				want.PV = ""
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("volume (-want +got):\n%s", diff)
			}
		})
	}
}
