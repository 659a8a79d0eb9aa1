package dataplane

import (
	"slices"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// ReadWriteOncePod is one pod, not one node: a second one is refused where the
// first is, and elsewhere, until the first has left.
func TestReadWriteOncePod(t *testing.T) {
	s := alone(t, 0)
	s.create(rwopExt4, 64*mib)
	s.attach(s.a)
	sum := s.fillFile(s.a, 1)
	second := s.as("second")
	wantCode(t, second.tryShow(s.a), codes.FailedPrecondition)
	wantCode(t, s.tryPublish(s.b), codes.FailedPrecondition)
	if got := s.holders(); got != s.a.Name {
		t.Errorf("the ledger names %q", got)
	}
	s.must(s.tryShow(s.a)) // the first is asked for again, and stays
	s.must(s.tryHide(s.a))
	s.must(second.tryShow(s.a))
	if got := second.sumFile(s.a); got != sum {
		t.Errorf("the file's sum is %s, and was %s", got, sum)
	}
	wantCode(t, s.tryShow(s.a), codes.FailedPrecondition)
	s.must(second.tryHide(s.a))
	s.must(s.tryUnstage(s.a))
	s.unpublish(s.a)
	s.remove()
}

// as is the same volume as another pod sees it.
func (s *scenario) as(pod string) *scenario {
	s.Helper()
	other := *s
	other.pod = pod
	s.Cleanup(func() {
		if other.volume = s.volume; other.volume == nil {
			return // deleted, so nobody sees it
		}
		for _, n := range []*Node{s.a, s.b} {
			if err := other.tryHide(n); err != nil {
				s.Errorf("clean up: %v", err)
			}
		}
	})
	return &other
}

// Two XFS filesystems with one UUID, a volume and its clone, are mounted on one
// node at the same time, and neither takes the other's writes.
func TestXFSCloneBesideItsSource(t *testing.T) {
	s := alone(t, 0)
	s.create(rwoXFS, 320*mib)
	s.attach(s.a)
	sum := s.fillFile(s.a, 4)
	s.detach(s.a)
	clone := s.clone()
	s.attach(s.a)
	clone.attach(s.a)
	if one, other := s.uuid(s.a), clone.uuid(s.a); one != other || one == "" {
		t.Errorf("the UUIDs are %q and %q: the test proves nothing", one, other)
	}
	if got := clone.sumFile(s.a); got != sum {
		t.Errorf("the clone's file has the sum %s, its source's %s", got, sum)
	}
	if clone.fillFile(s.a, 4) == s.sumFile(s.a) {
		t.Error("a write to the clone is seen in its source")
	}
	if got := s.sumFile(s.a); got != sum {
		t.Errorf("the source's file has the sum %s now, and had %s", got, sum)
	}
	for _, v := range []*scenario{clone, s} {
		v.detach(s.a)
		v.fsck(s.a, "xfs_repair", "-n")
		v.remove()
	}
}

// clone is a copy of the volume, made by the array.
func (s *scenario) clone() *scenario {
	s.Helper()
	clone := *s
	clone.volume, clone.published = nil, map[*Node]map[string]string{}
	s.Cleanup(clone.finish)
	clone.createFrom(&spec.VolumeContentSource{Type: &spec.VolumeContentSource_Volume{
		Volume: &spec.VolumeContentSource_VolumeSource{VolumeId: s.id()},
	}}, s.capability, s.volume.GetCapacityBytes())
	return &clone
}

// uuid is that of the filesystem that a pod sees.
func (s *scenario) uuid(n *Node) string {
	s.Helper()
	device, err := n.device(s.ctx, s.nqn(n))
	s.must(err)
	out, err := n.Run(s.ctx, "blkid", "-p", "-s", "UUID", "-o", "value", device)
	s.must(err)
	return strings.TrimSpace(out)
}

func sorted(words []string) []string {
	slices.Sort(words)
	return words
}
