package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
)

// operations keeps two requests from changing one volume at once. Nobody waits:
// the second one is told to come back.
type operations struct {
	processes Processes

	mu      sync.Mutex
	pending map[string]string // slot → what is under way
}

// begin marks the operation as under way until the function it returns is called.
// A child that an earlier operation left behind counts as one: a mount that wakes
// up in the middle of an unmount would undo it.
func (o *operations) begin(v volume, operation string) (end func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if other, taken := o.pending[v.slot]; taken {
		return nil, fmt.Errorf("%w: %s", errPending, other)
	}
	if running := o.processes.Running(v.slot); len(running) > 0 {
		return nil, fmt.Errorf("%w: an earlier one still waits for %q", errPending, strings.Join(running, "; "))
	}
	if o.pending == nil {
		o.pending = map[string]string{}
	}
	o.pending[v.slot] = operation
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.pending, v.slot)
	}, nil
}

// patience bounds system calls that may hang: asking a filesystem whose device
// does not answer. One that hangs keeps its thread, so there is one per path.
type patience struct {
	clock clock.Clock

	mu      sync.Mutex
	waiting map[string]bool
}

const patienceTimeout = 5 * time.Second

func (p *patience) do(ctx context.Context, path string, call func() error) error {
	p.mu.Lock()
	if p.waiting[path] {
		p.mu.Unlock()
		return fmt.Errorf("%s: an earlier call %w: its disk does not answer", path, child.ErrDeadline)
	}
	if p.waiting == nil {
		p.waiting = map[string]bool{}
	}
	p.waiting[path] = true
	p.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		err := call()
		p.mu.Lock()
		delete(p.waiting, path)
		p.mu.Unlock()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-p.clock.After(patienceTimeout):
		return fmt.Errorf("%s: a call %w (%s): its disk does not answer", path, child.ErrDeadline, patienceTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}
