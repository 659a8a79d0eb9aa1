package routeros_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	sim "git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// runOn runs a line on the array as its administrator.
func runOn(t testing.TB, server *sim.Server, line string) {
	t.Helper()
	_, err := server.Run(ctxOf(t), line)
	must(t, err)
}

func published(t *testing.T, fs string) (*sim.Server, *routeros.Array) {
	t.Helper()
	server := simulate(t, fs, sim.Options{})
	array := connect(t, config(t, server))
	must(t, create(ctxOf(t), array, slot))
	_, err := array.Update(ctxOf(t), slot, publishTo("node-a"))
	must(t, err)
	return server, array
}

// TestLedgerErased erases or garbles the ledger of a published volume: nobody
// knows who holds it, so its export stays on and it is not deleted.
func TestLedgerErased(t *testing.T) {
	for name, comment := range map[string]string{"erased": "", "garbled": "rds1 gx", "foreign": "backup nightly", "not ASCII": "Größe"} {
		t.Run(name, func(t *testing.T) {
			server, array := published(t, "xfs")
			runOn(t, server, fmt.Sprintf("/disk/comment [find slot=%s] comment=%s", slot, routeros.Quote(comment)))
			before, _ := server.Disk(slot)
			seen := rds.Ledger{Known: true}
			_, err := array.Update(ctxOf(t), slot, func(_ context.Context, v rds.Volume) (rds.Change, error) {
				if seen = v.Ledger; v.Ledger.Known {
					return rds.Change{Export: rds.ExportOff, Ledger: &rds.Ledger{Known: true}}, nil // from the remembered view
				}
				return rds.Change{Export: rds.ExportOff, Ledger: &rds.Ledger{Known: true}}, nil
			})
			if !errors.Is(err, rds.ErrInUse) || seen.Known {
				t.Errorf("switching off: %v, on the ledger %+v", err, seen)
			}
			if err := array.Delete(ctxOf(t), slot); !errors.Is(err, rds.ErrLedger) {
				t.Errorf("delete: %v", err)
			}
			if after, _ := server.Disk(slot); after != before {
				t.Errorf("it became %+v", after)
			}
			if name == "not ASCII" {
				return
			}
			v, err := array.Update(ctxOf(t), slot, unpublishFrom("node-a"))
			if err != nil || !v.Exported || !v.Ledger.Known {
				t.Errorf("unpublish rebuilds the ledger and leaves the export on: %+v, %v", v, err)
			}
		})
	}
}

// TestNameOfIdleExport erases the ledger of a volume that is not exported: its
// last NQN is found out, and not used a second time by accident.
func TestNameOfIdleExport(t *testing.T) {
	server, array := published(t, "xfs")
	_, err := array.Update(ctxOf(t), slot, unpublishFrom("node-a"))
	must(t, err)
	runOn(t, server, fmt.Sprintf(`/disk/comment [find slot=%s] comment=""`, slot))
	v, err := array.Update(ctxOf(t), slot, unpublishFrom("node-a")) // rebuilds
	if err != nil || v.Ledger.Generation < 1 {
		t.Fatalf("rebuilt as %+v, %v", v, err)
	}
	v, err = array.Update(ctxOf(t), slot, publishTo("node-b"))
	if generation, ours := rds.GenerationOf(v.NQN, slot); err != nil || !ours || generation <= 1 {
		t.Errorf("published as %+v, %v: the name was used before", v, err)
	}
}

// TestSwitchedOffByHand has an administrator switch off an export that a node holds: the
// name that its host knocks at stays, whoever is published next.
func TestSwitchedOffByHand(t *testing.T) {
	for _, next := range []string{"node-a", "node-b"} {
		t.Run(next, func(t *testing.T) {
			server, _ := published(t, "xfs")
			held, _ := server.Disk(slot)
			runOn(t, server, fmt.Sprintf("/disk/set [find slot=%s] nvme-tcp-export=no", slot))
			array := connect(t, config(t, server))
			v, err := array.Update(ctxOf(t), slot, publishTo(next))
			if disk, _ := server.Disk(slot); err != nil || v.NQN != held.NQN || disk.NQN != held.NQN || !disk.Exported {
				t.Errorf("%v: %+v, on the array %+v, was held as %s", err, v, disk, held.NQN)
			}
		})
	}
}

// TestOtherPlugin takes over a volume of the other plugin, whose name and image stay.
func TestOtherPlugin(t *testing.T) {
	const handle = "pvc-3c4e8a2e-0000-4000-8000-000000000001"
	const nqn = rds.DefaultNQNPrefix + ":" + handle
	server := simulate(t, "xfs", sim.Options{})
	addDisk(t, server, handle, base+"/"+handle+".img", map[string]string{"nvme-tcp-export": "yes", "nvme-tcp-server-nqn": nqn})
	array := connect(t, config(t, server))
	for range 2 {
		v, err := array.Update(ctxOf(t), handle, publishTo("node-a"))
		if err != nil || v.NQN != nqn || !v.Exported || !v.Ledger.Holds("node-a") {
			t.Fatalf("published %+v, %v", v, err)
		}
		v, err = array.Update(ctxOf(t), handle, unpublishFrom("node-a"))
		if err != nil || v.Exported {
			t.Fatalf("unpublished %+v, %v", v, err)
		}
	}
	v, err := array.Update(ctxOf(t), handle, expandTo(4*gib))
	if err != nil || v.Size != 4*gib {
		t.Errorf("expanded %+v, %v", v, err)
	}
	must(t, array.Delete(ctxOf(t), handle))
	if _, there := server.File(base + "/" + handle + ".img"); there || len(server.Disks()) != 1 {
		t.Error("its image is still there")
	}
}

// TestExpandWithoutLedger grows a volume whose comment is not touched.
func TestExpandWithoutLedger(t *testing.T) {
	server := simulate(t, "xfs", sim.Options{})
	addDisk(t, server, slot, base+"/"+slot+".img", map[string]string{"nvme-tcp-export": "yes"})
	v, err := connect(t, config(t, server)).Update(ctxOf(t), slot, expandTo(4*gib))
	if disk, _ := server.Disk(slot); err != nil || v.Size != 4*gib || disk.Size != 4*gib || disk.Comment != "" {
		t.Errorf("%+v, %v, on the array %+v", v, err, disk)
	}
}

// TestFence cuts off a change that has not begun on the array, does something
// else, and lets it run then: it must find its comparison failed.
func TestFence(t *testing.T) {
	onA, offA, onB, offB := update(publishTo("node-a")), update(unpublishFrom("node-a")), update(publishTo("node-b")), update(unpublishFrom("node-b"))
	for name, tc := range map[string]struct {
		prepare []call
		late    call // cut off, and run at the end
		then    []call
		holders string
	}{
		"off, then on again":      {[]call{onA}, offA, []call{onA}, "node-a"},
		"off, off, then another":  {[]call{onA}, offA, []call{offA, onB}, "node-b"},
		"on, then given up":       {nil, onA, []call{offA}, ""},
		"on, given up, another":   {nil, onA, []call{offA, onB}, "node-b"},
		"second, then given up":   {[]call{onA}, onB, []call{offB}, "node-a"},
		"second, on, off":         {[]call{onA}, onB, []call{onB, offB}, "node-a"},
		"one of two, then back":   {[]call{onA, onB}, offB, []call{onB}, "node-a node-b"},
		"expansion, then another": {nil, update(expandTo(2 * gib)), []call{update(expandTo(3 * gib))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := simulate(t, "xfs", sim.Options{})
			array := connect(t, config(t, server))
			for _, step := range append([]call{create}, tc.prepare...) {
				must(t, step(ctxOf(t), array, slot))
			}
			late, err := server.Inject(sim.Fault{Kind: sim.CutAtStep, Steps: 0, Hold: true})
			must(t, err)
			if err := tc.late(ctxOf(t), array, slot); !errors.Is(err, rds.ErrUnknownOutcome) {
				t.Fatalf("cut off: %v", err)
			}
			for _, step := range tc.then {
				must(t, step(ctxOf(t), array, slot))
			}
			before, _ := server.Disk(slot)
			late.Release()
			must(t, server.WaitIdle(ctxOf(t)))
			after, _ := server.Disk(slot)
			if after != before {
				t.Errorf("the late script changed\n%+v to\n%+v", before, after)
			}
			if got := strings.Join(rds.ParseLedger(after.Comment).Nodes(), " "); got != tc.holders || after.Exported != (tc.holders != "") {
				t.Errorf("%+v, want holders %q", after, tc.holders)
			}
		})
	}
}

// TestTrips counts what the budget allows, and that a connection lost in between
// goes unnoticed.
func TestTrips(t *testing.T) {
	server, array := published(t, "xfs")
	trips := func(what string, want uint64, do func() error) {
		t.Helper()
		before := array.RoundTrips()
		must(t, do())
		if got := array.RoundTrips() - before; got != want {
			t.Errorf("%s: %d round trips, want %d", what, got, want)
		}
	}
	on := func(node string) func() error {
		return func() error { _, err := array.Update(ctxOf(t), slot, publishTo(node)); return err }
	}
	off := func(node string) func() error {
		return func() error { _, err := array.Update(ctxOf(t), slot, unpublishFrom(node)); return err }
	}
	trips("publish second", 1, on("node-b"))
	trips("publish again", 1, on("node-b"))
	trips("unpublish one", 1, off("node-a"))
	runOn(t, server, fmt.Sprintf("/disk/comment [find slot=%s] comment=\"rds1 g40 node-b=5 | edited\"", slot))
	trips("unpublish on a stale view", 2, off("node-b"))
	trips("publish first", 1, on("node-a"))
	server.CutAll()
	trips("publish second on a dead connection", 1, on("node-b"))
	if disk, _ := server.Disk(slot); !strings.HasSuffix(disk.Comment, "| edited") || !disk.Exported {
		t.Errorf("%+v", disk)
	}
}

// TestDeadConnection kills the idle connection in ways that the client sees at
// once, and in ways it sees only when it uses it.
func TestDeadConnection(t *testing.T) {
	server, array := published(t, "xfs")
	for range 5 {
		server.CutAll()
		if _, err := array.Volume(ctxOf(t), slot); err != nil {
			t.Errorf("a connection lost while idle: %v", err)
		}
	}
	must(t, server.Down())
	if _, err := array.Volume(ctxOf(t), slot); !errors.Is(err, rds.ErrUnreachable) {
		t.Errorf("rebooting: %v", err)
	}
	must(t, server.Up())
	if _, err := array.Volume(ctxOf(t), slot); err != nil {
		t.Errorf("after the reboot: %v", err)
	}
}

// TestNeighbours hangs one command: those beside it on the connection finish.
func TestNeighbours(t *testing.T) {
	server, array := published(t, "xfs")
	hung, err := server.Inject(sim.Fault{Kind: sim.HangBefore, Pattern: "pvc-hangs"})
	must(t, err)
	paused, err := server.Inject(sim.Fault{Kind: sim.Pause, Steps: 3, Pattern: slot})
	must(t, err)
	var neighbour, silent error
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(ctxOf(t))
	group.Go(func() { _, neighbour = array.Update(ctxOf(t), slot, publishTo("node-b")) })
	group.Go(func() { _, silent = array.Volume(ctx, "pvc-hangs") })
	<-hung.Reached()
	<-paused.Reached()
	cancel()
	if _, err := array.View(ctxOf(t)); err != nil {
		t.Errorf("a new connection beside the one that hangs: %v", err)
	}
	paused.Release()
	group.Wait()
	if neighbour != nil || !errors.Is(silent, rds.ErrUnreachable) || !errors.Is(silent, context.Canceled) {
		t.Errorf("the neighbour %v, the hanging one %v", neighbour, silent)
	}
}

// TestConcurrency runs many volumes through their lives over few channels.
func TestConcurrency(t *testing.T) {
	server := simulate(t, "btrfs", sim.Options{})
	cfg := config(t, server)
	cfg.MaxChannels = 3
	var mu sync.Mutex
	results := map[string]int{}
	array := connect(t, cfg, routeros.WithObserver(func(verb, result string, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		results[verb+" "+result]++
	}))
	var group errgroup.Group
	for i := range 24 {
		group.Go(func() error {
			name := fmt.Sprintf("pvc-%d", i)
			for _, step := range []call{create, update(publishTo("node-a")), update(publishTo("node-b")), update(unpublishFrom("node-a")), update(unpublishFrom("node-b")), remove} {
				if err := step(ctxOf(t), array, name); err != nil {
					return err
				}
			}
			_, err := array.View(ctxOf(t))
			return err
		})
	}
	must(t, group.Wait())
	if stats := server.Stats(); stats.Connections != 1 || uint64(stats.Commands) != array.RoundTrips() {
		t.Errorf("%+v, %d round trips", stats, array.RoundTrips())
	}
	mu.Lock()
	defer mu.Unlock()
	if results["create ok"] != 24 || results["update ok"] < 24*4 {
		t.Errorf("observed %v", results)
	}
	for what := range results {
		if !strings.HasSuffix(what, " ok") {
			t.Errorf("observed %s", what)
		}
	}
}

// TestOvercommit lets more creations at once than fit: no promise is broken.
func TestOvercommit(t *testing.T) {
	server := simulate(t, "xfs", sim.Options{})
	cfg := config(t, server)
	cfg.ReserveBytes = 100*gib - 5*gib
	array := connect(t, cfg)
	_, err := array.View(ctxOf(t))
	must(t, err)
	var group sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 16 {
		group.Go(func() {
			_, err := array.Create(ctxOf(t), rds.NewVolume{Slot: fmt.Sprintf("pvc-%d", i), Size: gib})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if !errors.Is(err, rds.ErrNoSpace) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if made > 5 || made == 0 || len(server.Disks()) != made+1 {
		t.Errorf("%d volumes of 1 GiB on 5 GiB, %d disks", made, len(server.Disks()))
	}
}

// TestNoLeak leaves no goroutine behind, whatever happened on the way.
func TestNoLeak(t *testing.T) {
	server := simulate(t, "xfs", sim.Options{})
	cfg := config(t, server)
	before := runtime.NumGoroutine()
	for _, kind := range []sim.FaultKind{sim.HangBefore, sim.HangAfter, sim.CutBefore, sim.CutMidAnswer} {
		array, err := routeros.New(cfg)
		must(t, err)
		fault, err := server.Inject(sim.Fault{Kind: kind})
		must(t, err)
		_, _ = array.View(until(t, fault)) // any outcome
		_, err = array.View(ctxOf(t))
		must(t, err)
		must(t, array.Close())
		must(t, array.Close())
	}
	server.CutAll()
	must(t, server.WaitIdle(ctxOf(t)))
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines became %d\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// TestCommandTimeout ends a command that the caller would wait for.
func TestCommandTimeout(t *testing.T) {
	server := simulate(t, "xfs", sim.Options{})
	cfg := config(t, server)
	cfg.CommandTimeout.Duration = 100 * time.Millisecond
	_, err := server.Inject(sim.Fault{Kind: sim.HangBefore, Times: -1})
	must(t, err)
	_, err = connect(t, cfg).View(context.Background())
	wantNothing(t, nil, err, rds.ErrUnreachable)
}

// TestCloseInFlight ends what is under way.
func TestCloseInFlight(t *testing.T) {
	server := simulate(t, "xfs", sim.Options{})
	array := connect(t, config(t, server))
	hung, err := server.Inject(sim.Fault{Kind: sim.HangBefore})
	must(t, err)
	result := make(chan error, 1)
	go func() { _, err := array.View(context.Background()); result <- err }()
	<-hung.Reached()
	must(t, array.Close())
	if err := <-result; !errors.Is(err, rds.ErrUnreachable) {
		t.Errorf("a read under way: %v", err)
	}
}

// FuzzQuote has the simulator's own lexer read back what was quoted.
func FuzzQuote(f *testing.F) {
	for _, seed := range []string{"", "a", `"`, `\`, "$x", `\"$(:put 1)`, "a\r\nb", "\x00\xff", "Größe", "?_", "[find]", ";}{", "\t"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		quoted := routeros.Quote(text)
		if got, ok := sim.Unquote(quoted); !ok || got != text {
			t.Errorf("%q is quoted as %s, which reads %q, %v", text, quoted, got, ok)
		}
		if strings.ContainsFunc(quoted, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is quoted as %q, which is not one printable line", text, quoted)
		}
	})
}
