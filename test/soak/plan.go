package soak

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

const (
	planVMs   = 6
	planNodes = 4
)

// Round is a part of the plan. All its migrations begin at once; when they are over
// and the faults undone, all must be well again.
type Round struct {
	Number int
	Moves  []Move // at least one, each of another VM
	Faults []Fault
}

// Move is one migration.
type Move struct {
	VM  int
	End End
	// Late holds it before the VM switches over until its deadline has passed.
	Late bool
	// Plug gives the VM a second disk before, and takes it away after.
	Plug bool
}

// End is how a migration is to end, if no fault ends it in another way.
type End int

// The ends.
const (
	Succeed End = iota
	FailLaunch
	FailPrepare
	FailSwitch
	CancelLaunch
	CancelSwitch
	ends int = iota
)

var endNames = [...]string{"succeeds", "fails at Launch", "fails at Prepare", "fails at Switch", "is cancelled at Launch", "is cancelled at Switch"}

func (e End) String() string { return endNames[e] }

// cancelledAt is the step before which a migration is cancelled, or none.
func (e End) cancelledAt() handler.Step {
	switch e {
	case CancelLaunch:
		return handler.Launch
	case CancelSwitch:
		return handler.Switch
	}
	return handler.NoStep
}

// course is what the handlers are to do.
func (m Move) course() handler.Course {
	switch m.End {
	case FailLaunch:
		return handler.FailingAt(handler.Launch)
	case FailPrepare:
		return handler.FailingAt(handler.Prepare)
	case CancelLaunch, CancelSwitch:
		return handler.HoldingAt(m.End.cancelledAt())
	}
	c := handler.Course{}
	if m.End == FailSwitch {
		c = handler.FailingAt(handler.Switch)
	}
	if m.Late {
		c.HoldAt = handler.Switch
	}
	return c.Taking(handler.Switch, time.Second)
}

// Kind says what goes wrong.
type Kind int

// The faults.
const (
	CutArray       Kind = iota // connections are cut in the middle of commands
	HangArray                  // a command never answers
	SlowArray                  // commands take half a second more
	ArrayDown                  // the array is not there
	PowerOff                   // the node of the move's source has no power
	StuckUnmount               // that node does not unmount
	KillOperator               // kill -9
	KillController             // virt-controller's
	KillPlugin                 // the CSI plugin's
	Intrude                    // a pod asks for the volume on a third node
	kinds          int  = iota
)

var kindNames = [...]string{"array cut", "array hangs", "array slow", "array down", "source node off", "source node does not unmount",
	"operator killed", "virt-controller killed", "csi-plugin killed", "an intruder asks for the volume"}

func (k Kind) String() string { return kindNames[k] }

// Fault is something that goes wrong once a migration of the round is at a step.
type Fault struct {
	Kind  Kind
	Move  int // of the round
	At    handler.Step
	Lasts time.Duration
	// Commands of a script that run before the array cuts it.
	Commands int
}

// Plan is the seed's sequence of rounds, without end.
func Plan(seed uint64) iter.Seq[Round] {
	return func(yield func(Round) bool) {
		random := rand.New(rand.NewPCG(seed, 0x5eed))
		for n := 1; yield(round(random, n)); n++ {
		}
	}
}

func round(random *rand.Rand, number int) Round {
	r := Round{Number: number}
	for _, vm := range random.Perm(planVMs)[:1+random.IntN(planVMs)] {
		m := Move{VM: vm, End: End(random.IntN(ends)), Plug: random.IntN(4) == 0}
		if random.IntN(3) == 0 {
			m.End = Succeed
		}
		m.Late = m.reaches(handler.Switch) && random.IntN(3) == 0
		r.Moves = append(r.Moves, m)
	}
	used := map[Kind]bool{}
	for range random.IntN(4) {
		f := Fault{
			Kind: Kind(random.IntN(kinds)), Move: random.IntN(len(r.Moves)),
			Lasts: time.Duration(500+random.IntN(3500)) * time.Millisecond, Commands: random.IntN(8),
		}
		steps := []handler.Step{handler.Launch}
		if r.Moves[f.Move].reaches(handler.Switch) {
			steps = append(steps, handler.Switch)
		}
		if r.Moves[f.Move].End == Succeed {
			steps = append(steps, handler.Leave)
		}
		f.At = steps[random.IntN(len(steps))]
		if !used[f.Kind] {
			r.Faults = append(r.Faults, f)
		}
		used[f.Kind] = true
	}
	return r
}

// reaches tells whether the move comes to a step, if no fault ends it before.
func (m Move) reaches(step handler.Step) bool {
	switch m.End {
	case FailLaunch, CancelLaunch:
		return step <= handler.Launch
	case FailPrepare:
		return step <= handler.Prepare
	case FailSwitch, CancelSwitch:
		return step <= handler.Switch
	}
	return true
}

// kills tells whether the round kills a program.
func (r Round) kills(kind Kind) bool {
	for _, f := range r.Faults {
		if f.Kind == kind {
			return true
		}
	}
	return false
}

// String says what happens, for people.
func (r Round) String() string {
	var parts []string
	for i, m := range r.Moves {
		text := fmt.Sprintf("[%d] vm-%d %s", i, m.VM, m.End)
		if m.Late {
			text += " after its deadline"
		}
		if m.Plug {
			text += " with a plugged disk"
		}
		parts = append(parts, text)
	}
	for _, f := range r.Faults {
		parts = append(parts, fmt.Sprintf("%s for %s when [%d] is at %s", f.Kind, f.Lasts, f.Move, f.At))
	}
	return fmt.Sprintf("round %d: %s", r.Number, strings.Join(parts, "; "))
}
