package dualattach

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// says is a VMI that says so in its condition, beside KubeVirt's own.
func says(status corev1.ConditionStatus, reason string) *kubevirtv1.VirtualMachineInstance {
	vmi := &kubevirtv1.VirtualMachineInstance{}
	vmi.Status.Phase = kubevirtv1.Running
	vmi.Status.Conditions = []kubevirtv1.VirtualMachineInstanceCondition{{Type: kubevirtv1.VirtualMachineInstanceReady, Status: corev1.ConditionTrue}}
	storeInstance(vmi, &InstanceCondition{Status: status, Reason: reason})
	return vmi
}

// noting is a copy of the VMI with the annotation that stands in for the condition.
func noting(vmi *kubevirtv1.VirtualMachineInstance) *kubevirtv1.VirtualMachineInstance {
	vmi = vmi.DeepCopy()
	vmi.Annotations = map[string]string{TimedOutAnnotation: "whatever"}
	return vmi
}

// storeInstance puts the condition on the VMI as the writer does.
func storeInstance(vmi *kubevirtv1.VirtualMachineInstance, c *InstanceCondition) {
	element := kubevirtv1.VirtualMachineInstanceCondition{Type: ConditionInstanceTimedOut, Status: c.Status, Reason: c.Reason, Message: c.Message}
	for i, have := range vmi.Status.Conditions {
		if have.Type == element.Type {
			vmi.Status.Conditions[i] = element
			return
		}
	}
	vmi.Status.Conditions = append(vmi.Status.Conditions, element)
}

// TestInstance: what the VMI is to say of its migrations.
func TestInstance(t *testing.T) {
	silent := &kubevirtv1.VirtualMachineInstance{}
	final := says(corev1.ConditionTrue, "DualAttached")
	final.Status.Phase = kubevirtv1.Succeeded
	inTime := Decide(migration().Snapshot)
	late := Decide(migration().now(960).Snapshot)
	lateInDual := Decide(migration().on(a, b).annotate("60").decided(30).now(90).Snapshot)
	resolved := Decide(migration().on(a, b).succeeded(100).decided(280).on(b).now(300).Snapshot)
	foreign := Decide(migration().volumes().Snapshot)
	timedOut := InstanceCondition{corev1.ConditionTrue, "AttachingTarget", ""}
	over := InstanceCondition{corev1.ConditionFalse, ReasonResolved, ""}

	cases := map[string]struct {
		reason      string
		vmi         *kubevirtv1.VirtualMachineInstance
		assessments []Assessment
		want        *InstanceCondition
		message     string
	}{
		"in time":      {"Nothing has to be said.", silent, []Assessment{inTime}, nil, ""},
		"no migration": {"The same.", silent, nil, nil, ""},
		"late":         {"The stage is the reason, the message the VMIM's.", silent, []Assessment{late}, &timedOut, "delete vmim web-1"},
		"late, said":   {"Once is enough.", says(corev1.ConditionTrue, "AttachingTarget"), []Assessment{late}, nil, ""},
		"late in another stage": {"The reason moves with the stage.", says(corev1.ConditionTrue, "AttachingTarget"), []Assessment{lateInDual},
			&InstanceCondition{corev1.ConditionTrue, "DualAttached", ""}, "attached on node-a"},
		"late after another was resolved": {"It was about a former migration.", says(corev1.ConditionFalse, ReasonResolved), []Assessment{late}, &timedOut, "node-b"},
		"over":                            {"It ended after all.", says(corev1.ConditionTrue, "ReleasingSource"), []Assessment{resolved}, &over, "after a deadline had passed"},
		"over, said":                      {"Once is enough.", says(corev1.ConditionFalse, ReasonResolved), []Assessment{resolved}, nil, ""},
		"over, never said":                {"A VMI that never said so needs no correction.", silent, []Assessment{resolved}, nil, ""},
		"a next migration":                {"It begins with a clean slate.", says(corev1.ConditionTrue, "DualAttached"), []Assessment{inTime}, &over, "no migration of the VM"},
		"over unseen": {"The migration is gone and reported, or was lost; what remains is put right.",
			says(corev1.ConditionTrue, "DualAttached"), nil, &over, "no migration of the VM"},
		"none of ours": {"What is not involved says nothing, and holds nothing up.",
			says(corev1.ConditionTrue, "DualAttached"), []Assessment{foreign}, &over, "no migration of the VM"},
		"an older one is late": {"The newer is in time, but the VM has one that is not: no to and fro.",
			says(corev1.ConditionTrue, "AttachingTarget"), []Assessment{late, inTime}, nil, ""},
		"two are late": {"The newer one has the word.", says(corev1.ConditionTrue, "AttachingTarget"), []Assessment{late, lateInDual},
			&InstanceCondition{corev1.ConditionTrue, "DualAttached", ""}, ""},
		"late, noted":          {"The annotation is second best: the condition is tried again.", noting(silent), []Assessment{late}, &timedOut, ""},
		"late, said and noted": {"The annotation is to go.", noting(says(corev1.ConditionTrue, "AttachingTarget")), []Assessment{late}, &timedOut, ""},
		"over, noted":          {"It must not stay.", noting(silent), []Assessment{resolved}, &over, "after a deadline had passed"},
		"over unseen, noted":   {"Nor where an operator left it behind.", noting(silent), nil, &over, "no migration of the VM"},
		"VMI gone":             {"There is nothing to write on.", nil, []Assessment{late}, nil, ""},
		"VMI final":            {"Nobody acts on it any more.", final, []Assessment{resolved}, nil, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := DecideInstance(tc.vmi, tc.assessments)
			if got != nil {
				if !strings.HasPrefix(got.Message, "RDS shared volume") || !strings.Contains(got.Message, tc.message) {
					t.Errorf("%s: the message is %q, want %q in it", tc.reason, got.Message, tc.message)
				}
				got = &InstanceCondition{got.Status, got.Reason, ""}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}
