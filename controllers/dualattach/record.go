package dualattach

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// The condition types on a VirtualMachineInstanceMigration, lowerCamel as
// KubeVirt's own there.
const (
	// ConditionDualAttached: some shared volume is attached on both nodes.
	ConditionDualAttached kubevirtv1.VirtualMachineInstanceMigrationConditionType = "storageDualAttached"
	// ConditionMigrated: Unknown while under way, then how it ended.
	ConditionMigrated kubevirtv1.VirtualMachineInstanceMigrationConditionType = "storageMigrated"
	// ConditionTimedOut: a stage lasts, or lasted, longer than allowed.
	ConditionTimedOut kubevirtv1.VirtualMachineInstanceMigrationConditionType = "storageMigrationTimedOut"
)

// Reasons that are not the name of a stage.
const (
	ReasonAwaitingTarget = "AwaitingTarget"
	ReasonLiveMigration  = "LiveMigration"
	ReasonSourceReleased = "SourceReleased"
	ReasonTargetReleased = "TargetReleased"
	ReasonAborted        = "Aborted"
	ReasonWithinDeadline = "WithinDeadline"
	ReasonResolved       = "Resolved"
)

// record is what our conditions on a VMIM remember of earlier decisions: all
// that survives a restart of the operator.
type record struct {
	started           bool  // we have written before
	stage             Stage // the last one written, final ones included
	reported          bool  // the ending was written
	success           bool  // the ending was written as storageMigrated=True
	abortReported     bool
	timedOut          bool  // some deadline has passed, resolved or not
	timedOutIn        Stage // the last stage whose deadline passed, while not resolved
	dualAttachedSince time.Time
}

var stagesByName = func() map[string]Stage {
	stages := make(map[string]Stage, len(stageNames))
	for stage, name := range stageNames {
		stages[name] = stage
	}
	return stages
}()

// readRecord reads our conditions back.
func readRecord(m *kubevirtv1.VirtualMachineInstanceMigration) record {
	var r record
	detached := false
	for _, c := range m.Status.Conditions {
		switch c.Type {
		case ConditionDualAttached:
			if c.Status == corev1.ConditionTrue {
				r.dualAttachedSince = c.LastTransitionTime.Time
			}
			detached = c.Reason == Detached.String()
		case ConditionMigrated:
			r.started = true
			r.stage = stagesByName[c.Reason]
			r.reported = c.Status != corev1.ConditionUnknown
			r.success = c.Status == corev1.ConditionTrue
			r.abortReported = r.reported && c.Reason == ReasonAborted
		case ConditionTimedOut:
			r.started = true
			r.timedOut = c.Status == corev1.ConditionTrue || c.Reason == ReasonResolved
			if c.Status == corev1.ConditionTrue {
				r.timedOutIn = stagesByName[c.Reason]
			}
		}
	}
	switch {
	case r.abortReported && detached:
		r.stage = Detached
	case r.abortReported:
		r.stage = RolledBack
	}
	return r
}

// Reported reports whether the ending of a migration is on the VMIM already.
func Reported(m *kubevirtv1.VirtualMachineInstanceMigration) bool { return readRecord(m).reported }

// Started reports whether we ever wrote on the VMIM.
func Started(m *kubevirtv1.VirtualMachineInstanceMigration) bool { return readRecord(m).started }

// Counted reports whether the migration's result is counted already: at the
// deadline or at the end, whichever came first.
func Counted(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
	r := readRecord(m)
	return r.timedOut || r.reported
}

// TimedOutIn is the last stage whose passed deadline is on the VMIM, unresolved.
func TimedOutIn(m *kubevirtv1.VirtualMachineInstanceMigration) Stage { return readRecord(m).timedOutIn }
