package routeros_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	sim "git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// An operation is one method call and what must be so when it has succeeded.
type operation struct {
	fs      string
	prepare []call
	call    call
	holders []string
	size    int64 // 0: the volume is gone
	snaps   int   // snapshots there are afterwards
}

type call func(ctx context.Context, a *routeros.Array, slot string) error

func create(ctx context.Context, a *routeros.Array, slot string) error {
	_, err := a.Create(ctx, rds.NewVolume{Slot: slot, Size: gib})
	return err
}

func remove(ctx context.Context, a *routeros.Array, slot string) error { return a.Delete(ctx, slot) }

func update(decide rds.Decide) call {
	return func(ctx context.Context, a *routeros.Array, slot string) error {
		_, err := a.Update(ctx, slot, decide)
		return err
	}
}

// A copy takes two calls: one begins it, the next finds it whole.
func operations() map[string]operation {
	type steps = []call
	onA, onB := update(publishTo("node-a")), update(publishTo("node-b"))
	return map[string]operation{
		"Create xfs":          {"xfs", nil, create, nil, gib, 0},
		"Create btrfs":        {"btrfs", nil, create, nil, gib, 0},
		"Publish first":       {"xfs", steps{create}, onA, []string{"node-a"}, gib, 0},
		"Publish next":        {"xfs", steps{create, onA, update(unpublishFrom("node-a"))}, onB, []string{"node-b"}, gib, 0},
		"Publish second":      {"xfs", steps{create, onA}, onB, []string{"node-a", "node-b"}, gib, 0},
		"Publish, on already": {"xfs", steps{create, switchOn}, onA, []string{"node-a"}, gib, 0},
		"Unpublish one":       {"xfs", steps{create, onA, onB}, update(unpublishFrom("node-a")), []string{"node-b"}, gib, 0},
		"Unpublish last":      {"xfs", steps{create, onA}, update(unpublishFrom("node-a")), nil, gib, 0},
		"Expand":              {"xfs", steps{create}, update(expandTo(2 * gib)), nil, 2 * gib, 0},
		"Expand published":    {"xfs", steps{create, onA}, update(expandTo(2 * gib)), []string{"node-a"}, 2 * gib, 0},
		"Delete xfs":          {"xfs", steps{create}, remove, nil, 0, 0},
		"Delete btrfs":        {"btrfs", steps{create}, remove, nil, 0, 0},
		"Snapshot":            {"btrfs", steps{create}, snapshot, nil, gib, 1},
		"Snapshot, published": {"btrfs", steps{create, onA}, snapshot, []string{"node-a"}, gib, 1},
		"Restore":             {"btrfs", steps{source, snapshotSource}, restore(0), nil, gib, 1},
		"Restore larger":      {"btrfs", steps{source, snapshotSource}, restore(2 * gib), nil, 2 * gib, 1},
		"Clone":               {"btrfs", steps{source}, clone, nil, gib, 0},
		"Delete snapshot":     {"btrfs", steps{create, snapshot}, removeSnapshot, nil, gib, 0},
		"Delete copy":         {"xfs", steps{create, snapshot, snapshot}, removeSnapshot, nil, gib, 0},
		"Delete, snapshot":    {"btrfs", steps{create, snapshot}, remove, nil, 0, 1},
	}
}

// Snapshots and sources are named after the slot that an operation is about.

func snapshotID(slot string) string { return rds.SnapshotFor("of " + slot) }

func snapshot(ctx context.Context, a *routeros.Array, slot string) error {
	_, err := a.CreateSnapshot(ctx, rds.NewSnapshot{ID: snapshotID(slot), Source: slot})
	return err
}

func removeSnapshot(ctx context.Context, a *routeros.Array, slot string) error {
	return a.DeleteSnapshot(ctx, snapshotID(slot))
}

func sourceOf(slot string) string { return "src" + slot }

func source(ctx context.Context, a *routeros.Array, slot string) error {
	return create(ctx, a, sourceOf(slot))
}

func snapshotSource(ctx context.Context, a *routeros.Array, slot string) error {
	_, err := a.CreateSnapshot(ctx, rds.NewSnapshot{ID: snapshotID(slot), Source: sourceOf(slot)})
	return err
}

func restore(size int64) call {
	return func(ctx context.Context, a *routeros.Array, slot string) error {
		_, err := a.Create(ctx, rds.NewVolume{Slot: slot, Size: size, From: rds.Source{Snapshot: snapshotID(slot)}})
		return err
	}
}

func clone(ctx context.Context, a *routeros.Array, slot string) error {
	_, err := a.Create(ctx, rds.NewVolume{Slot: slot, From: rds.Source{Volume: sourceOf(slot)}})
	return err
}

// switchOn exports a volume that nobody holds, as an administrator might.
func switchOn(ctx context.Context, a *routeros.Array, slot string) error {
	_, err := a.Update(ctx, slot, func(_ context.Context, v rds.Volume) (rds.Change, error) {
		return rds.Change{Export: rds.ExportOn, NQN: rds.NQN(rds.DefaultNQNPrefix, slot, 1)}, nil
	})
	return err
}

// A theatre is an array on which one operation is played many times, each time
// with a volume of its own.
type theatre struct {
	op     operation
	server *sim.Server
	cfg    routeros.Config
	array  *routeros.Array
	plays  int
}

func open(t testing.TB, op operation) *theatre {
	t.Helper()
	server := simulate(t, op.fs, sim.Options{})
	cfg := config(t, server)
	cfg.CommandTimeout.Duration = time.Minute
	return &theatre{op: op, server: server, cfg: cfg, array: connect(t, cfg)}
}

// A stage has the operation prepared, and a client that is warm.
type stage struct {
	testing.TB
	*theatre
	slot   string
	array  *routeros.Array
	before int // commands so far
}

func (h *theatre) stage(t testing.TB) *stage {
	t.Helper()
	h.plays++
	s := &stage{TB: t, theatre: h, array: h.array, slot: fmt.Sprintf("pvc-%d", h.plays)}
	for _, step := range h.op.prepare {
		must(t, step(ctxOf(t), s.array, s.slot))
		must(t, h.server.WaitIdle(ctxOf(t))) // a copy is whole before it is asked about
	}
	_, err := s.array.View(ctxOf(t))
	must(t, err)
	s.before = h.server.Stats().Commands
	return s
}

// scripts are the commands of an undisturbed run.
func (h *theatre) scripts(t *testing.T) []sim.Command {
	s := h.stage(t)
	must(t, h.op.call(ctxOf(t), s.array, s.slot))
	log := h.server.Log()[s.before:]
	s.check()
	return log
}

// again calls until it succeeds, as a CO does; what it meets must be an error
// after which trying again is right.
func (s *stage) again(array *routeros.Array) {
	s.Helper()
	var err error
	for range 4 {
		if err = s.op.call(ctxOf(s), array, s.slot); err == nil {
			return
		}
		s.retryable(err)
	}
	s.Fatalf("still failing: %v", err)
}

func (s *stage) retryable(err error) {
	s.Helper()
	if err != nil && !errors.Is(err, rds.ErrUnknownOutcome) && !errors.Is(err, rds.ErrUnreachable) && !errors.Is(err, rds.ErrConflict) {
		s.Fatalf("not an error that leads to another try: %v", err)
	}
}

// check compares the array with what the operation promises, and then removes
// the volume: nothing may be left.
func (s *stage) check() {
	s.Helper()
	must(s, s.server.WaitIdle(ctxOf(s)))
	disk, exists := s.server.Disk(s.slot)
	if exists != (s.op.size > 0) {
		s.Fatalf("disk %+v, exists %v", disk, exists)
	}
	if exists {
		s.checkDisk(disk)
	}
	// Only now the names that the last operation may have left behind.
	for {
		v, err := s.array.Update(ctxOf(s), s.slot, unpublishFrom(""))
		if errors.Is(err, rds.ErrUnknownOutcome) {
			continue
		}
		if err != nil && !errors.Is(err, rds.ErrNotFound) || v.Exported {
			s.Fatalf("taking it from everybody: %+v, %v", v, err)
		}
		break
	}
	all, err := s.array.Snapshots(ctxOf(s))
	if err != nil || len(all) != s.op.snaps || len(all) > 0 && (all[0].ID != snapshotID(s.slot) || !all[0].Ready) {
		s.Errorf("%v, snapshots %+v, want %d", err, all, s.op.snaps)
	}
	must(s, removeSnapshot(ctxOf(s), s.array, s.slot))
	must(s, s.array.Delete(ctxOf(s), sourceOf(s.slot)))
	must(s, s.array.Delete(ctxOf(s), s.slot))
	s.checkEmpty()
}

func (s *stage) checkDisk(disk sim.Disk) {
	s.Helper()
	ledger := rds.ParseLedger(disk.Comment)
	if !ledger.Known || !slices.Equal(ledger.Nodes(), s.op.holders) && len(ledger.Nodes())+len(s.op.holders) > 0 {
		s.Errorf("the ledger says %q, want holders %v", disk.Comment, s.op.holders)
	}
	if disk.Exported != (len(s.op.holders) > 0) || disk.Size != s.op.size {
		s.Errorf("disk %+v, want %d bytes, exported %v", disk, s.op.size, len(s.op.holders) > 0)
	}
	if generation, ours := rds.GenerationOf(disk.NQN, s.slot); !ours || disk.Exported && generation == 0 || generation > ledger.Generation {
		s.Errorf("NQN %s with the ledger %q", disk.NQN, disk.Comment)
	}
	view, err := s.array.Volume(ctxOf(s), s.slot)
	if err != nil || view.Comment != disk.Comment || view.Path != "/"+disk.File {
		s.Errorf("the client sees %+v, %v instead of %+v", view, err, disk)
	}
	images := 0
	for _, f := range s.server.Files() {
		if strings.HasPrefix(f.Name, base+"/") && f.Type != "directory" {
			images++
		}
	}
	// The volume, its source if it has one, and the snapshots.
	want := len(s.server.Disks()) - 1 + s.op.snaps
	if images != want || s.op.fs == "btrfs" && len(s.server.Subvolumes()) != want {
		s.Errorf("want %d, left behind: %+v, %+v", want, s.server.Files(), s.server.Subvolumes())
	}
}

func (s *stage) checkEmpty() {
	s.Helper()
	for _, f := range s.server.Files() {
		if strings.HasPrefix(f.Name, base+"/") {
			s.Errorf("left behind: %+v", f)
		}
	}
	if len(s.server.Disks()) != 1 || len(s.server.Subvolumes()) != 0 {
		s.Errorf("left behind: %+v, %+v", s.server.Disks(), s.server.Subvolumes())
	}
}

// points are the faults at every point of one script.
func points(script sim.Command, index int) map[string]sim.Fault {
	out := map[string]sim.Fault{
		"before it is read":         {Kind: sim.CutBefore},
		"received":                  {Kind: sim.CutReceived},
		"received, running on":      {Kind: sim.CutReceived, RunOn: true},
		"before the answer":         {Kind: sim.CutBeforeAnswer},
		"in the answer":             {Kind: sim.CutMidAnswer},
		"received, held, run later": {Kind: sim.CutAtStep, Steps: 0, Hold: true},
		"answered with nothing":     {Kind: sim.Answer},
	}
	for i := range script.Steps {
		at := fmt.Sprintf("at statement %d %s", i, script.Steps[i].Name)
		out[at+", stopping"] = sim.Fault{Kind: sim.CutAtStep, Steps: i}
		out[at+", running on"] = sim.Fault{Kind: sim.CutAtStep, Steps: i, RunOn: true}
		out[at+", held"] = sim.Fault{Kind: sim.CutAtStep, Steps: i, Hold: true}
	}
	for name, f := range out {
		f.Skip = index
		out[name] = f
	}
	return out
}

// everyScript hands every script of every operation to walk; operations are walked
// side by side.
func everyScript(t *testing.T, walk func(t *testing.T, h *theatre, script sim.Command, index int)) {
	for name, op := range operations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := open(t, op)
			for index, script := range h.scripts(t) {
				walk(t, h, script, index)
			}
		})
	}
}

// TestWalk stops the array, or cuts the connection, at every point of every
// script of every operation. The call is then repeated, by the same client or by one
// that was started anew, and must end right, without anything left behind.
func TestWalk(t *testing.T) {
	var walked atomic.Int64
	t.Run("points", func(t *testing.T) {
		everyScript(t, func(t *testing.T, h *theatre, script sim.Command, index int) {
			for at, fault := range points(script, index) {
				for _, restarted := range []bool{false, true} {
					if testing.Short() && restarted == (fault.Steps%2 == 0) {
						continue // half of them
					}
					walked.Add(1)
					label := fmt.Sprintf("script %d, %s, restarted %v", index, at, restarted)
					t.Run(label, func(t *testing.T) { h.walkTo(t, fault, restarted) })
				}
			}
		})
	})
	t.Logf("%d points", walked.Load())
}

func (h *theatre) walkTo(t *testing.T, fault sim.Fault, restarted bool) {
	s := h.stage(t)
	injection, err := s.server.Inject(fault)
	must(t, err)
	defer injection.Remove()
	s.retryable(s.op.call(ctxOf(t), s.array, s.slot))
	if restarted {
		s.array = connect(t, s.cfg)
	}
	s.again(s.array)
	injection.Release()
	s.check()
	if injection.Hits() != 1 {
		t.Errorf("the fault hit %d commands", injection.Hits())
	}
}

// TestInterleave holds a script whose connection was cut at each of its
// statements, lets the retry run up to each of its own, and lets the first one
// finish there.
func TestInterleave(t *testing.T) {
	var walked atomic.Int64
	t.Run("points", func(t *testing.T) {
		everyScript(t, func(t *testing.T, h *theatre, script sim.Command, index int) {
			for i := range script.Steps {
				for j := range script.Steps {
					if !beside(script.Steps, i) && i > 0 || !beside(script.Steps, j) {
						continue
					}
					walked.Add(1)
					t.Run(fmt.Sprintf("script %d, first at %d, retry at %d", index, i, j), func(t *testing.T) { h.interleave(t, index, i, j) })
				}
			}
		})
	})
	t.Logf("%d interleavings", walked.Load())
}

// beside picks the statements next to one that changes something.
func beside(steps []sim.Step, i int) bool {
	return steps[i].Mutates || i > 0 && steps[i-1].Mutates || i+1 < len(steps) && steps[i+1].Mutates
}

func (h *theatre) interleave(t *testing.T, index, i, j int) {
	s := h.stage(t)
	defer s.server.ClearFaults()
	first, err := s.server.Inject(sim.Fault{Kind: sim.CutAtStep, Skip: index, Steps: i, Hold: true})
	must(t, err)
	s.retryable(s.op.call(ctxOf(t), s.array, s.slot))
	mutating := func(text string) bool {
		return strings.Contains(text, ":if (") && !strings.Contains(text, "/system/resource")
	}
	second, err := s.server.Inject(sim.Fault{Kind: sim.Pause, Match: mutating, Steps: j})
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- s.op.call(ctxOf(t), s.array, s.slot) }()
	select {
	case <-second.Reached():
		first.Release()
		waitEnded(t, s.server)
		second.Release()
		err = <-done
	case err = <-done: // it did not come to that statement, and nothing later is meant
		second.Remove()
		first.Release()
	}
	if err != nil {
		s.retryable(err)
		s.again(s.array)
	}
	s.check()
}

// waitEnded waits until only the paused script runs.
func waitEnded(t testing.TB, server *sim.Server) {
	t.Helper()
	for server.Stats().Running > 1 {
		select {
		case <-ctxOf(t).Done():
			t.Fatal("the first script does not end")
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// TestHang lets the array fall silent, and the caller's patience end.
func TestHang(t *testing.T) {
	everyScript(t, func(t *testing.T, h *theatre, _ sim.Command, index int) {
		for _, kind := range []sim.FaultKind{sim.HangBefore, sim.HangAfter} {
			t.Run(fmt.Sprintf("script %d, %s", index, kind), func(t *testing.T) {
				s := h.stage(t)
				hung, err := s.server.Inject(sim.Fault{Kind: kind, Skip: index})
				must(t, err)
				s.retryable(s.op.call(until(t, hung), s.array, s.slot))
				s.again(s.array)
				s.check()
			})
		}
	})
}

// until is a context that ends when the fault is reached.
func until(t testing.TB, fault *sim.Injection) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(ctxOf(t))
	go func() {
		select {
		case <-fault.Reached():
		case <-ctx.Done():
		}
		cancel()
	}()
	return ctx
}
