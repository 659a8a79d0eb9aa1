package soak

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/harm"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

var (
	duration = flag.Duration("soak", 0, "how long to soak; 0: not at all")
	seed     = flag.Uint64("seed", 0, "the plan's; 0: of the clock")
	keep     = flag.Bool("keep", false, "keep the lab's folder with all logs")
)

// TestSoak runs the seed's plan, round by round, until the time is up.
func TestSoak(t *testing.T) {
	if *duration == 0 {
		t.Skip("it runs by `make soak`, for ten minutes unless told otherwise")
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	t.Logf("seed %d; `make soak SEED=%d` makes the same plan", *seed, *seed)
	ctx, cancel := context.WithTimeout(t.Context(), *duration+5*time.Minute)
	defer cancel()
	s := stack.MustStart(ctx, t, stack.Options{
		Lab: lab.Options{
			Nodes: nodeNames(), Keep: *keep, Progress: t.Logf,
			KubeVirt: lab.KubeVirtOptions{ParallelMigrations: 100, ParallelOutbound: 100},
		},
		OperatorArgs: []string{"--release-deadline=2s", "--release-deadline-not-ready=3s"},
	})
	watchCtx, stop := context.WithCancel(ctx)
	defer stop()
	w, err := newWorld(watchCtx, s)
	if err != nil {
		t.Fatal(err)
	}
	began, rounds, moves := time.Now(), 0, 0
	for r := range Plan(*seed) {
		if time.Since(began) > *duration {
			break
		}
		t.Log(r)
		if err := w.live(ctx, r); err != nil {
			t.Fatalf("seed %d, %s\n%v", *seed, r, err)
		}
		rounds, moves = rounds+1, moves+len(r.Moves)
	}
	if err := w.end(ctx); err != nil {
		t.Fatalf("seed %d, after the last round: %v", *seed, err)
	}
	t.Logf("seed %d: %d rounds, %d migrations in %s; all is well", *seed, rounds, moves, time.Since(began).Round(time.Second))
}

// live runs a round, waits until all is at rest and judges it.
func (w *world) live(ctx context.Context, r Round) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %s: %w", patience, context.DeadlineExceeded))
	defer cancel()
	before, err := w.settle(ctx)
	if err != nil {
		return err
	}
	if err := w.run(ctx, r); err != nil {
		return errors.Join(err, w.describe())
	}
	if _, err := w.settle(ctx); err != nil {
		return err
	}
	if err := w.unplugAll(ctx, r); err != nil {
		return err
	}
	after, err := w.settle(ctx)
	if err != nil {
		return err
	}
	counted := results(after.series)
	if !r.kills(KillOperator) {
		counted -= results(before.series)
	}
	return toError(append(after.judge(r, counted), w.watcher.found()...))
}

// settle waits until all is at rest.
func (w *world) settle(ctx context.Context) (state, error) {
	var st state
	var restless []string
	err := w.WaitFor(ctx, "all to be at rest", func(ctx context.Context) (bool, error) {
		var err error
		if st, err = w.look(ctx); err != nil {
			restless = []string{err.Error()}
			return false, nil // the operator may be starting
		}
		restless = st.restless()
		return len(restless) == 0, nil
	})
	return st, errors.Join(err, toErrorIf(err, restless))
}

// describe says what is not at rest now, for a round that did not come to its end.
func (w *world) describe() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	st, err := w.look(ctx)
	return errors.Join(err, toError(st.restless()))
}

func toError(found []string) error {
	if len(found) == 0 {
		return nil
	}
	return errors.New(strings.Join(found[:min(len(found), 20)], "\n"))
}

func toErrorIf(err error, found []string) error {
	if err == nil {
		return nil
	}
	return toError(found)
}

// end deletes all VMs, and looks at what is left and at all that was ever asked.
func (w *world) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := w.finish(ctx); err != nil {
		return err
	}
	if _, err := w.settle(ctx); err != nil {
		return err
	}
	events, err := w.Audit()
	if err != nil {
		return err
	}
	return toError(append(harm.Examine(events, stack.OperatorUser).Harm, w.watcher.found()...))
}
