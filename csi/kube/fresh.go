package kube

import (
	"context"
	"sync"
)

// fresh shares one expensive read among callers without ever answering with a
// read that began before the question: at most one read runs, and those who ask
// meanwhile share the next one. Fifty disks leaving a drained node thus cost two
// lists of all attachments, not fifty.
type fresh[T any] struct {
	load func(context.Context) (T, error)

	mu      sync.Mutex
	waiting *flight[T] // not begun yet; nil if nobody waits
	running sync.Mutex // held by the flight that reads
}

type flight[T any] struct {
	done  chan struct{}
	value T
	err   error
}

func (f *fresh[T]) get(ctx context.Context) (T, error) {
	mine := f.join(ctx)
	select {
	case <-mine.done:
		return mine.value, mine.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// join finds the read that is the next to begin.
func (f *fresh[T]) join(ctx context.Context) *flight[T] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == nil {
		f.waiting = &flight[T]{done: make(chan struct{})}
		// Detached: the first caller's deadline is not everybody's.
		go f.fly(context.WithoutCancel(ctx), f.waiting)
	}
	return f.waiting
}

func (f *fresh[T]) fly(ctx context.Context, mine *flight[T]) {
	f.running.Lock()
	defer f.running.Unlock()
	f.mu.Lock()
	f.waiting = nil // who asks from now on gets a later read
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, liveReadTimeout)
	defer cancel()
	mine.value, mine.err = f.load(ctx)
	close(mine.done)
}
