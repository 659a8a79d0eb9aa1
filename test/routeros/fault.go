package routeros

import (
	"context"
	"fmt"
	"regexp"
	"sync"
	"time"
)

// FaultKind says what goes wrong with a command.
type FaultKind string

// The faults.
const (
	// CutBefore cuts the connection before the command is read: it is lost.
	CutBefore FaultKind = "cut-before"
	// CutReceived cuts it when the command has arrived. The script does not
	// run, unless RunOn.
	CutReceived FaultKind = "cut-received"
	// CutAtStep cuts it after Steps commands of the script ran. The rest
	// never runs; with RunOn it does, with Hold when it is released. A script
	// of exactly Steps commands is cut before its answer.
	CutAtStep FaultKind = "cut-at-step"
	// CutBeforeAnswer cuts it when the script has run.
	CutBeforeAnswer FaultKind = "cut-before-answer"
	// CutMidAnswer sends half the answer first.
	CutMidAnswer FaultKind = "cut-mid-answer"
	// HangBefore never runs the script and never answers.
	HangBefore FaultKind = "hang-before"
	// HangAfter runs the script and never answers.
	HangAfter FaultKind = "hang-after"
	// Pause waits for Release after Steps commands, then goes on as if
	// nothing had been.
	Pause FaultKind = "pause"
	// Delay adds latency before the script runs.
	Delay FaultKind = "delay"
	// Answer sends Text with Status and does not run the script.
	Answer FaultKind = "answer"
)

// Fault is something to go wrong with commands to come.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// Match selects commands by their text; Pattern, a regular expression,
	// too. Without both every command is meant.
	Match   func(command string) bool `json:"-"`
	Pattern string                    `json:"pattern,omitempty"`
	// Skip lets that many selected commands pass first.
	Skip int `json:"skip,omitempty"`
	// Times is how many commands are hit; once when 0, always when negative.
	Times int `json:"times,omitempty"`

	Steps  int           `json:"steps,omitempty"`
	RunOn  bool          `json:"runOn,omitempty"`
	Hold   bool          `json:"hold,omitempty"`
	Delay  time.Duration `json:"delay,omitempty"`
	Text   string        `json:"text,omitempty"`
	Status int           `json:"status,omitempty"`
}

// Injection is a Fault in place.
type Injection struct {
	ID      int   `json:"id"`
	Fault   Fault `json:"fault"`
	server  *Server
	pattern *regexp.Regexp

	mu       sync.Mutex
	skip     int
	left     int // negative: always
	hits     int
	reached  chan struct{} // closed at the first hit
	released chan struct{} // closed by Release
	gone     bool
}

// Inject puts a fault in place.
func (s *Server) Inject(f Fault) (*Injection, error) {
	switch f.Kind {
	case CutBefore, CutReceived, CutAtStep, CutBeforeAnswer, CutMidAnswer, HangBefore, HangAfter, Pause, Delay, Answer:
	default:
		return nil, fmt.Errorf("unknown kind of fault %q", f.Kind)
	}
	in := &Injection{
		Fault: f, server: s, skip: f.Skip, left: f.Times, reached: make(chan struct{}), released: make(chan struct{}),
	}
	if in.left == 0 {
		in.left = 1
	}
	if f.Pattern != "" {
		re, err := regexp.Compile(f.Pattern)
		if err != nil {
			return nil, err
		}
		in.pattern = re
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextFault++
	in.ID = s.nextFault
	s.faults = append(s.faults, in)
	return in, nil
}

// Faults returns the faults in place, also those that are used up but not removed.
func (s *Server) Faults() []*Injection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Injection(nil), s.faults...)
}

// ClearFaults removes every fault; held scripts go on.
func (s *Server) ClearFaults() {
	for _, in := range s.Faults() {
		in.Remove()
	}
}

// take returns the first fault that hits the command.
func (s *Server) take(command string) *Injection {
	for _, in := range s.Faults() {
		if in.take(command) {
			return in
		}
	}
	return s.chance()
}

// chance makes a fault of the random cuts.
func (s *Server) chance() *Injection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settings.CutProbability <= 0 || s.random.Float64() >= s.settings.CutProbability {
		return nil
	}
	kinds := []FaultKind{CutBefore, CutReceived, CutAtStep, CutAtStep, CutBeforeAnswer, CutMidAnswer}
	f := Fault{
		Kind: kinds[s.random.IntN(len(kinds))], Steps: s.random.IntN(12), RunOn: s.random.IntN(2) == 0,
	}
	return &Injection{Fault: f, server: s, hits: 1, reached: make(chan struct{}), released: make(chan struct{})}
}

func (in *Injection) take(command string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.left == 0 || in.gone {
		return false
	}
	if in.Fault.Match != nil && !in.Fault.Match(command) || in.pattern != nil && !in.pattern.MatchString(command) {
		return false
	}
	if in.skip > 0 {
		in.skip--
		return false
	}
	if in.left > 0 {
		in.left--
	}
	in.hits++
	return true
}

// reach marks that the point of the fault has been reached.
func (in *Injection) reach() {
	in.mu.Lock()
	defer in.mu.Unlock()
	select {
	case <-in.reached:
	default:
		close(in.reached)
	}
}

// Hits counts the commands the fault was applied to.
func (in *Injection) Hits() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.hits
}

// Reached is closed when a command first got to the fault's point: the cut,
// the hang, the pause.
func (in *Injection) Reached() <-chan struct{} { return in.reached }

// Release lets held and paused scripts go on.
func (in *Injection) Release() {
	in.mu.Lock()
	defer in.mu.Unlock()
	select {
	case <-in.released:
	default:
		close(in.released)
	}
}

// Remove takes the fault away and releases what it holds.
func (in *Injection) Remove() {
	in.mu.Lock()
	in.gone = true
	in.mu.Unlock()
	in.Release()
	s := in.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.faults {
		if other == in {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			return
		}
	}
}

// wait blocks until Release, or the end of ctx.
func (in *Injection) wait(ctx context.Context) error {
	select {
	case <-in.released:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
