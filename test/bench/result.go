package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc/codes"
)

// churnResult is what came of many lives over a bad line.
type churnResult struct {
	options     churnOptions
	took        time.Duration
	commands    uint64
	cut         int // of the commands
	connections int
	looks       int
	lost        []string
	leaked      []string

	mu     sync.Mutex
	times  map[string][]time.Duration // by RPC, from the first attempt to the final answer
	again  map[string]int             // attempts that had to be repeated, by RPC
	codes  map[codes.Code]int         // and why
	failed []error
}

func newChurnResult(o churnOptions) *churnResult {
	return &churnResult{options: o, times: map[string][]time.Duration{}, again: map[string]int{}, codes: map[codes.Code]int{}}
}

func (r *churnResult) done(method string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times[method] = append(r.times[method], took)
}

func (r *churnResult) repeated(method string, code codes.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.again[method]++
	r.codes[code]++
}

func (r *churnResult) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, err)
}

// verdict is an error unless every life was whole and nothing is left.
func (r *churnResult) verdict() error {
	errs := slices.Clone(r.failed)
	if len(r.lost) > 0 {
		errs = append(errs, fmt.Errorf("lost: %s", strings.Join(r.lost, ", ")))
	}
	if len(r.leaked) > 0 {
		errs = append(errs, fmt.Errorf("left on the array: %s", strings.Join(r.leaked, ", ")))
	}
	return errors.Join(errs...)
}

func (r *churnResult) print(out io.Writer) error {
	o := r.options
	fmt.Fprintf(out, "\n%d volumes created, published, unpublished and deleted, %d at once, latency %v, %.0f %% of connections cut, %d channels:\n",
		o.volumes, o.concurrency, o.latency, 100*o.cuts, o.channels)
	fmt.Fprintf(out, "%.1f s, %.1f volumes/s; %d commands, %d of them cut off, over %d connections\n\n",
		r.took.Seconds(), float64(o.volumes)/r.took.Seconds(), r.commands, r.cut, r.connections)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "RPC\tmedian\t95 %\tlongest\trepeated\t")
	for _, method := range slices.Sorted(maps.Keys(r.times)) {
		times := slices.Sorted(slices.Values(r.times[method]))
		at := func(share float64) time.Duration {
			return times[int(share*float64(len(times)-1))].Round(time.Millisecond)
		}
		fmt.Fprintf(table, "%s\t%v\t%v\t%v\t%d\t\n", method, at(0.5), at(0.95), at(1), r.again[method])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "repeated because of %v; %d listings meanwhile\nfailed %d, lost %d, left on the array %d\n",
		r.codes, r.looks, len(r.failed), len(r.lost), len(r.leaked))
	return err
}
