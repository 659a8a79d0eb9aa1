package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/process"
)

// pollEvery is how often a condition is looked at. The API server is on
// loopback and answers within a millisecond or two.
const pollEvery = 20 * time.Millisecond

// DefaultWait bounds a wait whose context has no deadline of its own.
const DefaultWait = time.Minute

// WaitFor calls done until it returns true or an error, and gives up with the
// context (at the latest after DefaultWait if that has no deadline) or when a
// component of the lab crashes. what names the awaited thing in the error.
func (c *Cluster) WaitFor(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if err := poll(ctx, done); err != nil {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	return nil
}

// bound ties a context to the lab's life and gives it a deadline.
func (c *Cluster) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	bounded, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })
	end := func() { stop(); cancel(nil) }
	if _, ok := ctx.Deadline(); ok {
		return bounded, end
	}
	timed, stopTimer := context.WithTimeoutCause(bounded, DefaultWait,
		fmt.Errorf("not within %s: %w", DefaultWait, context.DeadlineExceeded))
	return timed, func() { stopTimer(); end() }
}

func poll(ctx context.Context, done func(context.Context) (bool, error)) error {
	ticks := time.NewTicker(pollEvery)
	defer ticks.Stop()
	for {
		ok, err := done(ctx)
		if ok && err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), unlessContext(err))
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticks.C:
		}
	}
}

// unlessContext drops an error that only says that the context ended.
func unlessContext(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// waitFor is WaitFor for what a process is to do; its error ends with the
// process's log.
func (c *Cluster) waitFor(ctx context.Context, p *Process, done func(context.Context) (bool, error)) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	err := poll(ctx, done)
	if err == nil || p.Err() != nil {
		return errors.Join(err, p.Err())
	}
	return fmt.Errorf("%s: %w; the end of its log %s:\n%s", p.Name(), err, p.LogFile(), process.Tail(p.LogFile(), 15))
}

// found turns a Get's error into "is it there?".
func found(err error) (bool, error) {
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
