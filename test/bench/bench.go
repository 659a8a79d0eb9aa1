package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
)

type options struct {
	latency                        time.Duration
	concurrency, volumes, channels int
	churn                          int // volumes of the measurement over a bad line
}

// What a change may cost, in SSH round trips.
const (
	warmBudget = 1
	coldBudget = 2
)

var errBudget = errors.New("an operation takes more round trips than it may")

func run(ctx context.Context, o options, out io.Writer) error {
	within, err := trips(ctx, out)
	if err != nil {
		return err
	}
	if err := throughput(ctx, o, out); err != nil {
		return err
	}
	result, err := churn(ctx, churnOptions{
		volumes: o.churn, concurrency: o.concurrency, channels: o.channels, latency: o.latency,
		cuts: 0.02, seed: 1, retryFirst: time.Second, retryMost: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	if err := result.print(out); err != nil {
		return err
	}
	if !within {
		return errBudget
	}
	return result.verdict()
}

// trips counts the round trips of every RPC, on a client that has just
// seen a view and on one that has seen nothing.
func trips(ctx context.Context, out io.Writer) (within bool, err error) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RPC\tfile system\twarm\tcold\t")
	within = true
	for _, fs := range []string{"xfs", "btrfs"} {
		for _, ops := range [][]op{life, branch} {
			warm, err := count(ctx, fs, ops, true)
			if err != nil {
				return false, err
			}
			cold, err := count(ctx, fs, ops, false)
			if err != nil {
				return false, err
			}
			for i, op := range ops {
				verdict := ""
				if !op.exempt && (warm[i] > warmBudget || cold[i] > coldBudget) {
					verdict, within = fmt.Sprintf("more than %d warm or %d cold", warmBudget, coldBudget), false
				}
				fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\n", op.name, fs, warm[i], cold[i], verdict)
			}
		}
	}
	return within, table.Flush()
}

// count leads one volume through its life; before each RPC the client
// gets a fresh view, or is replaced by one that knows nothing. What the array does in
// the background is waited for in between.
func count(ctx context.Context, fs string, ops []op, warm bool) ([]uint64, error) {
	r, err := newRig(rigOptions{fs: fs, channels: 4})
	if err != nil {
		return nil, err
	}
	defer r.close()
	counts := make([]uint64, len(ops))
	for i, op := range ops {
		array, err := r.client()
		if err != nil {
			return nil, err
		}
		if warm {
			if _, err := array.View(ctx); err != nil {
				return nil, err
			}
			if _, err := array.Snapshots(ctx); err != nil {
				return nil, err
			}
		}
		server, err := newServer(array)
		if err != nil {
			return nil, err
		}
		before := array.RoundTrips()
		if err := op.do(ctx, server, "bench"); err != nil {
			return nil, fmt.Errorf("%s: %w", op.name, err)
		}
		counts[i] = array.RoundTrips() - before
		if err := r.server.WaitIdle(ctx); err != nil {
			return nil, err
		}
		if err := array.Close(); err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// throughput leads many volumes through their lives at once.
func throughput(ctx context.Context, o options, out io.Writer) error {
	r, err := newRig(rigOptions{fs: "xfs", latency: o.latency, channels: o.channels})
	if err != nil {
		return err
	}
	defer r.close()
	array, err := r.client()
	if err != nil {
		return err
	}
	defer func() { _ = array.Close() }() // nothing is lost with a measurement
	if _, err := array.View(ctx); err != nil {
		return err
	}
	server, err := newServer(array)
	if err != nil {
		return err
	}
	var commands atomic.Uint64
	start, before := time.Now(), array.RoundTrips()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(o.concurrency)
	for i := range o.volumes {
		group.Go(func() error {
			for _, op := range life {
				if err := op.do(ctx, server, fmt.Sprintf("bench-%d", i)); err != nil {
					return fmt.Errorf("%s: %w", op.name, err)
				}
				commands.Add(1)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	took := time.Since(start)
	_, err = fmt.Fprintf(out, "\n%d volumes through %d RPCs each, %d at once, latency %v, %d channels: %.1f volumes/s, %.1f RPCs/s, %d round trips\n",
		o.volumes, len(life), o.concurrency, o.latency, o.channels,
		float64(o.volumes)/took.Seconds(), float64(commands.Load())/took.Seconds(), array.RoundTrips()-before)
	return err
}
