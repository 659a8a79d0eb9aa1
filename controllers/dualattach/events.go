package dualattach

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Reasons of events on PersistentVolumeClaims and, for timeouts, on the VMI.
const (
	EventStarted   = "MigrationStarted"
	EventDelayed   = "MigrationDelayed"
	EventCompleted = "MigrationCompleted"
	EventFailed    = "MigrationFailed"
	EventTimedOut  = "StorageMigrationTimedOut" // on the VMI
	EventBadLimit  = "InvalidMigrationTimeout"  // on the VMI
)

// Event is one event to be made once: its name follows from the migration, the
// reason, the claim and the step.
type Event struct {
	Type    string // Normal or Warning
	Reason  string
	Claim   string // the PersistentVolumeClaim it is about; empty: the VMI
	Step    string // tells two events of one reason apart: the stage
	Message string
}

// events lists those that are due. Which were made before is not known here, but
// for those that a condition on the VMIM commits.
func (s *Snapshot) events(a Assessment, r record) []Event {
	var due []Event
	perClaim := func(eventType, reason, step, text string) {
		for _, v := range s.Volumes {
			due = append(due, Event{Type: eventType, Reason: reason, Claim: v.Claim, Step: step,
				Message: fmt.Sprintf("RDS shared volume: migration %s of VMI %s, %s → %s: %s",
					s.Migration.Name, s.Migration.Spec.VMIName, s.Source.Node, s.targetNode(), text)})
		}
	}
	starting := a.Stage == AttachingTarget || a.Stage == DualAttached
	if starting && r.stage != DualAttached && s.Target.Node != "" {
		perClaim(corev1.EventTypeNormal, EventStarted, "", underWay[a.Stage]+a.Deadline.until())
	}
	if err := s.annotationError(); err != nil && !a.Stage.Final() {
		due = append(due, Event{Type: corev1.EventTypeWarning, Reason: EventBadLimit, Message: err.Error() + "; it is ignored"})
	}
	switch {
	case a.Overdue() && r.timedOutIn != a.Late:
		text := s.timeoutText(a, a.Late)
		perClaim(corev1.EventTypeWarning, EventFailed, a.Late.String(), "timeout in stage "+a.Late.String()+": "+text)
		due = append(due, Event{Type: corev1.EventTypeWarning, Reason: EventTimedOut, Step: a.Late.String(),
			Message: fmt.Sprintf("RDS shared volume of %s, migration %s: %s", s.claims(), s.Migration.Name, text)})
	case !a.Overdue() && a.Deadline.Set() && !s.Now.Before(a.Deadline.warning()):
		perClaim(corev1.EventTypeWarning, EventDelayed, a.Stage.String(), fmt.Sprintf("%s for %s of %s allowed (%s)%s",
			s.progress(a.Stage), Seconds(s.Now.Sub(a.Deadline.Start)), Seconds(a.Deadline.Allowed()), a.Deadline.Whose, problemText(a.Problems)))
	}
	if a.Stage.Final() {
		s.endEvents(a, perClaim)
	}
	return due
}

func (s *Snapshot) endEvents(a Assessment, perClaim func(eventType, reason, step, text string)) {
	late := ""
	if a.Result == Timeout {
		late = ", after a deadline had passed"
	}
	switch s.result(a.Stage, false) {
	case Success:
		perClaim(corev1.EventTypeNormal, EventCompleted, "", "completed"+s.took()+late)
	case Aborted:
		perClaim(corev1.EventTypeWarning, EventFailed, "", "cancelled, "+outcomes[a.Stage]+s.took()+late)
	default:
		perClaim(corev1.EventTypeWarning, EventFailed, "", outcomes[a.Stage]+s.took()+late+s.failure())
	}
}

// outcomes are the ends of a migration that did not succeed.
var outcomes = map[Stage]string{
	RolledBack: "rolled back",
	Detached:   "not completed, nothing is attached any more",
	Superseded: "not completed, a newer migration or start of the VM uses the target again",
}
