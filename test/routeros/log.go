package routeros

import (
	"context"
	"time"
)

// Outcome is how a command ended, as the array sees it.
type Outcome string

// The outcomes.
const (
	Running     Outcome = "running"
	Succeeded   Outcome = "succeeded"
	Failed      Outcome = "failed"     // an error was printed
	Unparsed    Outcome = "unparsed"   // refused by the parser; nothing ran
	Incomplete  Outcome = "incomplete" // unbalanced input, never answered
	NotRun      Outcome = "not-run"    // a fault or a forced terminal prevented it
	Interrupted Outcome = "interrupted"
)

// Command is an entry of the log.
type Command struct {
	Seq     int       `json:"seq"`
	Conn    int       `json:"conn"`
	User    string    `json:"user"`
	Text    string    `json:"text"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Steps   []Step    `json:"steps"`
	Output  string    `json:"output"`
	Outcome Outcome   `json:"outcome"`
	Error   string    `json:"error,omitempty"`
	// Job: it was started by :execute and runs in the background.
	Job bool `json:"job,omitempty"`
	// Fault that hit the command, empty for none.
	Fault FaultKind `json:"fault,omitempty"`
}

// record is a Command being written; the server's lock guards it.
type record struct{ Command }

// Stats are counters since the start.
type Stats struct {
	Connections   int `json:"connections"` // accepted ones
	Refused       int `json:"refused"`     // over the limit, or while down
	RefusedLogins int `json:"refusedLogins"`
	Commands      int `json:"commands"` // received: each is a round trip
	Steps         int `json:"steps"`    // commands that scripts ran
	// Active connections and running scripts now.
	Active   int   `json:"active"`
	Running  int   `json:"running"`
	BytesIn  int64 `json:"bytesIn"`
	BytesOut int64 `json:"bytesOut"`
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Active, out.Running = len(s.conns), s.running
	out.BytesIn, out.BytesOut = s.bytesIn.Load(), s.bytesOut.Load()
	return out
}

// Log returns the commands received, oldest first.
func (s *Server) Log() []Command {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Command, 0, len(s.log))
	for _, r := range s.log {
		out = append(out, r.snapshot())
	}
	return out
}

// LastCommand returns the newest entry of the log.
func (s *Server) LastCommand() (Command, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.log) == 0 {
		return Command{}, false
	}
	return s.log[len(s.log)-1].snapshot(), true
}

func (r *record) snapshot() Command {
	c := r.Command
	c.Steps = append([]Step(nil), r.Steps...)
	return c
}

// OnStep calls f before each command of each script, outside every lock; it
// may block to hold the script there until ctx ends. Nil ends that.
func (s *Server) OnStep(f func(ctx context.Context, c Command, step Step)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onStep = f
}

// begin logs a command that has arrived.
func (s *Server) begin(connID int, user, text string) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Commands++
	r := &record{Command{
		Seq: s.stats.Commands, Conn: connID, User: user, Text: text, Started: s.opts.Clock.Now(), Outcome: Running,
	}}
	if len(s.log) >= s.opts.LogLimit {
		s.log = append(s.log[:0:0], s.log[1:]...)
	}
	s.log = append(s.log, r)
	s.running++
	return r
}

func (s *Server) end(r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Ended = s.opts.Clock.Now()
	if s.running--; s.running == 0 {
		close(s.idle)
		s.idle = make(chan struct{})
	}
}

func (s *Server) update(r *record, change func(*Command)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&r.Command)
}

// WaitIdle waits until no script runs or hangs, also none whose connection
// is gone.
func (s *Server) WaitIdle(ctx context.Context) error {
	for {
		s.mu.Lock()
		running, idle := s.running, s.idle
		s.mu.Unlock()
		if running == 0 {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
