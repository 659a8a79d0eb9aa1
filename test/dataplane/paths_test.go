package dataplane

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// The array is configured with two addresses, so each volume has two paths. One
// may go away at a time, whichever it is, and no pod notices.
func TestSecondPortal(t *testing.T) {
	s := begin(t)
	var err error
	s.controller, err = s.bed.OpenController(s.array, ArrayAddress, SecondAddress)
	s.must(err)
	t.Cleanup(s.controller.Close) // after the volume is gone
	t.Cleanup(s.finish)
	s.create(rwoBlock, 64*mib)
	s.attach(s.a)
	s.awaitPaths(s.a, "live live")
	w := s.writer(s.a, s.target())
	for _, address := range []string{SecondAddress, ArrayAddress} {
		w.awaitMore(20)
		s.address(address, false)
		s.awaitPaths(s.a, "connecting live")
		w.awaitMore(20)
		s.wantHealth(s.a, pathLost)
		s.address(address, true)
		s.awaitPaths(s.a, "live live")
		s.wantHealth(s.a, well)
	}
	w.stopAndVerify(s.a, s.target())
	nqn := s.nqn(s.a)
	s.detach(s.a)
	if states, err := s.a.states(s.ctx, nqn); err != nil || states != "" {
		t.Errorf("connections are left: %q, %v", states, err)
	}
	s.remove()
}

// address gives the array one of its addresses, or takes it away.
func (s *scenario) address(address string, there bool) {
	s.Helper()
	verb := "del"
	if there {
		verb = "add"
	} else {
		s.Cleanup(func() {
			if _, err := s.bed.Array.Shell(context.Background(), "ip addr add "+address+"/32 dev lo 2>/dev/null || true"); err != nil {
				s.Error(err)
			}
		})
	}
	_, err := s.bed.Array.Run(s.ctx, "ip", "addr", verb, address+"/32", "dev", "lo")
	s.must(err)
}

// awaitPaths waits until the connections of the volume are in these states, in
// the order of the alphabet.
func (s *scenario) awaitPaths(n *Node, want string) {
	s.Helper()
	s.must(await(s.ctx, 30*time.Second, "connections to be "+want, func(ctx context.Context) error {
		states, err := n.states(ctx, s.nqn(n))
		if err != nil {
			return err
		}
		if got := strings.Join(sorted(strings.Fields(states)), " "); got != want {
			return fmt.Errorf("they are %q", got)
		}
		return nil
	}))
}
