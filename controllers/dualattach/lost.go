package dualattach

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// Lost makes a stand-in for a migration that is over, whose VMIM is gone, and whose
// ending nobody reported, out of what the VMI still says of it; nil where there is
// none. It is one that began while an operator ran, and that
//
//   - ended when none did, after lastRun (zero: none ever ran), or
//   - whose release is what the VMI calls past its deadline, so that it hangs still.
//
// The stand-in has no name, as the VMI does not know it. migrations are the VMI's
// VMIMs that there are; began is when the target's pod was made, zero where it is gone:
// the copy begins later.
func Lost(vmi *kubevirtv1.VirtualMachineInstance, migrations []*kubevirtv1.VirtualMachineInstanceMigration, began, lastRun time.Time) *kubevirtv1.VirtualMachineInstanceMigration {
	if vmi == nil || vmi.IsFinal() {
		return nil
	}
	state := vmi.Status.MigrationState
	if state == nil || state.MigrationUID == "" || !state.Completed || state.StartTimestamp == nil || state.EndTimestamp == nil || acrossClusters(state) {
		return nil
	}
	if slices.ContainsFunc(migrations, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool { return m.UID == state.MigrationUID }) {
		return nil
	}
	if began.IsZero() {
		began = state.StartTimestamp.Time
	}
	late := timedOutStage(vmi)
	hangs := late == ReleasingSource || late == ReleasingTarget
	unseen := began.Before(lastRun) && !state.EndTimestamp.Time.Before(lastRun)
	if !hangs && !unseen {
		return nil
	}
	m := &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: vmi.Namespace, UID: state.MigrationUID, CreationTimestamp: metav1.Time{Time: began}},
		Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: vmi.Name},
		Status:     kubevirtv1.VirtualMachineInstanceMigrationStatus{Phase: kubevirtv1.MigrationSucceeded, MigrationState: state.DeepCopy()},
	}
	if state.Failed {
		m.Status.Phase = kubevirtv1.MigrationFailed
	}
	m.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{
		{Phase: m.Status.Phase, PhaseTransitionTimestamp: *state.EndTimestamp}}
	if late != Undecided {
		// What the VMI says was said and counted.
		m.Status.Conditions = []kubevirtv1.VirtualMachineInstanceMigrationCondition{
			{Type: ConditionTimedOut, Status: corev1.ConditionTrue, Reason: late.String(), LastTransitionTime: *state.EndTimestamp}}
	}
	return m
}

// acrossClusters reports a migration whose other end is in another cluster.
func acrossClusters(state *kubevirtv1.VirtualMachineInstanceMigrationState) bool {
	return (state.SourceState != nil && state.SourceState.SyncAddress != nil) || (state.TargetState != nil && state.TargetState.SyncAddress != nil)
}

// timedOutStage is the stage that lasts too long as the VMI says, by its annotation or
// else its condition; Undecided where it says of none.
func timedOutStage(vmi *kubevirtv1.VirtualMachineInstance) Stage {
	if note, ok := vmi.Annotations[TimedOutAnnotation]; ok {
		words := strings.Fields(note)
		if len(words) < 2 || words[0] != string(corev1.ConditionTrue) {
			return Undecided
		}
		return stagesByName[words[1]]
	}
	for _, c := range vmi.Status.Conditions {
		if c.Type == ConditionInstanceTimedOut && c.Status == corev1.ConditionTrue {
			return stagesByName[c.Reason]
		}
	}
	return Undecided
}
