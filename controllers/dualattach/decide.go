package dualattach

import (
	"time"

	kubevirtv1 "kubevirt.io/api/core/v1"
)

// Result is how a migration's storage side ended, empty while it has not.
type Result string

// The results, one per migration.
const (
	Success Result = "success"
	Failed  Result = "failed"
	Aborted Result = "aborted"
	Timeout Result = "timeout"
)

// Results lists them all, for metrics that exist from zero.
func Results() []Result { return []Result{Success, Failed, Aborted, Timeout} }

// Assessment is what Decide finds.
type Assessment struct {
	Stage    Stage
	Deadline Deadline
	// Late is the stage whose deadline has passed, Undecided while none has. It is this
	// stage, but for a source that KubeVirt has not seen go: its clock is DualAttached's,
	// and a deadline is told once.
	Late Stage
	// Result is set at the first deadline passed or at the end, and stays.
	Result Result
	// Reported: all is said already; nothing is to be written.
	Reported bool
	// Conditions are those of ours that the VMIM is to carry; nil for none.
	Conditions []Condition
	// Withheld: the VMIM is not to be written before KubeVirt has moved it on, whatever
	// there is to say (see withheld).
	Withheld bool
	// Events are those that are due by now. Each is to be made once.
	Events []Event
	// DualAttachedClaims are those that are attached on both nodes now.
	DualAttachedClaims []string
	// Problems are contradictions and faults, named for people.
	Problems []Problem
	// NextAt is when time alone will change the assessment, or zero.
	NextAt time.Time
}

// Decide tells what a migration means for the shared volumes. It changes
// nothing and depends on nothing but the snapshot.
func Decide(s Snapshot) Assessment {
	recorded := readRecord(s.Migration)
	if recorded.reported {
		return Assessment{Stage: recorded.stage, Result: s.reportedResult(recorded), Reported: true}
	}
	if s.history() {
		return Assessment{Stage: Undecided, Reported: true}
	}
	if s.Migration.Status.Phase == kubevirtv1.MigrationPhaseUnset && s.VanishedAt.IsZero() {
		// KubeVirt has not accepted it yet; a write now would only cost it a conflict.
		return Assessment{Stage: Undecided}
	}
	stage := StageOf(s.facts())
	switch {
	case stage != NotInvolved:
	case !recorded.started:
		return Assessment{Stage: NotInvolved}
	case s.CopiesBlocks():
		return s.withdrawn(recorded)
	default:
		// The volumes went out of sight (pods and claims deleted); what was begun
		// is ended by what is left of it.
		stage = s.orphanStage()
	}
	a := Assessment{Stage: stage, Deadline: s.deadline(stage), Problems: s.problems(stage), DualAttachedClaims: s.dualAttachedClaims()}
	if a.Deadline.Overdue(s.Now) {
		a.Late = s.clockOf(stage, recorded)
	}
	a.Result = s.result(stage, recorded.timedOut || a.Overdue())
	a.NextAt = nextAt(a.Deadline, s.Now)
	a.Conditions = s.conditions(a, recorded)
	a.Withheld = s.withheld()
	a.Events = s.events(a, recorded)
	return a
}

// Overdue reports whether the deadline has passed.
func (a Assessment) Overdue() bool { return a.Late != Undecided }

// clockOf is the stage whose deadline the present one runs on.
func (s *Snapshot) clockOf(stage Stage, r record) Stage {
	if stage == ReleasingSource && s.EndedAt().IsZero() && r.timedOutIn == DualAttached {
		return DualAttached
	}
	return stage
}

// withdrawn takes back what was begun on a migration that turned out to copy
// blocks: it is not watched any more, and has no result but for a deadline that
// has passed.
func (s *Snapshot) withdrawn(r record) Assessment {
	a := Assessment{Stage: NotInvolved, Withheld: s.withheld()}
	if r.timedOut {
		a.Result = Timeout
	}
	a.Conditions = s.conditions(a, r)
	return a
}

// orphanStage is the stage of a migration whose volumes went out of sight.
func (s *Snapshot) orphanStage() Stage {
	if s.phase() == Active {
		return readRecord(s.Migration).stage
	}
	return Detached
}

// result tells how the migration ended, or that it passed a deadline.
func (s *Snapshot) result(stage Stage, timedOut bool) Result {
	switch {
	case timedOut:
		return Timeout
	case !stage.Final():
		return ""
	case s.phase() == Succeeded:
		return Success
	case s.aborted():
		return Aborted
	default:
		return Failed
	}
}

// reportedResult reads the result of an ending that is on the VMIM already.
func (s *Snapshot) reportedResult(r record) Result {
	switch {
	case r.timedOut:
		return Timeout
	case r.success:
		return Success
	case r.abortReported:
		return Aborted
	case r.stage == NotInvolved:
		return ""
	case r.stage == Superseded:
		return s.result(Superseded, false)
	default:
		return Failed
	}
}

// nextAt is the next moment at which the clock alone changes something.
func nextAt(d Deadline, now time.Time) time.Time {
	switch {
	case !d.Set() || d.Overdue(now):
		return time.Time{}
	case now.Before(d.warning()):
		return d.warning()
	default:
		return d.At
	}
}
