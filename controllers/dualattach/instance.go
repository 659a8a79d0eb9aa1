package dualattach

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// ConditionInstanceTimedOut is the condition type on the VMI, CamelCase as
// KubeVirt's own there: a storage migration of it is past a deadline.
const ConditionInstanceTimedOut kubevirtv1.VirtualMachineInstanceConditionType = "StorageMigrationTimedOut"

const (
	// TimedOutAnnotation on a VMI stands in for ConditionInstanceTimedOut where that
	// cannot be written.
	TimedOutAnnotation = "rds.csi.srvlab.io/storage-migration-timed-out"
	// UnexplainedAnnotation is the same for StorageDualAttachUnexplained.
	UnexplainedAnnotation = "rds.csi.srvlab.io/storage-dual-attach-unexplained"
)

// InstanceCondition is what ConditionInstanceTimedOut is to say, without times:
// those are the writer's to set.
type InstanceCondition struct {
	Status  corev1.ConditionStatus
	Reason  string
	Message string
}

// DecideInstance tells what the VMI is to say of its migrations together, nil
// where it says that already or has nothing to say. One migration past a deadline,
// the newest of several, makes it True; what is True and has no such migration any
// more is resolved, be it that the migration is over, that a newer one has begun,
// or that it ended while no operator ran. An annotation that stands in for the
// condition never says enough: it is to be replaced or taken away. assessments are
// those of the VMI's migrations that are not reported yet, oldest first.
func DecideInstance(vmi *kubevirtv1.VirtualMachineInstance, assessments []Assessment) *InstanceCondition {
	if vmi == nil || vmi.IsFinal() {
		return nil
	}
	carried := slices.IndexFunc(vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
		return c.Type == ConditionInstanceTimedOut
	})
	told := carried >= 0 && vmi.Status.Conditions[carried].Status == corev1.ConditionTrue
	_, noted := vmi.Annotations[TimedOutAnnotation]
	resolved := InstanceCondition{Status: corev1.ConditionFalse, Reason: ReasonResolved,
		Message: "RDS shared volume: no migration of the VM is past a deadline any more"}
	for _, a := range slices.Backward(assessments) {
		c, ok := a.timedOut()
		switch {
		case ok && c.Status == corev1.ConditionTrue:
			if told && !noted && vmi.Status.Conditions[carried].Reason == c.Reason {
				return nil
			}
			return &InstanceCondition{Status: c.Status, Reason: c.Reason, Message: c.Message}
		case ok && c.Reason == ReasonResolved:
			resolved.Message = c.Message
		}
	}
	if !told && !noted {
		return nil
	}
	return &resolved
}

// timedOut is the VMIM's condition of that type; ok is false where nothing is said.
func (a Assessment) timedOut() (c Condition, ok bool) {
	i := slices.IndexFunc(a.Conditions, func(c Condition) bool { return c.Type == ConditionTimedOut })
	if i < 0 {
		return Condition{}, false
	}
	return a.Conditions[i], true
}
