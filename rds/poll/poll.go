package poll

import (
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// staleAfter is how many intervals a view may be old.
const staleAfter = 3

// Poller reads an array's view once every interval. All methods are safe for
// concurrent use.
type Poller struct {
	array    rds.Array
	interval time.Duration
	clock    clock.WithTicker

	reading chan struct{} // holds a token while a read is under way

	mu   sync.Mutex
	last rds.View
	err  error
	subs []chan struct{}
}

// Option changes how a Poller behaves.
type Option func(*Poller)

// WithClock sets the clock that paces the reads.
func WithClock(c clock.WithTicker) Option { return func(p *Poller) { p.clock = c } }

// New makes a poller. It reads nothing before Start or Poll.
func New(array rds.Array, interval time.Duration, opts ...Option) *Poller {
	p := &Poller{array: array, interval: interval, clock: clock.RealClock{}, reading: make(chan struct{}, 1)}
	for _, opt := range opts {
		opt(p)
	}
	return p
}

// Start reads at once and then every interval, until ctx ends. It never fails:
// what an attempt met is in Err. Run it on every replica, leader or not.
func (p *Poller) Start(ctx context.Context) error {
	ticker := p.clock.NewTicker(p.interval)
	defer ticker.Stop()
	for {
		_, _ = p.Poll(ctx) // kept for Err
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// Poll reads once, now.
func (p *Poller) Poll(ctx context.Context) (rds.View, error) {
	select {
	case p.reading <- struct{}{}:
		defer func() { <-p.reading }()
	case <-ctx.Done():
		return rds.View{}, ctx.Err()
	}
	view, err := p.array.View(ctx)
	if ctx.Err() != nil && err != nil {
		// The caller gave up; that says nothing about the array.
		return rds.View{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.last = view
	}
	changed := err == nil || !rds.SameFailure(err, p.err)
	p.err = err
	if changed {
		p.notify()
	}
	return view, err
}

// Last is the newest view, however old; zero when there never was one.
func (p *Poller) Last() rds.View {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Err is what the last attempt met; nil after a success and before the first.
func (p *Poller) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Stale reports whether the last view is older than three intervals, or there is none.
func (p *Poller) Stale(now time.Time) bool {
	last := p.Last()
	return !last.Observed() || now.Sub(last.ObservedAt) > staleAfter*p.interval
}

// Subscribe gives a channel that receives after every new view and whenever the
// array stops answering, or does not for another reason. A receiver that is slow finds
// one notification for all it missed.
func (p *Poller) Subscribe() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch := make(chan struct{}, 1)
	p.subs = append(p.subs, ch)
	return ch
}

// notify is called with mu held.
func (p *Poller) notify() {
	for _, ch := range p.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
