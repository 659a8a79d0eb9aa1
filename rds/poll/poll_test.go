package poll_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/poll"
)

// fake answers views, or the error that was set.
type fake struct {
	rds.Array
	clock *clocktesting.FakeClock
	asked chan struct{}

	mu  sync.Mutex
	err error
}

func (f *fake) View(ctx context.Context) (rds.View, error) {
	defer func() {
		select {
		case f.asked <- struct{}{}:
		case <-ctx.Done():
		}
	}()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return rds.View{}, f.err
	}
	return rds.View{ObservedAt: f.clock.Now()}, nil
}

func (f *fake) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func start(t *testing.T) (*fake, *poll.Poller, *clocktesting.FakeClock) {
	t.Helper()
	clock := clocktesting.NewFakeClock(time.Unix(1760000000, 0))
	array := &fake{clock: clock, asked: make(chan struct{}, 100)}
	return array, poll.New(array, 10*time.Second, poll.WithClock(clock)), clock
}

func receive(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(10 * time.Second):
		t.Fatalf("no %s", what)
	}
}

func silent(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
		t.Errorf("an unexpected %s", what)
	default:
	}
}

func TestStart(t *testing.T) {
	array, poller, clock := start(t)
	changes := poller.Subscribe()
	if poller.Last().Observed() || !poller.Stale(clock.Now()) || poller.Err() != nil {
		t.Error("something is known before anything was asked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- poller.Start(ctx) }()
	receive(t, "first read", array.asked)
	receive(t, "notification", changes)
	for range 3 {
		clock.Step(10 * time.Second)
		receive(t, "read", array.asked)
		receive(t, "notification", changes)
		if got := poller.Last().ObservedAt; !got.Equal(clock.Now()) {
			t.Errorf("observed at %v, want %v", got, clock.Now())
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the end: %v", err)
	}
}

func TestHealth(t *testing.T) {
	array, poller, clock := start(t)
	changes := poller.Subscribe()
	read := func(want error) {
		t.Helper()
		if _, err := poller.Poll(t.Context()); !errors.Is(err, want) || !errors.Is(poller.Err(), want) {
			t.Fatalf("%v, kept %v, want %v", err, poller.Err(), want)
		}
	}
	read(nil)
	receive(t, "notification of a view", changes)
	first := poller.Last()
	array.set(&rds.Error{Kind: rds.ErrUnreachable})
	read(rds.ErrUnreachable)
	receive(t, "notification of the failure", changes)
	read(rds.ErrUnreachable)
	silent(t, "notification of the same failure", changes)
	array.set(&rds.Error{Kind: rds.ErrDenied, Hint: "look at the host key"})
	read(rds.ErrDenied)
	receive(t, "notification of another failure", changes)
	read(rds.ErrDenied)
	silent(t, "notification of that failure", changes)
	if poller.Last().ObservedAt != first.ObservedAt {
		t.Error("a failure replaced the last view")
	}
	clock.Step(30 * time.Second)
	if poller.Stale(clock.Now()) {
		t.Error("stale after three intervals")
	}
	clock.Step(time.Nanosecond)
	if !poller.Stale(clock.Now()) {
		t.Error("not stale after more than three intervals")
	}
	array.set(nil)
	read(nil)
	receive(t, "notification of the recovery", changes)
	if poller.Stale(clock.Now()) {
		t.Error("stale after a view")
	}
}

func TestCoalesced(t *testing.T) {
	_, poller, _ := start(t)
	slow, other := poller.Subscribe(), poller.Subscribe()
	for range 5 {
		if _, err := poller.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, ch := range []<-chan struct{}{slow, other} {
		receive(t, "notification", ch)
		silent(t, "second notification", ch)
	}
}

func TestCancelled(t *testing.T) {
	array, poller, _ := start(t)
	array.set(context.Canceled)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := poller.Poll(ctx); err == nil || poller.Err() != nil {
		t.Errorf("a caller that gave up counts as the array's failure: %v, %v", err, poller.Err())
	}
}
