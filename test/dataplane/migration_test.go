package dataplane

import (
	"testing"
)

// A live migration: the volume is attached twice for a while, the writes are
// handed over, and the attachment that leaves decides how it ended.
func TestMigration(t *testing.T) {
	t.Run("committed", func(t *testing.T) {
		s, source, target := migrating(t)
		// The source's machine stops, the target's goes on.
		source.stopAndVerify(s.b, s.target())
		s.must(s.b.write(s.ctx, s.target(), 2, 200))
		s.wantSame(2, 200)
		s.detach(s.a)
		s.must(target.write(s.ctx, s.target(), 3, 100))
		s.wantBlocks(target, 3, 100)
		if got := s.holders(); got != target.Name {
			t.Errorf("the ledger names %q", got)
		}
		s.detach(target)
		s.remove()
	})
	t.Run("rolled_back", func(t *testing.T) {
		s, source, target := migrating(t)
		s.detach(target)
		source.awaitMore(20)
		if got := s.holders(); got != s.a.Name {
			t.Errorf("the ledger names %q", got)
		}
		source.stopAndVerify(s.a, s.target())
		s.detach(s.a)
		s.remove()
	})
}

// migrating attaches a volume to node-a, where something writes, and then to
// node-b as well.
func migrating(t *testing.T) (*scenario, *writer, *Node) {
	t.Helper()
	s := begin(t)
	s.create(rwxBlock, 64*mib)
	s.attach(s.a)
	w := s.writer(s.a, s.target())
	w.awaitMore(20)
	s.attach(s.b)
	if s.nqn(s.a) != s.nqn(s.b) {
		t.Errorf("the second node got another export: %s and %s", s.nqn(s.a), s.nqn(s.b))
	}
	if got := s.holders(); got != "node-a node-b" {
		t.Errorf("the ledger names %q", got)
	}
	w.awaitMore(20)
	return s, w, s.b
}

// wantSame checks that both nodes read the same, and whose it is.
func (s *scenario) wantSame(writer uint64, blocks int) {
	s.Helper()
	first, second := s.wantBlocks(s.a, writer, blocks), s.wantBlocks(s.b, writer, blocks)
	if first != second {
		s.Errorf("the nodes read different data: %s and %s", first, second)
	}
}

// wantBlocks checks that a pod on a node reads a writer's blocks, all of them
// whole, and gives their checksum.
func (s *scenario) wantBlocks(n *Node, writer uint64, blocks int) string {
	s.Helper()
	got, err := n.read(s.ctx, s.target(), blocks)
	s.must(err)
	if got.ByWriter[writer] != blocks || got.Broken != 0 {
		s.Errorf("%s reads blocks by %v, %d broken; want %d by %d", n.Name, got.ByWriter, got.Broken, blocks, writer)
	}
	return got.SHA256
}
