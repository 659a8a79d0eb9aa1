package routeros_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	sim "git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// A job is a copy that an array makes in the background, and what asks for it.
type job struct {
	*testing.T
	server *sim.Server
	array  *routeros.Array
	clock  *clocktesting.FakeClock
	ask    func() error // nil when it is there
	remove func() error // takes it back
	from   string       // slot of what is copied
	there  int64        // bytes on the pool before
	takes  int64        // bytes that are asked for
}

var errNotReady = errors.New("not ready")

// jobs are all of them: each with its source made, and written to.
func jobs(t *testing.T) map[string]func(t *testing.T) *job {
	t.Helper()
	prepare := func(t *testing.T) *job {
		clock := clocktesting.NewFakeClock(time.Unix(1760000000, 0))
		server := simulate(t, "xfs", sim.Options{Clock: clock})
		j := &job{T: t, server: server, clock: clock, from: slot, there: gib, takes: gib, array: connect(t, config(t, server), routeros.WithClock(clock))}
		v, err := j.array.Create(ctxOf(t), rds.NewVolume{Slot: slot, Size: gib})
		must(t, err)
		must(t, server.SetContent(v.Path[1:], "monday"))
		return j
	}
	asking := func(j *job, n rds.NewVolume) {
		j.ask = func() error {
			_, err := j.array.Create(ctxOf(j), n)
			return err
		}
		j.remove = func() error { return j.array.Delete(ctxOf(j), n.Slot) }
	}
	return map[string]func(t *testing.T) *job{
		"snapshot": func(t *testing.T) *job {
			j := prepare(t)
			j.ask = func() error { return j.snapshot() }
			j.remove = func() error { return j.array.DeleteSnapshot(ctxOf(j), snapshotID(slot)) }
			return j
		},
		"clone": func(t *testing.T) *job {
			j := prepare(t)
			asking(j, rds.NewVolume{Slot: "pvc-made", From: rds.Source{Volume: slot}})
			return j
		},
		"restore": func(t *testing.T) *job {
			j := prepare(t)
			j.finish(j.snapshot)
			j.from, j.there, j.takes = "", 2*gib, 2*gib
			asking(j, rds.NewVolume{Slot: "pvc-made", Size: 2 * gib, From: rds.Source{Snapshot: snapshotID(slot)}})
			return j
		},
	}
}

func (j *job) snapshot() error {
	s, err := j.array.CreateSnapshot(ctxOf(j), rds.NewSnapshot{ID: snapshotID(slot), Source: slot})
	if err == nil && !s.Ready {
		return errNotReady
	}
	return err
}

// jobPatience is longer than a copy may take to be seen.
const jobPatience = time.Minute

// finish asks until it is there, each time when nothing runs any more.
func (j *job) finish(ask func() error) {
	j.Helper()
	var err error
	for range 5 {
		if err = ask(); err == nil {
			return
		}
		if !errors.Is(err, errNotReady) && !errors.Is(err, rds.ErrUnderWay) && !errors.Is(err, rds.ErrConflict) && !errors.Is(err, rds.ErrFailed) {
			j.Fatal(err)
		}
		must(j, j.server.WaitIdle(ctxOf(j)))
		j.clock.Step(jobPatience) // one that has ended by now will not be seen any more
	}
	j.Fatalf("still %v; jobs %+v", err, j.server.Jobs())
}

// stopAt holds the next job ahead of a step, and returns when it is there. release
// lets it go on.
func (j *job) stopAt(step int) (reached bool, release func()) {
	j.Helper()
	held, end := make(chan struct{}), make(chan struct{})
	first := 0
	j.server.OnStep(func(ctx context.Context, c sim.Command, s sim.Step) {
		if !c.Job || s.Index != step || first != 0 && first != c.Seq {
			return
		}
		first = c.Seq
		close(held)
		select {
		case <-end:
		case <-ctx.Done():
		}
	})
	if err := j.ask(); err != nil && !errors.Is(err, errNotReady) && !errors.Is(err, rds.ErrUnderWay) {
		j.Fatal(err)
	}
	idle := make(chan error, 1)
	go func() { idle <- j.server.WaitIdle(ctxOf(j)) }()
	select {
	case <-held:
		return true, func() { close(end) }
	case err := <-idle:
		must(j, err)
		return false, func() {}
	}
}

// check compares the array with what was asked for, and cleans up: nothing may
// be left.
func (j *job) check() {
	j.Helper()
	must(j, j.server.WaitIdle(ctxOf(j)))
	j.server.OnStep(nil)
	images := 0
	for _, f := range j.server.Files() {
		if strings.HasSuffix(f.Name, ".img") {
			images++
			if f.Content != "monday" {
				j.Errorf("%s holds %q", f.Name, f.Content)
			}
		} else if strings.HasPrefix(f.Name, base+"/") {
			j.Errorf("left behind: %s", f.Name)
		}
	}
	snaps, err := j.array.Snapshots(ctxOf(j))
	must(j, err)
	if want := len(j.server.Disks()) - 1 + len(snaps); images != want {
		j.Errorf("%d images, want %d", images, want)
	}
	for _, s := range snaps {
		must(j, j.array.DeleteSnapshot(ctxOf(j), s.ID))
	}
	for _, s := range []string{"pvc-made", slot} {
		must(j, j.array.Delete(ctxOf(j), s))
	}
	for _, f := range j.server.Files() {
		if strings.HasPrefix(f.Name, base+"/") {
			j.Errorf("left behind at the end: %s", f.Name)
		}
	}
}

// eachStep plays a job up to each of its steps.
func eachStep(t *testing.T, play func(j *job, release func())) {
	t.Helper()
	for name, open := range jobs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for step, more := 0, true; more; step++ {
				t.Run(fmt.Sprintf("step %d", step), func(t *testing.T) {
					j := open(t)
					var release func()
					if more, release = j.stopAt(step); more {
						play(j, release)
					}
				})
			}
		})
	}
}

// While a copy is under way nothing is ready, and no second one is begun, by this
// client, also while the copy does not show yet, or by one that was started anew.
func TestCopyUnderWay(t *testing.T) {
	eachStep(t, func(j *job, release func()) {
		before, shows := len(j.server.Jobs()), j.part()
		for i := range 2 {
			err := j.ask()
			if (shows || i == 0) && err != nil && !errors.Is(err, errNotReady) && !errors.Is(err, rds.ErrUnderWay) {
				j.Fatal(err)
			}
			j.array = connect(j.T, config(j.T, j.server), routeros.WithClock(j.clock))
		}
		if began := len(j.server.Jobs()) - before; shows && began > 0 {
			j.Errorf("%d more copies were begun", began)
		}
		release()
		j.finish(j.ask)
		j.check()
	})
}

// part reports whether a copy that is not whole shows on the array.
func (j *job) part() bool {
	return slices.ContainsFunc(j.server.Files(), func(f sim.File) bool { return strings.HasSuffix(f.Name, ".part") })
}

// The pool has room for what is asked for, and not for half as much again. The copy
// itself is no reason to refuse it, to this client or to one that was started anew,
// while it is under way or when it is whole.
func TestCopyOnTightPool(t *testing.T) {
	eachStep(t, func(j *job, release func()) {
		must(j, j.server.SetPoolUsed("raid10", 100*gib-j.there-j.takes-gib/2))
		askAgain := func(when string) {
			for _, client := range []string{"again", "anew"} {
				_, err := j.array.View(ctxOf(j)) // as the poller does
				must(j, err)
				if err := j.ask(); err != nil && !errors.Is(err, errNotReady) && !errors.Is(err, rds.ErrUnderWay) {
					j.Errorf("%s, asked %s: %v", when, client, err)
				}
				j.array = connect(j.T, config(j.T, j.server), routeros.WithClock(j.clock))
			}
		}
		began := len(j.server.Jobs())
		if j.part() {
			askAgain("under way")
		}
		release()
		must(j, j.server.WaitIdle(ctxOf(j)))
		askAgain("whole")
		if n := len(j.server.Jobs()) - began; n > 0 {
			j.Errorf("%d more copies were begun", n)
		}
		must(j, j.ask())
		must(j, j.server.SetPoolUsed("raid10", 0))
		j.check()
	})
}

// The array restarts at each step of a copy; what was asked for comes to be, and
// nothing of the first attempt is left.
func TestCopyCutShort(t *testing.T) {
	eachStep(t, func(j *job, _ func()) {
		must(j, j.server.Down())
		must(j, j.server.WaitIdle(ctxOf(j)))
		j.server.OnStep(nil)
		j.clock.Step(time.Minute)
		must(j, j.server.Up())
		j.array = connect(j.T, config(j.T, j.server), routeros.WithClock(j.clock))
		j.finish(j.ask)
		j.check()
	})
}

// A virtual machine starts on the source while it is copied: it is not kept
// waiting, and what was copied is not used.
func TestCopyOfWhatIsPublishedMeanwhile(t *testing.T) {
	eachStep(t, func(j *job, release func()) {
		if j.from == "" {
			release()
			return
		}
		whole := func() bool {
			_, made := j.server.Disk("pvc-made")
			for _, f := range j.server.Files() {
				made = made || strings.HasPrefix(f.Name, base+"/_") && strings.HasSuffix(f.Name, ".img")
			}
			return made
		}
		already := whole()
		v, err := j.array.Update(ctxOf(j), j.from, publishTo("node-a"))
		must(j, err)
		must(j, j.server.SetContent(v.Path[1:], "tuesday"))
		checked := already || j.checked()
		release()
		must(j, j.server.WaitIdle(ctxOf(j)))
		if whole() && !checked {
			j.Errorf("a copy was used although its source was published before it was whole")
		}
		_, err = j.array.Update(ctxOf(j), j.from, unpublishFrom("node-a"))
		must(j, err)
		must(j, j.server.SetContent(v.Path[1:], "monday"))
		j.finish(j.ask)
		j.check()
	})
}

// checked reports whether the job had already found its source untouched, which
// it looks at when its copy is whole.
func (j *job) checked() bool {
	jobs := j.server.Jobs()
	return slices.ContainsFunc(jobs[len(jobs)-1].Steps, func(s sim.Step) bool {
		return s.Name == "/disk/find" && strings.Contains(s.Text, "comment~")
	})
}

// The array has no room for the copy, or cannot copy at all.
func TestCopyFails(t *testing.T) {
	for name, open := range jobs(t) {
		t.Run(name, func(t *testing.T) {
			j := open(t)
			must(t, j.server.FillPool("raid10"))
			// What was remembered of the pool let it begin.
			if err := j.ask(); !errors.Is(err, errNotReady) && !errors.Is(err, rds.ErrUnderWay) {
				t.Errorf("on a pool that has filled up: %v", err)
			}
			must(t, j.server.WaitIdle(ctxOf(t)))
			j.clock.Step(jobPatience)
			for range 2 {
				if err := j.ask(); !errors.Is(err, rds.ErrNoSpace) {
					t.Errorf("after the copy has failed: %v", err)
				}
			}
			if jobs := j.server.Jobs(); jobs[len(jobs)-1].Outcome != sim.Succeeded || !strings.Contains(jobs[len(jobs)-1].Text, ":log error") {
				t.Errorf("%+v", jobs)
			}
			must(t, j.server.SetPoolUsed("raid10", 0))
			j.finish(j.ask)
			j.check()
		})
	}
}

// Before 7.23 there is no /file/copy. Nothing is begun that could only fail.
func TestCopyUnsupported(t *testing.T) {
	for name, open := range jobs(t) {
		t.Run(name, func(t *testing.T) {
			j := open(t)
			before := len(j.server.Jobs())
			j.server.Configure(func(s *sim.Settings) { s.Version = "7.22.1 (stable)" })
			j.array = connect(t, config(t, j.server), routeros.WithClock(j.clock))
			if err := j.ask(); !errors.Is(err, rds.ErrUnsupported) || !strings.Contains(err.Error(), "7.23") {
				t.Error(err)
			}
			if n := len(j.server.Jobs()) - before; n != 0 {
				t.Errorf("%d copies were begun", n)
			}
		})
	}
}

// The connection is cut, or the array stops, at every point of the script that
// begins a copy.
func TestCopyBegunAndCutOff(t *testing.T) {
	for name, open := range jobs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			probe := open(t)
			before := len(probe.server.Log())
			// It may even be whole by then, where the test is slow.
			if err := probe.ask(); err != nil && !errors.Is(err, errNotReady) && !errors.Is(err, rds.ErrUnderWay) {
				t.Fatal(err)
			}
			for at, fault := range points(probe.server.Log()[before], 0) {
				t.Run(at, func(t *testing.T) {
					j := open(t)
					injection, err := j.server.Inject(fault)
					must(t, err)
					if err := j.ask(); !errors.Is(err, rds.ErrUnknownOutcome) && !errors.Is(err, rds.ErrUnreachable) {
						t.Errorf("cut off: %v", err)
					}
					if err := j.ask(); err != nil && !errors.Is(err, errNotReady) && !errors.Is(err, rds.ErrUnderWay) && !errors.Is(err, rds.ErrFailed) {
						t.Errorf("again: %v", err)
					}
					injection.Release()
					j.finish(j.ask)
					j.check()
				})
			}
		})
	}
}

// What a copy is for is deleted while it is under way: once that has succeeded, nothing
// of it comes back, not even of a copy that did not show yet.
func TestCopyOfNoUseAnyMore(t *testing.T) {
	eachStep(t, func(j *job, release func()) {
		err := j.remove()
		if err != nil && !errors.Is(err, rds.ErrUnderWay) && !errors.Is(err, rds.ErrConflict) {
			j.Fatal(err)
		}
		release()
		must(j, j.server.WaitIdle(ctxOf(j)))
		if err != nil {
			j.clock.Step(jobPatience)
			must(j, j.remove())
		}
		if j.from == "" {
			must(j, j.array.DeleteSnapshot(ctxOf(j), snapshotID(slot)))
		}
		snaps, err := j.array.Snapshots(ctxOf(j))
		if err != nil || len(snaps) > 0 {
			j.Errorf("%+v, %v", snaps, err)
		}
		for _, f := range j.server.Files() {
			if strings.HasPrefix(f.Name, base+"/") && !strings.HasPrefix(f.Name, base+"/"+slot) {
				j.Errorf("left behind: %s", f.Name)
			}
		}
		if n := len(j.server.Disks()); n != 2 {
			j.Errorf("%d disks", n)
		}
	})
}
