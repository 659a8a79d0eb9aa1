package dataplane

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/guest"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
)

// ring is how many blocks a background writer goes round.
const ring = 256

// writer is a program that writes past every cache, for ever, and tells each
// write that was acknowledged: what a pod's database does.
type writer struct {
	s       *scenario
	node    *Node
	program *guest.Program
}

func (s *scenario) writer(n *Node, path string) *writer {
	s.Helper()
	p, err := n.Start(s.ctx, wire.Command{Args: []string{"/agent", "write", "-path", path, "-writer", "1", "-blocks", fmt.Sprint(ring)}})
	s.must(err)
	return &writer{s: s, node: n, program: p}
}

// acknowledged is the last write that the device confirmed.
func (w *writer) acknowledged(ctx context.Context) (uint64, error) {
	r, err := w.program.Look(ctx)
	if err != nil {
		return 0, err
	}
	return lastWrite(r)
}

func lastWrite(r wire.Result) (uint64, error) {
	// The last line may be half written.
	whole := r.Stdout[:strings.LastIndexByte(string(r.Stdout), '\n')+1]
	lines := strings.Fields(string(whole))
	if len(lines) == 0 {
		return 0, nil
	}
	return strconv.ParseUint(lines[len(lines)-1], 10, 64)
}

// awaitMore waits until more writes were acknowledged.
func (w *writer) awaitMore(more uint64) {
	w.s.Helper()
	from, err := w.acknowledged(w.s.ctx)
	w.s.must(err)
	w.s.must(await(w.s.ctx, time.Minute, fmt.Sprintf("%d more writes after %d", more, from), func(ctx context.Context) error {
		r, err := w.program.Look(ctx)
		if err != nil {
			return err
		}
		now, err := lastWrite(r)
		if err == nil && now < from+more {
			err = fmt.Errorf("%d were acknowledged; the writer: %s %s", now, r.ExitText(), r.Stderr)
		}
		return err
	}))
}

// stopAndVerify ends the writer and checks that the device, read at path, holds
// every write that was acknowledged.
func (w *writer) stopAndVerify(n *Node, path string) {
	w.s.Helper()
	r, err := w.program.Kill(w.s.ctx)
	w.s.must(err)
	acknowledged, err := lastWrite(r)
	w.s.must(err)
	found, err := n.read(w.s.ctx, path, ring)
	w.s.must(err)
	if err := found.Lost(acknowledged); err != nil {
		w.s.Errorf("after %d acknowledged writes: %v", acknowledged, err)
	}
	w.s.Logf("%d writes acknowledged, none lost", acknowledged)
}
