package unexplained

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

// sayAgain is how long after an event it is made again. A cluster keeps one for an hour
// by default and up to a minute more; one that it still has stays as it is.
const sayAgain = 65 * time.Minute

// Finding is something that is the matter with a volume now.
type Finding struct {
	Kind Kind
	Node string // the one it is about; empty where it is about several
	// ID tells two occurrences of one kind apart. It follows from objects alone, so
	// that another process finds the same.
	ID      string
	Message string

	patience time.Duration // how long it must last before it is spoken of
	start    time.Time     // when objects say that it began, or zero
}

// Key is what the finding is remembered by.
func (f Finding) Key() Key { return Key{f.Kind, f.Node} }

// Key is what a finding is remembered by.
type Key struct {
	Kind Kind
	Node string
}

// Remembered is what is kept of a finding between two decisions.
type Remembered struct {
	Finding Finding
	Since   time.Time // when it was first seen
	SaidAt  time.Time // when an event last spoke of it; zero: none did
}

func (r Remembered) said() bool { return !r.SaidAt.IsZero() }

// Memory is what one decision hands on to the next.
type Memory map[Key]Remembered

// Assessment is what Decide finds.
type Assessment struct {
	// Standing is what is to be spoken of, and has been or is by Events.
	Standing []Finding
	// Pending is what has not lasted long enough.
	Pending []Finding
	// Events are those that are due now.
	Events []dualattach.Event
	// Memory is for the next decision, once the events are made.
	Memory Memory
	// NextAt is when time alone may change the assessment, or zero.
	NextAt time.Time
}

// Decide tells what is the matter with a volume's attachments. It changes nothing
// and depends on nothing but the snapshot.
func Decide(s Snapshot) Assessment {
	a := Assessment{Memory: Memory{}}
	found, explained := s.findings()
	for _, f := range found {
		s.weigh(&a, f)
	}
	if explained {
		// The end of a migration may pass without anything of the volume changing.
		a.wake(s.Now.Add(s.Limits.Settle))
	}
	for _, p := range s.Pods {
		if s.Now.Before(p.Leaving) {
			a.wake(p.Leaving)
		}
	}
	s.settle(&a)
	return a
}

// weigh tells whether a finding has lasted long enough to be spoken of.
func (s *Snapshot) weigh(a *Assessment, f Finding) {
	r, known := s.Memory[f.Key()]
	if !known {
		r = Remembered{Since: s.Now}
	}
	if !f.start.IsZero() && f.start.Before(r.Since) {
		r.Since = f.start
	}
	f.Message += "; since " + stamp(r.Since)
	due, seen := r.Since.Add(f.patience), s.Now
	if f.Kind.OfArray() {
		// A view from before it began proves nothing.
		seen = s.Told.ObservedAt
	}
	switch {
	case r.said() && r.Finding.ID == f.ID && s.Now.Sub(r.SaidAt) < sayAgain:
		a.Standing = append(a.Standing, f)
	case r.said() || !seen.Before(due):
		a.Standing = append(a.Standing, f)
		a.Events = append(a.Events, f.Warning(s.Claim))
		r.SaidAt = s.Now
	default:
		a.Pending = append(a.Pending, f)
		if due.After(s.Now) {
			a.wake(due)
		}
	}
	if r.said() {
		a.wake(r.SaidAt.Add(sayAgain))
	}
	r.Finding = f
	a.Memory[f.Key()] = r
}

// settle ends what was spoken of and is over. What concerns the array is neither
// there nor over while its view is missing or stale.
func (s *Snapshot) settle(a *Assessment) {
	keys := slices.SortedFunc(maps.Keys(s.Memory), func(x, y Key) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), compare(x.Node, y.Node))
	})
	for _, key := range keys {
		r := s.Memory[key]
		if _, there := a.Memory[key]; there {
			continue
		}
		if key.Kind.OfArray() && !s.Told.Fresh() {
			a.Memory[key] = r
			if r.said() {
				a.Standing = append(a.Standing, r.Finding)
			}
			continue
		}
		if r.said() {
			a.Events = append(a.Events, s.resolved(r))
		}
	}
}

// wake asks for another look at a time.
func (a *Assessment) wake(at time.Time) {
	if a.NextAt.IsZero() || at.Before(a.NextAt) {
		a.NextAt = at
	}
}

// compare is strings.Compare, short.
func compare(a, b string) int { return cmp.Compare(a, b) }
