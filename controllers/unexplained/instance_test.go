package unexplained

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

// TestDecideInstance: what a VMI is to say, from what it says.
func TestDecideInstance(t *testing.T) {
	const none = corev1.ConditionStatus("")
	vmi := func(status corev1.ConditionStatus, phase kubevirtv1.VirtualMachineInstancePhase) *kubevirtv1.VirtualMachineInstance {
		v := &kubevirtv1.VirtualMachineInstance{Status: kubevirtv1.VirtualMachineInstanceStatus{Phase: phase,
			Conditions: []kubevirtv1.VirtualMachineInstanceCondition{{Type: kubevirtv1.VirtualMachineInstanceReady, Status: corev1.ConditionTrue}}}}
		if status != none {
			v.Status.Conditions = append(v.Status.Conditions, kubevirtv1.VirtualMachineInstanceCondition{Type: ConditionInstance, Status: status})
		}
		return v
	}
	annotated := func(v *kubevirtv1.VirtualMachineInstance) *kubevirtv1.VirtualMachineInstance {
		v.Annotations = map[string]string{dualattach.UnexplainedAnnotation: "True"}
		return v
	}
	two := []string{"of claim b", "of claim a"}
	cases := map[string]struct {
		reason string
		vmi    *kubevirtv1.VirtualMachineInstance
		found  []string
		want   corev1.ConditionStatus
	}{
		"never":           {"A VMI that has nothing to say bears no condition.", vmi(none, kubevirtv1.Running), nil, none},
		"begins":          {"", vmi(none, kubevirtv1.Running), two, corev1.ConditionTrue},
		"stays":           {"", vmi(corev1.ConditionTrue, kubevirtv1.Running), two, none},
		"ends":            {"", vmi(corev1.ConditionTrue, kubevirtv1.Running), nil, corev1.ConditionFalse},
		"is over":         {"", vmi(corev1.ConditionFalse, kubevirtv1.Running), nil, none},
		"again":           {"", vmi(corev1.ConditionFalse, kubevirtv1.Running), two, corev1.ConditionTrue},
		"noted":           {"An annotation is to be replaced.", annotated(vmi(none, kubevirtv1.Running)), two, corev1.ConditionTrue},
		"noted, and over": {"Or taken away.", annotated(vmi(none, kubevirtv1.Running)), nil, corev1.ConditionFalse},
		"final":           {"Nobody looks at it any more.", vmi(none, kubevirtv1.Failed), two, none},
		"gone":            {"", nil, two, none},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := DecideInstance(tc.vmi, tc.found)
			switch {
			case tc.want == none && got != nil:
				t.Errorf("%s: %+v", tc.reason, got)
			case tc.want == none:
			case got == nil || got.Status != tc.want || got.Reason == "" || got.Message == "":
				t.Errorf("%s: %+v", tc.reason, got)
			case tc.want == corev1.ConditionTrue && strings.Join(two, "; ") != got.Message:
				t.Errorf("the message is %q", got.Message)
			}
		})
	}
}
