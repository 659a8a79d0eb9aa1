package vmicondition

import (
	"encoding/json"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"pgregory.net/rapid"
)

// noon has a fraction, which no condition may show.
var noon = time.Date(2026, 8, 1, 12, 0, 0, 123456789, time.UTC)

// web is a VMI at version 7 with KubeVirt's condition Ready and more.
func web(more ...kubevirtv1.VirtualMachineInstanceCondition) *kubevirtv1.VirtualMachineInstance {
	vmi := &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", ResourceVersion: "7"}}
	vmi.Status.Conditions = append([]kubevirtv1.VirtualMachineInstanceCondition{
		{Type: kubevirtv1.VirtualMachineInstanceReady, Status: corev1.ConditionTrue}}, more...)
	return vmi
}

// since is a condition of ours, from an hour before noon.
func since(t Type, status corev1.ConditionStatus, reason string) kubevirtv1.VirtualMachineInstanceCondition {
	return kubevirtv1.VirtualMachineInstanceCondition{Type: typeNames[t], Status: status, Reason: reason,
		LastTransitionTime: metav1.NewTime(noon.Add(-time.Hour))}
}

// TestPatch: byte for byte what is sent.
func TestPatch(t *testing.T) {
	late := Condition{StorageMigrationTimedOut, corev1.ConditionTrue, "DualAttached", "too long"}
	cases := map[string]struct {
		reason string
		vmi    *kubevirtv1.VirtualMachineInstance
		args   Condition
		want   string
	}{
		"new": {"It is added at the end; KubeVirt's own are not touched.", web(), late,
			`[{"op":"test","path":"/metadata/resourceVersion","value":"7"},` +
				`{"op":"add","path":"/status/conditions/-","value":{"type":"StorageMigrationTimedOut","status":"True","lastProbeTime":null,` +
				`"lastTransitionTime":"2026-08-01T12:00:00Z","reason":"DualAttached","message":"too long"}}]`},
		"another reason": {"The transition time moves with the status only.", web(since(StorageMigrationTimedOut, "True", "AttachingTarget")), late,
			`[{"op":"test","path":"/metadata/resourceVersion","value":"7"},` +
				`{"op":"test","path":"/status/conditions/1/type","value":"StorageMigrationTimedOut"},` +
				`{"op":"replace","path":"/status/conditions/1","value":{"type":"StorageMigrationTimedOut","status":"True","lastProbeTime":null,` +
				`"lastTransitionTime":"2026-08-01T11:00:00Z","reason":"DualAttached","message":"too long"}}]`},
		"another status, no words": {"What is empty is absent.", web(since(StorageDualAttachUnexplained, "True", "x"), since(StorageMigrationTimedOut, "True", "x")),
			Condition{Type: StorageMigrationTimedOut, Status: corev1.ConditionFalse},
			`[{"op":"test","path":"/metadata/resourceVersion","value":"7"},` +
				`{"op":"test","path":"/status/conditions/2/type","value":"StorageMigrationTimedOut"},` +
				`{"op":"replace","path":"/status/conditions/2","value":{"type":"StorageMigrationTimedOut","status":"False","lastProbeTime":null,` +
				`"lastTransitionTime":"2026-08-01T12:00:00Z"}}]`},
		"the other type": {"There are two.", web(), Condition{StorageDualAttachUnexplained, corev1.ConditionTrue, "r", "m"},
			`[{"op":"test","path":"/metadata/resourceVersion","value":"7"},` +
				`{"op":"add","path":"/status/conditions/-","value":{"type":"StorageDualAttachUnexplained","status":"True","lastProbeTime":null,` +
				`"lastTransitionTime":"2026-08-01T12:00:00Z","reason":"r","message":"m"}}]`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := patch(tc.vmi, tc.args, noon)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestNoPatch: what is not ours, or has no place to be written, is an error.
func TestNoPatch(t *testing.T) {
	for _, foreign := range []Type{0, 3, -1} {
		if got, err := patch(web(), Condition{Type: foreign, Status: corev1.ConditionTrue}, noon); err == nil {
			t.Errorf("type %d: %s", foreign, got)
		}
	}
	bare := web()
	bare.Status.Conditions = nil
	if got, err := patch(bare, Condition{Type: StorageMigrationTimedOut, Status: corev1.ConditionTrue}, noon); err == nil {
		t.Errorf("a VMI without conditions: %s", got)
	}
}

// TestNothingElse: whatever is asked for, of whatever VMI, a patch is guarded by the
// version, holds one change, and that is one canonical condition of a type of ours
// in the place of one of that type or at the end.
func TestNothingElse(t *testing.T) {
	allowed := regexp.MustCompile(`^\{"type":"(StorageMigrationTimedOut|StorageDualAttachUnexplained)","status":"(\\.|[^"\\])*",` +
		`"lastProbeTime":null,"lastTransitionTime":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"(,"reason":"(\\.|[^"\\])+")?(,"message":"(\\.|[^"\\])+")?\}$`)
	types := []kubevirtv1.VirtualMachineInstanceConditionType{"Ready", "Paused", typeNames[1], typeNames[2]}
	rapid.Check(t, func(t *rapid.T) {
		vmi := &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{ResourceVersion: rapid.String().Draw(t, "version")}}
		for _, of := range rapid.SliceOfDistinct(rapid.SampledFrom(types), rapid.ID[kubevirtv1.VirtualMachineInstanceConditionType]).Draw(t, "conditions") {
			vmi.Status.Conditions = append(vmi.Status.Conditions, kubevirtv1.VirtualMachineInstanceCondition{Type: of, Status: "True",
				LastTransitionTime: metav1.NewTime(noon), Message: rapid.String().Draw(t, "old message")})
		}
		c := Condition{Type(rapid.IntRange(-1, 4).Draw(t, "type")), corev1.ConditionStatus(rapid.String().Draw(t, "status")),
			rapid.String().Draw(t, "reason"), rapid.String().Draw(t, "message")}
		body, err := patch(vmi, c, noon)
		if err != nil {
			if body != nil {
				t.Fatalf("%v, and %s", err, body)
			}
			return
		}
		var ops []struct {
			Op, Path string
			Value    json.RawMessage
		}
		if err := json.Unmarshal(body, &ops); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		change := ops[len(ops)-1]
		want := []string{"test /metadata/resourceVersion", "add /status/conditions/-"}
		if i := carried(vmi, c.Type); i >= 0 {
			place := fmt.Sprintf(" /status/conditions/%d", i)
			want = []string{want[0], "test" + place + "/type", "replace" + place}
		}
		var got []string
		for _, op := range ops {
			got = append(got, op.Op+" "+op.Path)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("steps (-want +got):\n%s", diff)
		}
		if !allowed.Match(change.Value) {
			t.Fatalf("not one of ours: %s", change.Value)
		}
	})
}
