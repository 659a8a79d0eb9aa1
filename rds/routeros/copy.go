package routeros

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// On pools that are not btrfs content is copied, by a job in the background of the
// array: it copies to a name that nothing else uses, and renames when the copy is
// whole and nobody was let write to the source meanwhile. A job that fails removes
// its copy and says why in the array's log; one that ends with the array, at a
// reboot, leaves a copy that is known to be dead by its name, which says when it
// began.
//
// [INF]: that :execute runs a script in the background under the user's policies,
// that /file/copy (7.23) returns when the copy is whole, that /file/set name=
// renames within a pool, and that size in a where of /file compares as bytes. A
// copy whose size differs from the source's is never used. That a copy under way
// shows in /file is [INF], too: one that does not is taken for failed, and said to be.

// A copyJob is one such copy.
type copyJob struct {
	from, part, to string // files
	size           int64
	while          []string // what must still hold when the copy is whole
	then           string   // what follows the renaming; if it fails, the file goes
}

// start is the statement that starts the job.
func (j copyJob) start() string { return ":execute script=" + Quote(j.script()) }

func (j copyJob) script() string {
	whole := append([]string{count(fileMenu, fmt.Sprintf("name=%s and size=%d", Quote(j.part), j.size), 1)}, j.while...)
	named := func(name string) string { return find(fileMenu, "name="+Quote(name)) }
	steps := []string{fmt.Sprintf("%s/set %s name=%s", fileMenu, named(j.part), Quote(j.to))}
	undo := []string{fileMenu + "/remove " + named(j.part)}
	if j.then != "" {
		steps = append(steps, j.then)
		undo = append(undo, when([]string{count(diskMenu, whereImage(j.to), 0)}, fileMenu+"/remove "+named(j.to)))
	}
	do := fmt.Sprintf("%s/copy number=%s name=%s;%s else={:error \"it is not whole, or the source was in use\"}",
		fileMenu, named(j.from), Quote(j.part), when(whole, steps...))
	undo = append(undo, `:log error ("rds-csi: a copy failed: " . $f)`)
	return fmt.Sprintf(":onerror f in={%s} do={%s}", do, strings.Join(undo, ";"))
}

// jobStart is how long a copy that was begun may take to show in /file: :execute
// does not wait for its script [INF]. Until then a copy that is not seen is under way.
const jobStart = 10 * time.Second

// showUptime prints how long the array has been up.
const showUptime = "/system/resource/get uptime"

// copySnapshot starts the copy of a volume that nobody holds, or tells how far it is.
func (a *Array) copySnapshot(ctx context.Context, p pool, v rds.Volume, fresh bool, n rds.NewSnapshot) (s rds.Snapshot, done bool, err error) {
	err = rds.Copyable(v)
	if err != nil && !fresh {
		if v, err = a.volume(ctx, n.Source); err == nil {
			err = rds.Copyable(v)
		}
	}
	if err != nil {
		return s, false, err
	}
	if err := a.copies(); err != nil {
		return s, false, err
	}
	now := a.clock.Now()
	ours, began, due := a.tookUp(n.ID, now)
	if !began {
		taken, err := a.promise(ctx, n.ID, v.Size)
		if err != nil {
			return s, false, err
		}
		defer func() { taken(s.ID != "" && !s.Ready) }()
	}
	stem := snapshotStem(&a.cfg, n.ID, v, now)
	got, err := a.run(ctx, snapshotCopy(&a.cfg, p, v, stem, n.ID, !began))
	if err == nil {
		err = got.want(3)
	}
	if err != nil {
		return s, false, err
	}
	all, err := a.learnSnapshots(p, n.ID, got.values[1])
	if err != nil {
		return s, false, err
	}
	booted, err := bootTime(got.values[2], now)
	if err != nil {
		return s, false, err
	}
	copies := all[n.ID]
	if s, ok := a.alive(copies, booted, now); ok {
		return s, true, nil
	}
	switch {
	case got.changed:
		parsed, _ := parseSnapshot(&a.cfg, p, stem+".00000000.part")
		a.goesOn(n.ID, parsed.Snapshot, now)
		return parsed.Snapshot, true, nil
	case len(copies) > 0:
		return s, false, a.deleteSnapshot(ctx, n.ID) // dead ones, which are in the way
	case due:
		return s, false, a.copyFailed(ctx, n.ID, v.Size)
	case began:
		return ours.snapshot, true, nil
	}
	_, err = a.one(v.Slot, got.values[0])
	return s, false, err
}

// alive is the copy of a snapshot that is whole or under way.
func (a *Array) alive(copies []kept, booted, now time.Time) (rds.Snapshot, bool) {
	for _, k := range copies {
		switch {
		case k.Ready:
			a.isOver(k.ID)
		case !k.Created.Before(booted):
			a.goesOn(k.ID, k.Snapshot, now)
		default:
			continue
		}
		return k.Snapshot, true
	}
	return rds.Snapshot{}, false
}

// copies refuses a RouterOS that cannot copy files. What a job fails of only the
// array's log would tell.
func (a *Array) copies() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return atLeast(a.version, 23, "can copy files")
}

// tookUp is the copy that this process began, if it did, and whether that should have
// been seen by now.
func (a *Array) tookUp(key string, now time.Time) (b begunCopy, began, due bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, began = a.begun[key]
	return b, began, began && now.Sub(b.seen) >= jobStart
}

// mayShow says so if a copy that this process began may show yet, although nothing of
// it does. One that should have shown is over.
func (a *Array) mayShow(key string) error {
	if _, began, due := a.tookUp(key, a.clock.Now()); began && !due {
		return &rds.Error{Kind: rds.ErrUnderWay, Err: fmt.Errorf("a copy for it was under way less than %s ago, and may show yet", jobStart)}
	}
	a.isOver(key)
	return nil
}

// begunCopy is a copy under way.
type begunCopy struct {
	seen     time.Time    // when it was under way last
	snapshot rds.Snapshot // what it becomes; zero for a volume
}

// goesOn notes that a copy is under way now.
func (a *Array) goesOn(key string, s rds.Snapshot, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun[key] = begunCopy{now, s}
}

// isOver notes that a copy is not under way any more.
func (a *Array) isOver(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.begun, key)
}

// unseen are the snapshots begun so lately that they need not show yet.
func (a *Array) unseen(shown map[string][]kept, now time.Time) []rds.Snapshot {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []rds.Snapshot
	for id, b := range a.begun {
		if b.snapshot.ID != "" && len(shown[id]) == 0 && now.Sub(b.seen) < jobStart {
			all = append(all, b.snapshot)
		}
	}
	return all
}

// copyFailed says that a copy ended without a result. The next attempt begins
// another; a pool that is full by now is said to be.
func (a *Array) copyFailed(ctx context.Context, key string, size int64) error {
	a.isOver(key)
	if _, err := a.view(ctx); err != nil {
		return err
	}
	taken, err := a.promise(ctx, key, size)
	if err != nil {
		return err
	}
	taken(false)
	return &rds.Error{Kind: rds.ErrFailed, Err: errors.New("the copy ended without a result"), Hint: "the array's log says why; trying again begins another"}
}

// snapshotCopy starts a copy if there is nothing of the id, and shows what there is.
func snapshotCopy(c *Config, p pool, v rds.Volume, stem, id string, start bool) *script {
	menu, where := whereSnapshot(c, p, id)
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	job := copyJob{
		from: strings.TrimPrefix(v.Path, "/"), part: stem + "." + hex.EncodeToString(random) + ".part", to: stem + ".img", size: v.Size,
		while: []string{whileUntouched(v), count(menu, where+" and name~"+quoteExpr("", ".img", "$"), 0)},
	}
	s := newScript("copy", true)
	if start {
		s.guarded([]string{whileUntouched(v), count(menu, where, 0)}, job.start())
	}
	return s.add(show(disksWhere(whereSlot(v.Slot))), showSnapshots(c, p, id), show(showUptime))
}

// addCopy starts the copy that becomes a volume, or finds the volume. The job adds
// the disk, too: the volume exists when its content is whole.
func (a *Array) addCopy(ctx context.Context, p pool, n, sized rds.NewVolume, src *origin) (v rds.Volume, begun bool, err error) {
	if err := a.copies(); err != nil {
		return v, false, err
	}
	tolerated := 0
	for range maxTries {
		now := a.clock.Now()
		_, began, due := a.tookUp(n.Slot, now)
		got, err := a.changing(ctx, n.Slot, volumeCopy(&a.cfg, p, sized, src, tolerated, now, !began))
		if err != nil {
			return v, false, err
		}
		found, copying, err := a.foundCopying(n.Slot, got, now)
		switch {
		case err != nil:
			return v, false, a.unsure(n.Slot, got, err)
		case found.disk != nil:
			a.isOver(n.Slot)
			if v, err = same(*found.disk, n); err == nil {
				a.settleCreated(ctx, p, v, found)
			}
			return v, got.changed, err
		case got.changed || copying:
			a.goesOn(n.Slot, rds.Snapshot{}, now)
			fallthrough
		case began && !due:
			return v, got.changed, beingCopied(n.From)
		case due:
			return v, false, a.copyFailed(ctx, n.Slot, sized.Size)
		}
		if tolerated, err = found.tolerable(&a.cfg, n.Slot); err == nil {
			sized, src, err = a.sized(ctx, n, true)
		}
		if err != nil {
			return v, false, err
		}
	}
	return v, false, &rds.Error{Kind: rds.ErrConflict, Err: fmt.Errorf("the source or the files of this slot changed %d times meanwhile", maxTries)}
}

func volumeCopy(c *Config, p pool, n rds.NewVolume, src *origin, tolerated int, now time.Time, start bool) *script {
	to := newImage(c, p, n.Slot, originTag(n.From))
	job := copyJob{
		from: src.image, part: fmt.Sprintf("%s.%d.part", strings.TrimSuffix(to.path, ".img"), now.Unix()), to: to.path, size: src.size,
		while: src.conditions, then: addDisk(c, n, src, to),
	}
	s := newScript("copy", true)
	if start {
		s.guarded(append(vacant(c, n.Slot, tolerated), src.conditions...), job.start())
	}
	return s.add(copyListing(c, p, n.Slot)...)
}

// copyListing shows what foundCopying reads.
func copyListing(c *Config, p pool, slot string) []string {
	return append(listing(c, p, slot), show(showUptime))
}

// foundCopying is what a slot has, and whether a copy that is to become it goes on.
func (a *Array) foundCopying(slot string, got answer, now time.Time) (f foundFiles, copying bool, err error) {
	if len(got.values) == 0 {
		return f, false, got.want(4)
	}
	last := len(got.values) - 1
	booted, err := bootTime(got.values[last], now)
	if err != nil {
		return f, false, err
	}
	got.values = got.values[:last]
	f, err = a.found(slot, got)
	return f, f.copying(booted), err
}

// unlessCopied says so if a copy goes on that is to become the volume.
func (a *Array) unlessCopied(ctx context.Context, n rds.NewVolume) error {
	p, err := a.knownPool(ctx)
	if err != nil || n.From.Blank() || p.FS == "btrfs" {
		return err
	}
	now := a.clock.Now()
	got, err := a.run(ctx, newScript("copy", false).add(copyListing(&a.cfg, p, n.Slot)...))
	if err != nil {
		return err
	}
	_, copying, err := a.foundCopying(n.Slot, got, now)
	if err != nil || !copying {
		return err
	}
	a.goesOn(n.Slot, rds.Snapshot{}, now)
	return beingCopied(n.From)
}

func beingCopied(from rds.Source) error {
	return &rds.Error{Kind: rds.ErrUnderWay, Err: fmt.Errorf("%s is being copied", from)}
}

var partTime = regexp.MustCompile(`\.([0-9]{1,12})\.part$`)

// copying reports whether a copy is under way that began after the array did.
func (f foundFiles) copying(booted time.Time) bool {
	for _, name := range f.files {
		if part := partTime.FindStringSubmatch(name); part != nil {
			seconds, _ := strconv.ParseInt(part[1], 10, 64) // bounded by the pattern
			if !time.Unix(seconds, 0).Before(booted) {
				return true
			}
		}
	}
	return false
}

var uptimePattern = regexp.MustCompile(`^(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+):(\d+):(\d+))?$`)

// bootTime is when the array started, a little too early: both it and the times
// in names are whole seconds. Uptimes read 1w2d3h4m5s or 1w2d03:04:05.
func bootTime(value json.RawMessage, now time.Time) (time.Time, error) {
	text, err := decodeText(value)
	if err != nil {
		return time.Time{}, err
	}
	part := uptimePattern.FindStringSubmatch(text)
	if text == "" || part == nil {
		return time.Time{}, fmt.Errorf("the array's uptime %q is not understood", text)
	}
	units := []time.Duration{7 * 24 * time.Hour, 24 * time.Hour, time.Hour, time.Minute, time.Second, time.Hour, time.Minute, time.Second}
	var up time.Duration
	for i, unit := range units {
		n, _ := strconv.Atoi("0" + part[i+1])
		up += time.Duration(n) * unit
	}
	return now.Add(-up).Add(-2 * time.Second), nil
}
