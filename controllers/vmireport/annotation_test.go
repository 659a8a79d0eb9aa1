package vmireport

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"pgregory.net/rapid"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

var noon = time.Date(2026, 8, 1, 12, 0, 0, 123456789, time.UTC)

var late = vmicondition.Condition{Type: vmicondition.StorageMigrationTimedOut, Status: corev1.ConditionTrue, Reason: "DualAttached", Message: "too long"}

// web is a VMI at version 7 with these annotations.
func web(annotations map[string]string) *kubevirtv1.VirtualMachineInstance {
	vmi := &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "vmi", ResourceVersion: "7", Annotations: annotations}}
	vmi.Status.Conditions = []kubevirtv1.VirtualMachineInstanceCondition{{Type: kubevirtv1.VirtualMachineInstanceReady, Status: corev1.ConditionTrue}}
	return vmi
}

// saying is the VMI with a condition of ours.
func saying(vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) *kubevirtv1.VirtualMachineInstance {
	vmi = vmi.DeepCopy()
	vmi.Status.Conditions = append(vmi.Status.Conditions, kubevirtv1.VirtualMachineInstanceCondition{
		Type: kubevirtv1.VirtualMachineInstanceConditionType(c.Type.String()), Status: c.Status, Reason: c.Reason, Message: c.Message})
	return vmi
}

const lateNote = "True DualAttached (2026-08-01T12:00:00Z): too long"

// TestNotePatch: byte for byte what is sent.
func TestNotePatch(t *testing.T) {
	const guard = `[{"op":"test","path":"/metadata/resourceVersion","value":"7"},`
	for name, tc := range map[string]struct {
		reason      string
		annotations map[string]string
		want        string
	}{
		"none":     {"The map itself is missing.", nil, `{"op":"add","path":"/metadata/annotations","value":{"rds.csi.srvlab.io/storage-migration-timed-out":"` + lateNote + `"}}]`},
		"others":   {"They are not touched.", map[string]string{"x": "y"}, `{"op":"add","path":"/metadata/annotations/rds.csi.srvlab.io~1storage-migration-timed-out","value":"` + lateNote + `"}]`},
		"replaced": {"Adding replaces.", map[string]string{dualattach.TimedOutAnnotation: "old"}, `{"op":"add","path":"/metadata/annotations/rds.csi.srvlab.io~1storage-migration-timed-out","value":"` + lateNote + `"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := notePatch(web(tc.annotations), late, noon)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(guard+tc.want, string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
	got, err := clearPatch(web(map[string]string{dualattach.TimedOutAnnotation: "old"}), late.Type)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(guard+`{"op":"remove","path":"/metadata/annotations/rds.csi.srvlab.io~1storage-migration-timed-out"}]`, string(got)); diff != "" {
		t.Errorf("removal (-want +got):\n%s", diff)
	}
	if got, err := notePatch(web(nil), vmicondition.Condition{}, noon); err == nil {
		t.Errorf("a foreign type: %s", got)
	}
}

// TestNothingElse: whatever is said of whatever VMI, the patches change one of our
// two annotations, under the guard of the version.
func TestNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vmi := web(rapid.MapOf(rapid.SampledFrom([]string{"x", dualattach.TimedOutAnnotation, dualattach.UnexplainedAnnotation}), rapid.String()).Draw(t, "annotations"))
		of := rapid.SampledFrom([]vmicondition.Type{vmicondition.StorageMigrationTimedOut, vmicondition.StorageDualAttachUnexplained}).Draw(t, "type")
		c := vmicondition.Condition{Type: of, Status: corev1.ConditionStatus(rapid.String().Draw(t, "status")), Reason: rapid.String().Draw(t, "reason"), Message: rapid.String().Draw(t, "message")}
		note, err := notePatch(vmi, c, noon)
		if err != nil {
			t.Fatal(err)
		}
		removal, err := clearPatch(vmi, of)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range [][]byte{note, removal} {
			var ops []struct {
				Op, Path string
				Value    any
			}
			if err := json.Unmarshal(body, &ops); err != nil {
				t.Fatal(err)
			}
			if len(ops) != 2 || ops[0].Op != "test" || ops[0].Path != "/metadata/resourceVersion" || ops[0].Value != "7" {
				t.Fatalf("not guarded: %s", body)
			}
			whole, isMap := ops[1].Value.(map[string]any)
			switch {
			case ops[1].Path == "/metadata/annotations":
				if !isMap || len(whole) != 1 || len(vmi.Annotations) > 0 || whole[Annotation(of)] == nil {
					t.Fatalf("other annotations are lost: %s", body)
				}
			case ops[1].Path != "/metadata/annotations/"+strings.ReplaceAll(Annotation(of), "/", "~1"):
				t.Fatalf("something else is changed: %s", body)
			}
		}
	})
}
