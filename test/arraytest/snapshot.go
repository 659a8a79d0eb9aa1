package arraytest

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// underWay is how often what an array does by itself is asked for.
const underWay = 50 * time.Millisecond

// until asks again until something that goes on by itself is done.
func (s *suite) until(what string, done func() (bool, error)) {
	s.Helper()
	ticker := time.NewTicker(underWay)
	defer ticker.Stop()
	for {
		ok, err := done()
		if ok && err == nil {
			return
		}
		if err != nil && !errors.Is(err, rds.ErrUnderWay) {
			s.Fatalf("%s: %v", what, err)
		}
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			s.Fatalf("%s: still under way", what)
		}
	}
}

// taken snapshots a volume; the snapshot is gone when the test is over.
func (s *suite) taken(source rds.Volume) rds.Snapshot {
	s.Helper()
	n := rds.NewSnapshot{ID: rds.SnapshotFor(rand.Text()), Source: source.Slot}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := s.array.DeleteSnapshot(ctx, n.ID); err != nil {
			s.Errorf("clean up: %v", err)
		}
	})
	var taken rds.Snapshot
	s.until("snapshot", func() (ready bool, err error) {
		taken, err = s.array.CreateSnapshot(s.ctx, n)
		return taken.Ready, err
	})
	return taken
}

// from makes a volume of a source; it is gone when the test is over.
func (s *suite) from(from rds.Source, size int64) rds.Volume {
	s.Helper()
	n := rds.NewVolume{Slot: s.slot(), Size: size, From: from}
	s.Cleanup(func() { s.dispose(n.Slot) })
	var v rds.Volume
	s.until("create from "+from.String(), func() (ready bool, err error) {
		v, err = s.array.Create(s.ctx, n)
		return err == nil, err
	})
	if again, err := s.array.Create(s.ctx, n); err != nil || !same(v, again) {
		s.Errorf("a second time: %+v, %v, want %+v", again, err, v)
	}
	return v
}

// listed finds a snapshot among all.
func (s *suite) listed(id string) (rds.Snapshot, bool) {
	s.Helper()
	all, err := s.array.Snapshots(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	for i, one := range all {
		if i > 0 && all[i-1].ID >= one.ID {
			s.Errorf("%s stands behind %s", one.ID, all[i-1].ID)
		}
		if one.ID == id {
			return one, true
		}
	}
	return rds.Snapshot{}, false
}

func (s *suite) snapshot() {
	v, other := s.made(), s.made()
	taken := s.taken(v)
	if taken.Source != v.Slot || taken.Size != v.Size || taken.Created.IsZero() {
		s.Errorf("taken %+v", taken)
	}
	if again, err := s.array.CreateSnapshot(s.ctx, rds.NewSnapshot{ID: taken.ID, Source: v.Slot}); err != nil || again != taken {
		s.Errorf("a second time: %+v, %v, want %+v", again, err, taken)
	}
	_, err := s.array.CreateSnapshot(s.ctx, rds.NewSnapshot{ID: taken.ID, Source: other.Slot})
	s.wantErr("of another volume", err, rds.ErrExists)
	if found, ok := s.listed(taken.ID); !ok || found != taken {
		s.Errorf("listed %+v, %v", found, ok)
	}
	view, err := s.array.View(s.ctx)
	if err != nil || !same(view.Volumes[v.Slot], v) {
		s.Errorf("the volume became %+v, %v", view.Volumes[v.Slot], err)
	}
	// It depends on nothing.
	if err := s.array.Delete(s.ctx, v.Slot); err != nil {
		s.Fatal(err)
	}
	if found, ok := s.listed(taken.ID); !ok || found != taken {
		s.Errorf("without its volume: %+v, %v", found, ok)
	}
	for range 2 {
		if err := s.array.DeleteSnapshot(s.ctx, taken.ID); err != nil {
			s.Error(err)
		}
	}
	if found, ok := s.listed(taken.ID); ok {
		s.Errorf("deleted, and listed as %+v", found)
	}
}

func (s *suite) restore() {
	v := s.made()
	taken := s.taken(v)
	from := rds.Source{Snapshot: taken.ID}
	one, two := s.from(from, 0), s.from(from, 2*v.Size)
	s.wantHolders(one, false)
	s.wantHolders(two, false)
	if one.Size != v.Size || two.Size != 2*v.Size || one.Path == two.Path || one.Path == v.Path {
		s.Errorf("made %+v and %+v of %+v", one, two, v)
	}
	_, err := s.array.Create(s.ctx, rds.NewVolume{Slot: one.Slot, Size: one.Size})
	s.wantErr("an empty one instead", err, rds.ErrExists)
	_, err = s.array.Create(s.ctx, rds.NewVolume{Slot: one.Slot, Size: one.Size, Limit: 2 * one.Size})
	s.wantErr("an empty one of about that size instead", err, rds.ErrExists)
	_, err = s.array.Create(s.ctx, rds.NewVolume{Slot: one.Slot, From: rds.Source{Volume: v.Slot}})
	s.wantErr("a clone instead", err, rds.ErrExists)
	_, err = s.array.Create(s.ctx, rds.NewVolume{Slot: s.slot(), Size: v.Size - mib, From: from})
	s.wantErr("smaller", err, rds.ErrOutOfRange)
	_, err = s.array.Create(s.ctx, rds.NewVolume{Slot: s.slot(), Limit: v.Size - mib, From: from})
	s.wantErr("bounded", err, rds.ErrOutOfRange)
	if published := s.publishTo(one.Slot, "node-a"); published.NQN == s.publishTo(v.Slot, "node-b").NQN {
		s.Errorf("both are %s", published.NQN)
	}
	s.unpublish(one.Slot, "node-a")
	// The snapshot may go; what was made of it stays.
	if err := s.array.DeleteSnapshot(s.ctx, taken.ID); err != nil {
		s.Fatal(err)
	}
	if again, err := s.array.Create(s.ctx, rds.NewVolume{Slot: one.Slot, From: from}); err != nil || again.Path != one.Path {
		s.Errorf("without its snapshot: %+v, %v", again, err)
	}
}

func (s *suite) clone() {
	v := s.made()
	clone := s.from(rds.Source{Volume: v.Slot}, 0)
	if clone.Size != v.Size || clone.Path == v.Path {
		s.Errorf("made %+v of %+v", clone, v)
	}
	s.wantHolders(clone, false)
	second := s.from(rds.Source{Volume: clone.Slot}, 0)
	if err := s.array.Delete(s.ctx, clone.Slot); err != nil {
		s.Fatal(err)
	}
	if read, err := s.array.Volume(s.ctx, second.Slot); err != nil || !same(read, second) {
		s.Errorf("a clone's clone without it: %+v, %v", read, err)
	}
}

func (s *suite) noSource() {
	_, err := s.array.CreateSnapshot(s.ctx, rds.NewSnapshot{ID: rds.SnapshotFor("a"), Source: s.slot()})
	s.wantErr("snapshot of nothing", err, rds.ErrNotFound)
	_, err = s.array.CreateSnapshot(s.ctx, rds.NewSnapshot{ID: "snap-a", Source: s.made().Slot})
	s.wantErr("snapshot of a bad name", err, rds.ErrInvalid)
	for _, from := range []rds.Source{{Snapshot: rds.SnapshotFor(rand.Text())}, {Snapshot: "a"}, {Volume: s.slot()}} {
		slot := s.slot()
		_, err = s.array.Create(s.ctx, rds.NewVolume{Slot: slot, Size: mib, From: from})
		s.wantErr("from "+from.String(), err, rds.ErrNotFound)
		_, err = s.array.Volume(s.ctx, slot)
		s.wantErr("made of nothing", err, rds.ErrNotFound)
	}
	s.wantErr("delete a bad name", s.array.DeleteSnapshot(s.ctx, `snap-"`), rds.ErrInvalid)
	if err := s.array.DeleteSnapshot(s.ctx, rds.SnapshotFor(rand.Text())); err != nil {
		s.Errorf("delete what is absent: %v", err)
	}
}
