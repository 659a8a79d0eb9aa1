package routeros

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Array is one ROSE Data Server, reached over SSH. It is safe for concurrent use,
// but callers keep two changes of one slot apart.
type Array struct {
	cfg       Config
	observe   func(verb, result string, d time.Duration)
	log       logr.Logger
	clock     clock.PassiveClock
	transport *transport

	mu sync.Mutex
	memory
}

// memory is what the array said last. Nothing in it is believed without the
// array's word: it saves the round trip that would read before writing.
type memory struct {
	verified  bool // the version was checked on this connection
	version   string
	pool      pool // zero until first seen
	rows      map[string]remembered
	sequence  uint64 // counts what was learned, so that an older answer replaces no newer one
	poolAsked uint64 // the sequence when the pool was asked for
	kept      []keptPromise
	snaps     map[string]kept      // by id
	begun     map[string]begunCopy // copies that this process began, by what they become
	promised  map[string]int64     // bytes that creations and expansions under way will take
	// uncertain are the slots with a command whose outcome is unknown: it may
	// still be running, so the next change must make its comparison fail.
	uncertain map[string]bool
}

type remembered struct {
	rds.Volume
	learned uint64
}

var _ rds.Array = (*Array)(nil)

// Option changes how an Array behaves.
type Option func(*Array)

// WithObserver is told of every command: its verb, "ok" or the kind of failure
// (see Verbs and Results), and how long it took.
func WithObserver(observe func(verb, result string, d time.Duration)) Option {
	return func(a *Array) { a.observe = observe }
}

// WithLogger sets the logger; the default discards.
func WithLogger(log logr.Logger) Option { return func(a *Array) { a.log = log } }

// WithClock sets the clock that dates views and measures commands. Deadlines are
// kept in real time.
func WithClock(c clock.PassiveClock) Option { return func(a *Array) { a.clock = c } }

// New checks the configuration and reads the key files. It connects to nothing:
// the first command does.
func New(cfg Config, opts ...Option) (*Array, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &Array{
		cfg: cfg, log: logr.Discard(), clock: clock.RealClock{}, observe: func(string, string, time.Duration) {},
		memory: memory{rows: map[string]remembered{}, snaps: map[string]kept{}, begun: map[string]begunCopy{}, promised: map[string]int64{}, uncertain: map[string]bool{}},
	}
	for _, opt := range opts {
		opt(a)
	}
	var err error
	if a.transport, err = newTransport(&a.cfg, a.newConnection); err != nil {
		return nil, &rds.Error{Kind: rds.ErrInvalid, Op: "configure", Array: cfg.Name, Err: err}
	}
	return a, nil
}

// Name is the array's name in volume handles.
func (a *Array) Name() string { return a.cfg.Name }

// Config is the validated configuration.
func (a *Array) Config() Config { return a.cfg }

// RoundTrips counts the commands sent to the array so far.
func (a *Array) RoundTrips() uint64 { return a.transport.sent.Load() }

// Close ends the connection and the commands on it, and waits for them.
func (a *Array) Close() error {
	a.transport.close()
	return nil
}

// newConnection makes the next change begin with a read, which checks the version.
func (a *Array) newConnection() {
	a.log.V(1).Info("connected to the array", "array", a.cfg.Name)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.verified = false
}

// run sends a script and takes its answer apart. A whole answer without a failure
// gives no error; the script's values are its caller's to read.
func (a *Array) run(ctx context.Context, s *script) (answer, error) {
	start := a.clock.Now()
	got, err := a.send(ctx, s)
	a.observe(s.verb, resultLabel(err), a.clock.Since(start))
	return got, err
}

func (a *Array) send(ctx context.Context, s *script) (answer, error) {
	line := s.line()
	if len(line) > maxScript {
		return answer{}, &rds.Error{Kind: rds.ErrInvalid, Words: "", Hint: "the names and comments involved make a command longer than 4 KiB"}
	}
	var got answer
	_, sent, err := a.transport.run(ctx, line, func(out []byte) bool {
		got = parseAnswer(s.nonce, out)
		return got.complete || notParsed.MatchString(got.words)
	})
	switch {
	case err != nil && !sent:
		return got, err
	case err != nil || !got.complete:
		return got, a.cutOff(s, got, err)
	case got.failed && got.changed:
		return got, &rds.Error{Kind: rds.ErrUnknownOutcome, Words: got.words, Hint: "the array failed in the middle of a change"}
	case got.failed:
		return got, classify(got.words)
	}
	return got, nil
}

// cutOff says what a command without a whole answer means.
func (a *Array) cutOff(s *script, got answer, err error) error {
	switch {
	case err == nil && !got.changed && notParsed.MatchString(got.words):
		return classify(got.words)
	case s.mutates:
		return &rds.Error{Kind: rds.ErrUnknownOutcome, Err: err, Words: got.words, Hint: "it may have been carried out; trying again finds out"}
	}
	return &rds.Error{Kind: rds.ErrUnreachable, Err: err, Words: got.words, Hint: "the answer was cut off"}
}

// changing runs a script that changes a slot, and remembers that its outcome is
// unknown if it is.
func (a *Array) changing(ctx context.Context, slot string, s *script) (answer, error) {
	got, err := a.run(ctx, s)
	if errors.Is(err, rds.ErrUnknownOutcome) {
		a.doubt(slot)
	}
	return got, err
}

// doubt forgets a slot's row and makes its next change a fence.
func (a *Array) doubt(slot string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.uncertain[slot] = true
	delete(a.rows, slot)
}
