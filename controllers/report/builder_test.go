package report

import (
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

// noon has parts of a second and a zone, neither of which may reach an object.
var noon = time.Date(2026, 8, 1, 14, 0, 0, 987654321, time.FixedZone("CEST", 2*3600))

// earlier is when what is on the VMIM already was written.
var earlier = metav1.Date(2026, 8, 1, 11, 0, 0, 0, time.UTC)

// want are our three conditions as they are while both nodes hold the volume.
func want() []dualattach.Condition {
	return []dualattach.Condition{
		{Type: dualattach.ConditionDualAttached, Status: corev1.ConditionTrue, Reason: "LiveMigration", Message: "on both"},
		{Type: dualattach.ConditionMigrated, Status: corev1.ConditionUnknown, Reason: "DualAttached", Message: "under way"},
		{Type: dualattach.ConditionTimedOut, Status: corev1.ConditionFalse, Reason: "WithinDeadline", Message: "in time"},
	}
}

type condition = kubevirtv1.VirtualMachineInstanceMigrationCondition

// written is a condition of an earlier write, with the message that it would have now.
func written(kind kubevirtv1.VirtualMachineInstanceMigrationConditionType, status corev1.ConditionStatus, reason string) condition {
	c := condition{Type: kind, Status: status, Reason: reason, LastTransitionTime: earlier}
	for _, w := range want() {
		if w.Type == kind {
			c.Message = w.Message
		}
	}
	return c
}

// saying is the condition with another message.
func (c sayable) saying(message string) condition {
	c.Message = message
	return condition(c)
}

type sayable condition

// abortRequested is KubeVirt's own, with the null that it must keep.
func abortRequested() condition {
	return condition{Type: kubevirtv1.VirtualMachineInstanceMigrationAbortRequested, Status: corev1.ConditionTrue, LastTransitionTime: earlier}
}

// vmim is a running migration that carries the conditions.
func vmim(conditions ...condition) *kubevirtv1.VirtualMachineInstanceMigration {
	return &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1", UID: "uid-1", ResourceVersion: "42"},
		Status:     kubevirtv1.VirtualMachineInstanceMigrationStatus{Phase: kubevirtv1.MigrationRunning, Conditions: conditions},
	}
}

func patchFor(t *testing.T, m *kubevirtv1.VirtualMachineInstanceMigration, want []dualattach.Condition) []byte {
	t.Helper()
	patch, err := ConditionPatch(m, want, noon)
	if err != nil {
		t.Fatal(err)
	}
	return patch
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
