package arraytest

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

const (
	mib     = 1 << 20
	timeout = time.Minute
)

// Run tests an array made by open. The array may hold volumes of others: the
// suite touches only those it makes, whose slots are random, and removes them. It
// needs about 100 MiB of free space.
func Run(t *testing.T, open func(t *testing.T) rds.Array) {
	for name, test := range map[string]func(*suite){
		"Create":        (*suite).create,
		"Size":          (*suite).size,
		"BadRequests":   (*suite).badRequests,
		"NotFound":      (*suite).notFound,
		"Publish":       (*suite).publish,
		"Rotation":      (*suite).rotation,
		"Expand":        (*suite).expand,
		"Refusal":       (*suite).refusal,
		"EmptyChange":   (*suite).emptyChange,
		"StaleView":     (*suite).staleView,
		"Foreign":       (*suite).foreign,
		"Delete":        (*suite).remove,
		"DeleteInUse":   (*suite).removeInUse,
		"DeleteUnknown": (*suite).removeUnknown,
		"View":          (*suite).view,
		"Cancelled":     (*suite).cancelled,
		"Snapshot":      (*suite).snapshot,
		"Restore":       (*suite).restore,
		"Clone":         (*suite).clone,
		"NoSource":      (*suite).noSource,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			test(&suite{T: t, ctx: ctx, array: open(t), now: time.Unix(1760000000, 0)})
		})
	}
}

type suite struct {
	*testing.T
	ctx   context.Context
	array rds.Array
	now   time.Time
}

func (s *suite) slot() string {
	return "pvc-t" + strings.ToLower(rand.Text()[:12])
}

// made creates a volume that is gone when the test is over.
func (s *suite) made() rds.Volume {
	s.Helper()
	v, err := s.array.Create(s.ctx, rds.NewVolume{Slot: s.slot(), Size: 4 * mib})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { s.dispose(v.Slot) })
	return v
}

func (s *suite) dispose(slot string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err := s.array.Update(ctx, slot, func(_ context.Context, v rds.Volume) (rds.Change, error) {
		if v.Ledger.Known {
			return rds.Unpublish(v, "", nil, s.now)
		}
		ledger := rds.Rebuild(v, nil, s.now)
		return rds.Change{Ledger: &ledger}, ledger.Check()
	})
	if err == nil {
		err = s.array.Delete(ctx, slot)
	}
	if err != nil && !errors.Is(err, rds.ErrNotFound) {
		s.Errorf("clean up: %v", err)
	}
}

func (s *suite) publishTo(slot, node string) rds.Volume {
	s.Helper()
	return s.update(slot, func(v rds.Volume) (rds.Change, error) {
		return rds.Publish(v, node, v.Ledger.Nodes(), s.now, rds.DefaultNQNPrefix)
	})
}

func (s *suite) unpublish(slot, node string) rds.Volume {
	s.Helper()
	return s.update(slot, func(v rds.Volume) (rds.Change, error) { return rds.Unpublish(v, node, nil, s.now) })
}

func (s *suite) update(slot string, decide func(rds.Volume) (rds.Change, error)) rds.Volume {
	s.Helper()
	v, err := s.array.Update(s.ctx, slot, func(_ context.Context, v rds.Volume) (rds.Change, error) { return decide(v) })
	if err != nil {
		s.Fatal(err)
	}
	if read, err := s.array.Volume(s.ctx, slot); err != nil || !same(read, v) {
		s.Fatalf("updated to %+v\nread afterwards %+v, %v", v, read, err)
	}
	return v
}

// same leaves out the name of an export that is off, which an array may hide.
func same(a, b rds.Volume) bool {
	return a.ID == b.ID && a.Slot == b.Slot && a.Size == b.Size && a.Path == b.Path && a.Port == b.Port &&
		a.Exported == b.Exported && a.Comment == b.Comment && (a.NQN == b.NQN || !a.Exported)
}

func (s *suite) wantErr(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func (s *suite) wantHolders(v rds.Volume, exported bool, nodes ...string) {
	s.Helper()
	if !v.Ledger.Known || strings.Join(v.Ledger.Nodes(), " ") != strings.Join(nodes, " ") || v.Exported != exported {
		s.Errorf("comment %q, exported %v; want holders %v, exported %v", v.Comment, v.Exported, nodes, exported)
	}
	if v.Ledger.String() != v.Comment {
		s.Errorf("the ledger %q is not what the comment %q says", v.Ledger, v.Comment)
	}
}

func (s *suite) create() {
	v := s.made()
	s.wantHolders(v, false)
	if v.Size != 4*mib || v.ID == "" || v.Port == 0 || !strings.HasPrefix(v.Path, "/") || !strings.Contains(v.Path, v.Slot) {
		s.Errorf("created %+v", v)
	}
	again, err := s.array.Create(s.ctx, rds.NewVolume{Slot: v.Slot, Size: v.Size})
	if err != nil || !same(v, again) {
		s.Errorf("a second time: %+v, %v", again, err)
	}
	_, err = s.array.Create(s.ctx, rds.NewVolume{Slot: v.Slot, Size: 2 * v.Size})
	s.wantErr("another size", err, rds.ErrExists)
	again, err = s.array.Create(s.ctx, rds.NewVolume{Slot: v.Slot, Size: v.Size / 2, Limit: 2 * v.Size})
	if err != nil || !same(v, again) {
		s.Errorf("another size that would do: %+v, %v", again, err)
	}
	s.publishTo(v.Slot, "node-a")
	if again, err = s.array.Create(s.ctx, rds.NewVolume{Slot: v.Slot, Size: v.Size}); err != nil || !again.Exported {
		s.Errorf("a second time, published: %+v, %v", again, err)
	}
}

func (s *suite) size() {
	view, err := s.array.View(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	_, err = s.array.Create(s.ctx, rds.NewVolume{Slot: s.slot(), Size: (view.Pool.Size/mib + 1) * mib})
	s.wantErr("larger than the pool", err, rds.ErrNoSpace)
	v := s.made()
	_, err = s.array.Update(s.ctx, v.Slot, func(context.Context, rds.Volume) (rds.Change, error) {
		return rds.Change{Size: view.Pool.Size + v.Size}, nil
	})
	s.wantErr("growing beyond the pool", err, rds.ErrNoSpace)
	if read, err := s.array.Volume(s.ctx, v.Slot); err != nil || !same(v, read) {
		s.Errorf("it became %+v, %v", read, err)
	}
}

func (s *suite) badRequests() {
	for _, slot := range []string{"", "a b", `a"b`, "a$b", "a;b", "a\nb", "a/b", "a.b", `a\b`, "Größe", "-a", strings.Repeat("a", 65)} {
		_, err := s.array.Create(s.ctx, rds.NewVolume{Slot: slot, Size: mib})
		s.wantErr("create "+slot, err, rds.ErrInvalid)
		_, err = s.array.Volume(s.ctx, slot)
		s.wantErr("read "+slot, err, rds.ErrInvalid)
		s.wantErr("delete "+slot, s.array.Delete(s.ctx, slot), rds.ErrInvalid)
	}
	for name, n := range map[string]rds.NewVolume{
		"nothing": {Slot: s.slot()}, "negative": {Slot: s.slot(), Size: -mib}, "odd": {Slot: s.slot(), Size: mib + 1},
		"long": {Slot: strings.Repeat("a", rds.MaxNewSlot+1), Size: mib},
	} {
		_, err := s.array.Create(s.ctx, n)
		s.wantErr(name, err, rds.ErrInvalid)
	}
}

func (s *suite) notFound() {
	slot := s.slot()
	_, err := s.array.Volume(s.ctx, slot)
	s.wantErr("read", err, rds.ErrNotFound)
	_, err = s.array.Update(s.ctx, slot, func(context.Context, rds.Volume) (rds.Change, error) {
		s.Error("decide was asked about a volume that does not exist")
		return rds.Change{}, nil
	})
	s.wantErr("update", err, rds.ErrNotFound)
	if err := s.array.Delete(s.ctx, slot); err != nil {
		s.Errorf("delete what is absent: %v", err)
	}
}

func (s *suite) publish() {
	slot := s.made().Slot
	first := s.publishTo(slot, "node-a")
	s.wantHolders(first, true, "node-a")
	if first.NQN == "" {
		s.Error("exported without a name")
	}
	s.now = s.now.Add(42 * time.Second)
	both := s.publishTo(slot, "node-b")
	s.wantHolders(both, true, "node-a", "node-b")
	if both.NQN != first.NQN {
		s.Errorf("the name changed from %s to %s under a running virtual machine", first.NQN, both.NQN)
	}
	if since, _ := both.Ledger.Since("node-b"); !since.Equal(s.now) {
		s.Errorf("node-b since %v, want %v", since, s.now)
	}
	s.wantHolders(s.unpublish(slot, "node-a"), true, "node-b")
	s.wantHolders(s.unpublish(slot, "node-a"), true, "node-b")
	s.wantHolders(s.unpublish(slot, "node-b"), false)
	s.wantHolders(s.unpublish(slot, "node-b"), false)
}

func (s *suite) rotation() {
	slot := s.made().Slot
	seen := map[string]bool{}
	comments := map[string]bool{}
	for range 4 {
		v := s.publishTo(slot, "node-a")
		if seen[v.NQN] || comments[v.Comment] {
			s.Errorf("NQN %s or comment %q came back", v.NQN, v.Comment)
		}
		seen[v.NQN], comments[v.Comment] = true, true
		// One joins and leaves: the comment must not be what it was before.
		s.publishTo(slot, "node-b")
		v = s.unpublish(slot, "node-b")
		if comments[v.Comment] {
			s.Errorf("comment %q came back", v.Comment)
		}
		comments[v.Comment] = true
		s.unpublish(slot, "node-a")
	}
}

func (s *suite) expand() {
	v := s.made()
	for _, exported := range []bool{false, true} {
		size := v.Size + 4*mib
		v = s.update(v.Slot, func(v rds.Volume) (rds.Change, error) { return rds.Expand(v, size) })
		if v.Size != size || v.Exported != exported {
			s.Errorf("expanded to %+v, want %d bytes, exported %v", v, size, exported)
		}
		v = s.publishTo(v.Slot, "node-a")
	}
	if again := s.update(v.Slot, func(v rds.Volume) (rds.Change, error) { return rds.Expand(v, v.Size) }); !same(v, again) {
		s.Errorf("expanding to the same size changed %+v to %+v", v, again)
	}
	_, err := s.array.Update(s.ctx, v.Slot, func(context.Context, rds.Volume) (rds.Change, error) { return rds.Change{Size: mib}, nil })
	s.wantErr("shrink", err, rds.ErrInvalid)
}

func (s *suite) refusal() {
	v := s.made()
	no := errors.New("no")
	_, err := s.array.Update(s.ctx, v.Slot, func(context.Context, rds.Volume) (rds.Change, error) { return rds.Change{}, no })
	s.wantErr("decide refuses", err, no)
	v = s.publishTo(v.Slot, "node-a")
	ledger := v.Ledger
	_, err = s.array.Update(s.ctx, v.Slot, func(context.Context, rds.Volume) (rds.Change, error) {
		return rds.Change{Ledger: &ledger, Export: rds.ExportOff}, nil
	})
	s.wantErr("switching off what is held", err, rds.ErrInUse)
	read, err := s.array.Volume(s.ctx, v.Slot)
	if err != nil || !same(v, read) {
		s.Errorf("refusals changed %+v to %+v, %v", v, read, err)
	}
}

func (s *suite) emptyChange() {
	v := s.publishTo(s.made().Slot, "node-a")
	if again := s.publishTo(v.Slot, "node-a"); !same(v, again) {
		s.Errorf("publishing again changed %+v to %+v", v, again)
	}
}

// staleView updates through a second handle behind the first one's back.
func (s *suite) staleView() {
	v := s.made()
	other, err := s.array.Volume(s.ctx, v.Slot)
	if err != nil || !same(v, other) {
		s.Fatalf("%+v, %v", other, err)
	}
	calls := 0
	got, err := s.array.Update(s.ctx, v.Slot, func(ctx context.Context, v rds.Volume) (rds.Change, error) {
		if calls++; calls == 1 {
			// Between reading and writing somebody else publishes it.
			if _, err := s.array.Update(ctx, v.Slot, func(_ context.Context, v rds.Volume) (rds.Change, error) {
				return rds.Publish(v, "node-b", nil, s.now, rds.DefaultNQNPrefix)
			}); err != nil {
				s.Error(err)
			}
		}
		return rds.Publish(v, "node-a", nil, s.now, rds.DefaultNQNPrefix)
	})
	if err != nil || calls < 2 {
		s.Fatalf("%v after %d decisions", err, calls)
	}
	s.wantHolders(got, true, "node-a", "node-b")
}

// foreign gives a volume an unreadable comment, as another plugin or an
// administrator would.
func (s *suite) foreign() {
	v := s.made()
	ledger := v.Ledger
	ledger.Foreign = `mind the "quotes", $dollars \and (brackets) [all] {of; them} ~ # ?`
	v = s.update(v.Slot, func(rds.Volume) (rds.Change, error) { return rds.Change{Ledger: &ledger}, nil })
	if v.Ledger.Foreign != ledger.Foreign {
		s.Errorf("the text became %q", v.Ledger.Foreign)
	}
	v = s.publishTo(v.Slot, "node-a")
	if v = s.unpublish(v.Slot, "node-a"); v.Ledger.Foreign != ledger.Foreign {
		s.Errorf("the text became %q", v.Ledger.Foreign)
	}
	long := v.Ledger
	long.Foreign = strings.Repeat("x", rds.MaxComment)
	_, err := s.array.Update(s.ctx, v.Slot, func(context.Context, rds.Volume) (rds.Change, error) { return rds.Change{Ledger: &long}, nil })
	s.wantErr("a comment too long", err, rds.ErrLedger)
}

func (s *suite) remove() {
	v := s.made()
	s.publishTo(v.Slot, "node-a")
	s.unpublish(v.Slot, "node-a")
	for _, what := range []string{"delete", "delete again"} {
		if err := s.array.Delete(s.ctx, v.Slot); err != nil {
			s.Errorf("%s: %v", what, err)
		}
		_, err := s.array.Volume(s.ctx, v.Slot)
		s.wantErr("read after "+what, err, rds.ErrNotFound)
	}
	again, err := s.array.Create(s.ctx, rds.NewVolume{Slot: v.Slot, Size: v.Size})
	if err != nil || again.Path == v.Path {
		s.Errorf("created again: %+v, %v; the image's name must be new", again, err)
	}
}

func (s *suite) removeInUse() {
	v := s.publishTo(s.made().Slot, "node-a")
	s.wantErr("delete", s.array.Delete(s.ctx, v.Slot), rds.ErrInUse)
	if read, err := s.array.Volume(s.ctx, v.Slot); err != nil || !same(v, read) {
		s.Errorf("it became %+v, %v", read, err)
	}
}

func (s *suite) removeUnknown() {
	v := s.made()
	unknown := rds.Ledger{}
	_, err := s.array.Update(s.ctx, v.Slot, func(context.Context, rds.Volume) (rds.Change, error) {
		return rds.Change{Ledger: &unknown, Export: rds.ExportOff}, nil
	})
	s.wantErr("writing an unknown ledger", err, rds.ErrLedger)
}

func (s *suite) view() {
	before, err := s.array.View(s.ctx)
	if err != nil || !before.Observed() || before.Version == "" || before.Pool.Size <= 0 || before.Pool.MountPoint == "" || before.Pool.FS == "" {
		s.Fatalf("%+v, %v", before, err)
	}
	v := s.publishTo(s.made().Slot, "node-a")
	after, err := s.array.View(s.ctx)
	if err != nil || !same(after.Volumes[v.Slot], v) {
		s.Errorf("the view shows %+v, %v, want %+v", after.Volumes[v.Slot], err, v)
	}
	if after.Pool.Allocated < v.Size {
		s.Errorf("%d bytes are promised, the volume alone has %d", after.Pool.Allocated, v.Size)
	}
}

func (s *suite) cancelled() {
	v := s.made()
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.array.View(ctx); err == nil {
		s.Error("a view without time to ask")
	}
	if read, err := s.array.Volume(s.ctx, v.Slot); err != nil || !same(v, read) {
		s.Errorf("afterwards %+v, %v", read, err)
	}
}
