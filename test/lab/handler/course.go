package handler

import (
	"fmt"
	"maps"
	"time"
)

// Step is a step of a migration that the handlers or launchers take.
type Step int

// The steps, in their order.
const (
	NoStep Step = iota
	Launch
	Prepare
	Start
	GoPostCopy
	Switch
	Complete
	Leave
)

var stepNames = [...]string{"NoStep", "Launch", "Prepare", "Start", "GoPostCopy", "Switch", "Complete", "Leave"}

func (s Step) String() string { return stepNames[s] }

// Course is what happens in a migration; the zero value succeeds at once.
type Course struct {
	// Takes is how long before a step is taken, e.g. Switch: the copying.
	Takes map[Step]time.Duration
	// HoldAt is a step before which the migration hangs until Release.
	HoldAt Step
	// FailAt is the step that fails:
	//   Launch    the target launcher fails before the hand-off
	//   Prepare   the target launcher fails after the hand-off
	//   Start     the source reports a failure before it begins to copy
	//   Switch    the source reports a failure while Running; after a
	//             post-copy, the VM fails with it
	//   Leave     the source launcher ends Failed instead of Succeeded
	FailAt Step
	// Reason is what a failure says.
	Reason string
	// PostCopy lets the VM run on the target before its memory is there.
	PostCopy bool
	// IgnoreAbort makes the source deaf to an abort.
	IgnoreAbort bool
}

// Taking returns the course with a step that takes its time.
func (c Course) Taking(step Step, d time.Duration) Course {
	takes := maps.Clone(c.Takes)
	if takes == nil {
		takes = map[Step]time.Duration{}
	}
	takes[step] = d
	c.Takes = takes
	return c
}

// Succeed is the course of a migration in which each step is taken at once.
func Succeed() Course { return Course{} }

// FailingAt is a course that fails at a step.
func FailingAt(step Step) Course { return Course{FailAt: step} }

// HoldingAt is a course that hangs before a step until Release.
func HoldingAt(step Step) Course { return Course{HoldAt: step} }

// Validate tells whether KubeVirt knows such a course.
func (c Course) Validate() error {
	switch c.FailAt {
	case GoPostCopy, Complete:
		return fmt.Errorf("a migration cannot fail at step %s", c.FailAt)
	}
	if c.HoldAt == GoPostCopy && !c.PostCopy {
		return fmt.Errorf("a course without PostCopy never comes to step %s", GoPostCopy)
	}
	return nil
}

func (c Course) reason() string {
	if c.Reason != "" {
		return c.Reason
	}
	return "Live migration failed: the lab's course says so"
}
