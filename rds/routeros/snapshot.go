package routeros

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// kept is a snapshot and its name on the array: that of a read-only subvolume on
// btrfs, relative to the pool, and elsewhere that of a file. The name tells all
// about it:
//
//	<base>/_<id>.<unix time>.<bytes>.<source slot>              a subvolume
//	<base>/_<id>.<unix time>.<bytes>.<source slot>.img          a whole copy
//	<base>/_<id>.<unix time>.<bytes>.<source slot>.<8 random>.part   one under way
//
// No slot begins with an underscore, so no deletion of a volume meets it.
type kept struct {
	rds.Snapshot
	name string
}

var snapshotPattern = regexp.MustCompile(`^_(snap-[a-z2-7]{26})\.(\d{1,12})\.(\d{1,18})\.([A-Za-z0-9][A-Za-z0-9_-]{0,63})(\.img|\.[0-9a-f]{8}\.part)?$`)

// snapshotStem is what the name of a new snapshot begins with.
func snapshotStem(c *Config, id string, v rds.Volume, now time.Time) string {
	return fmt.Sprintf("%s/_%s.%d.%d.%s", c.BasePath, id, now.Unix(), v.Size, v.Slot)
}

// parseSnapshot reads a name below the base path back. ok is false for what is no
// snapshot of this driver, such as the image in a subvolume that is one.
func parseSnapshot(c *Config, p pool, name string) (k kept, ok bool) {
	full := name
	if p.FS == "btrfs" {
		full = p.MountPoint + "/" + name
	}
	part := snapshotPattern.FindStringSubmatch(strings.TrimPrefix(full, c.BasePath+"/"))
	if part == nil || (part[5] == "") != (p.FS == "btrfs") {
		return kept{}, false
	}
	// The pattern bounds both numbers.
	seconds, _ := strconv.ParseInt(part[2], 10, 64)
	size, _ := strconv.ParseInt(part[3], 10, 64)
	k = kept{name: name, Snapshot: rds.Snapshot{
		ID: part[1], Source: part[4], Size: size, Created: time.Unix(seconds, 0), Ready: !strings.HasSuffix(part[5], ".part"),
	}}
	return k, true
}

// whereSnapshot finds what belongs to a snapshot in the menu that lists it, or to
// all of them if the id is empty.
func whereSnapshot(c *Config, p pool, id string) (menu, where string) {
	prefix := c.BasePath + "/_snap-"
	if id != "" {
		prefix = c.BasePath + "/_" + id + "."
	}
	if p.FS != "btrfs" {
		return fileMenu, "name~" + quoteExpr("^", prefix, "")
	}
	return subvolumeMenu, "name~" + quoteExpr("^", strings.TrimPrefix(prefix, p.MountPoint+"/"), "") + " and fs=" + Quote(p.slot)
}

func showSnapshots(c *Config, p pool, id string) string {
	menu, where := whereSnapshot(c, p, id)
	return show(menu + "/print detail as-value where " + where)
}

// parseSnapshots reads what showSnapshots shows. All of an id's copies are
// returned, the one that counts first: one that is whole before one that is not,
// and then the latest, since whatever an earlier attempt leaves behind late is older.
func parseSnapshots(c *Config, p pool, value json.RawMessage) (map[string][]kept, error) {
	names, err := decodeNames(value, "name")
	if err != nil {
		return nil, err
	}
	all := map[string][]kept{}
	for _, name := range names {
		if k, ok := parseSnapshot(c, p, name); ok {
			all[k.ID] = append(all[k.ID], k)
		}
	}
	for _, copies := range all {
		slices.SortFunc(copies, func(a, b kept) int {
			if a.Ready != b.Ready {
				return map[bool]int{true: -1, false: 1}[a.Ready]
			}
			return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.name, b.name))
		})
	}
	return all, nil
}

// Snapshots reads all snapshots.
func (a *Array) Snapshots(ctx context.Context) ([]rds.Snapshot, error) {
	all, err := a.snapshots(ctx, "")
	if err != nil {
		return nil, a.about("list the snapshots", "", err)
	}
	var out []rds.Snapshot
	for _, id := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[id][0].Snapshot)
	}
	out = append(out, a.unseen(all, a.clock.Now())...)
	slices.SortFunc(out, func(x, y rds.Snapshot) int { return strings.Compare(x.ID, y.ID) })
	return out, nil
}

// snapshots reads one snapshot, or all if the id is empty, and remembers them. The
// pool is read along if it is not known.
func (a *Array) snapshots(ctx context.Context, id string) (map[string][]kept, error) {
	a.mu.Lock()
	p, known := a.pool, a.verified && a.pool.slot != ""
	a.mu.Unlock()
	if !known {
		return a.snapshotsCold(ctx, id)
	}
	got, err := a.run(ctx, newScript("snapshots", false).add(showSnapshots(&a.cfg, p, id)))
	if err == nil {
		err = got.want(1)
	}
	if err != nil {
		return nil, err
	}
	return a.learnSnapshots(p, id, got.values[0])
}

// snapshotsCold asks in one go for what tells the pool's kind and for both kinds
// of snapshots.
func (a *Array) snapshotsCold(ctx context.Context, id string) (map[string][]kept, error) {
	unknown := pool{Pool: rds.Pool{MountPoint: a.cfg.mountPoint()}}
	files := showSnapshots(&a.cfg, unknown, id)
	_, where := whereSnapshot(&a.cfg, pool{Pool: rds.Pool{MountPoint: a.cfg.mountPoint(), FS: "btrfs"}}, id)
	where, _, _ = strings.Cut(where, " and fs=")
	_, p, more, err := a.viewAnd(ctx, files, show(subvolumeMenu+"/print detail as-value where "+where))
	if err != nil {
		return nil, err
	}
	if p.FS != "btrfs" {
		return a.learnSnapshots(p, id, more[0])
	}
	rows, err := decodeRows(more[1])
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r row) bool { return r.text("fs") != p.slot })
	value, err := json.Marshal(rows)
	if err != nil {
		return nil, err
	}
	return a.learnSnapshots(p, id, value)
}

func (a *Array) learnSnapshots(p pool, id string, value json.RawMessage) (map[string][]kept, error) {
	all, err := parseSnapshots(&a.cfg, p, value)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if id == "" {
		clear(a.snaps)
	}
	delete(a.snaps, id)
	for id, copies := range all {
		a.snaps[id] = copies[0]
	}
	return all, nil
}

// CreateSnapshot keeps the present content of a volume: on btrfs in a read-only
// subvolume, which is there at once, elsewhere in a copy that is made in the
// background.
func (a *Array) CreateSnapshot(ctx context.Context, n rds.NewSnapshot) (rds.Snapshot, error) {
	s, err := a.createSnapshot(ctx, n)
	return s, a.about("snapshot volume", n.Source, err)
}

func (a *Array) createSnapshot(ctx context.Context, n rds.NewSnapshot) (rds.Snapshot, error) {
	if !rds.ValidSnapshot(n.ID) {
		return rds.Snapshot{}, &rds.Error{Kind: rds.ErrInvalid, Err: fmt.Errorf("%q is not the id of a snapshot", n.ID)}
	}
	for range maxTries {
		v, fresh, err := a.warm(ctx, n.Source)
		if errors.Is(err, rds.ErrNotFound) {
			return a.existingSnapshot(ctx, n, err)
		}
		if err != nil {
			return rds.Snapshot{}, err
		}
		p, err := a.knownPool(ctx)
		if err != nil {
			return rds.Snapshot{}, err
		}
		attempt := a.takeSnapshot
		if p.FS != "btrfs" {
			attempt = a.copySnapshot
		}
		s, done, err := attempt(ctx, p, v, fresh, n)
		if err != nil {
			return a.existingSnapshot(ctx, n, err)
		}
		if done {
			return s, sameSource(s, n)
		}
	}
	return rds.Snapshot{}, &rds.Error{Kind: rds.ErrConflict, Err: fmt.Errorf("given up after %d attempts", maxTries)}
}

// existingSnapshot looks again after a refusal: an earlier attempt may have made the
// snapshot, or its copy goes on, whatever has become of its source and of the space
// since. A look that fails proves nothing, so its error is not the refusal.
func (a *Array) existingSnapshot(ctx context.Context, n rds.NewSnapshot, failure error) (rds.Snapshot, error) {
	final := []error{rds.ErrNoSpace, rds.ErrNotFound, rds.ErrExists, rds.ErrFailed, rds.ErrInUse, rds.ErrLedger}
	if !slices.ContainsFunc(final, func(kind error) bool { return errors.Is(failure, kind) }) {
		return rds.Snapshot{}, failure
	}
	p, err := a.knownPool(ctx)
	if err != nil {
		return rds.Snapshot{}, err
	}
	now := a.clock.Now()
	got, err := a.run(ctx, newScript("snapshots", false).add(showSnapshots(&a.cfg, p, n.ID), show(showUptime)))
	if err == nil {
		err = got.want(2)
	}
	if err != nil {
		return rds.Snapshot{}, err
	}
	all, err := a.learnSnapshots(p, n.ID, got.values[0])
	if err != nil {
		return rds.Snapshot{}, err
	}
	booted, err := bootTime(got.values[1], now)
	if err != nil {
		return rds.Snapshot{}, err
	}
	if s, ok := a.alive(all[n.ID], booted, now); ok {
		return s, sameSource(s, n)
	}
	return rds.Snapshot{}, failure
}

func sameSource(s rds.Snapshot, n rds.NewSnapshot) error {
	if s.Source != n.Source {
		return &rds.Error{Kind: rds.ErrExists, Err: fmt.Errorf("snapshot %s is of volume %s", s.ID, s.Source)}
	}
	return nil
}

// takeSnapshot makes a read-only subvolume. That adding one with a parent keeps
// the parent's content of that moment, all at once, is btrfs's nature; that it
// does so under an export in use is [INF].
func (a *Array) takeSnapshot(ctx context.Context, p pool, v rds.Volume, _ bool, n rds.NewSnapshot) (s rds.Snapshot, done bool, err error) {
	source, err := subvolumeOf(v, &a.cfg, p)
	if err != nil {
		return s, false, err
	}
	got, err := a.run(ctx, snapshotting(&a.cfg, p, v, source, snapshotStem(&a.cfg, n.ID, v, a.clock.Now()), n.ID))
	if err == nil {
		err = got.want(2)
	}
	if err != nil {
		return s, false, err
	}
	all, err := a.learnSnapshots(p, n.ID, got.values[1])
	if err != nil {
		return s, false, err
	}
	if copies := all[n.ID]; len(copies) > 0 {
		return copies[0].Snapshot, true, nil
	}
	// Not made: the disk is gone, or stands on another image than it did.
	_, err = a.one(v.Slot, got.values[0])
	return s, false, err
}

// snapshotting adds a subvolume if there is none of the id. Two attempts can both
// find none; the one that then sees two takes its own back.
func snapshotting(c *Config, p pool, v rds.Volume, source, stem, id string) *script {
	menu, where := whereSnapshot(c, p, id)
	name := strings.TrimPrefix(stem, p.MountPoint+"/")
	s := newScript("snapshot", true)
	s.guarded([]string{count(diskMenu, whereDisk(v), 1), count(menu, where, 0)},
		fmt.Sprintf("%s/add read-only=yes parent=%s fs=%s name=%s", subvolumeMenu, Quote(source), Quote(p.slot), Quote(name)),
		fmt.Sprintf(":if ([:len [%s/find where %s]]>1) do={%s}", menu, where, removeSubvolume(p, name)))
	return s.add(show(disksWhere(whereSlot(v.Slot))), showSnapshots(c, p, id))
}

// whereDisk finds a volume's disk only if it stands on the image that is known.
func whereDisk(v rds.Volume) string {
	path := strings.TrimPrefix(v.Path, "/")
	return whereSlot(v.Slot) + " and (file-path=" + Quote("/"+path) + " or file-path=" + Quote(path) + ")"
}

// subvolumeOf is the subvolume of a volume's own that holds its image, relative
// to the pool.
func subvolumeOf(v rds.Volume, c *Config, p pool) (string, error) {
	dir, own := strings.CutSuffix(strings.TrimPrefix(v.Path, "/"), "/disk.img")
	if !own || !isMadeHere(v, c) {
		return "", &rds.Error{Kind: rds.ErrUnsupported, Err: fmt.Errorf("its image %s is not in a subvolume of its own, so this driver did not make it", v.Path),
			Hint: "copy its content to a new volume"}
	}
	return strings.TrimPrefix(dir, p.MountPoint+"/"), nil
}

// DeleteSnapshot removes a snapshot, and whatever attempts to make it left.
func (a *Array) DeleteSnapshot(ctx context.Context, id string) error {
	return a.about("delete snapshot "+id, "", a.deleteSnapshot(ctx, id))
}

// shown are the copies of a snapshot. One that this process has only just begun is
// waited for, and is under way if it shows none: deleted unseen, it would show afterwards
// and stay.
func (a *Array) shown(ctx context.Context, id string) ([]kept, error) {
	const tries, pause = 20, 100 * time.Millisecond
	for range tries {
		all, err := a.snapshots(ctx, id)
		if err != nil || len(all[id]) > 0 {
			return all[id], err
		}
		if a.mayShow(id) == nil {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
	return nil, a.mayShow(id)
}

func (a *Array) deleteSnapshot(ctx context.Context, id string) error {
	if !rds.ValidSnapshot(id) {
		return &rds.Error{Kind: rds.ErrInvalid, Err: fmt.Errorf("%q is not the id of a snapshot", id)}
	}
	a.mu.Lock()
	remembered, ok := a.snaps[id]
	a.mu.Unlock()
	copies := []kept{remembered}
	if !ok {
		var err error
		if copies, err = a.shown(ctx, id); err != nil || len(copies) == 0 {
			return err
		}
	}
	a.isOver(id)
	p, err := a.knownPool(ctx)
	if err != nil {
		return err
	}
	for range maxRemovals {
		s := newScript("remove", true)
		list := showSnapshots(&a.cfg, p, id)
		var removals []string
		for _, k := range copies {
			removals = append(removals, removeKept(p, k))
		}
		s.fill(removals, len(list))
		got, err := a.run(ctx, s.add(list))
		if errors.Is(err, rds.ErrConflict) {
			continue // one went between two statements
		}
		if err == nil {
			err = got.want(1)
		}
		if err != nil {
			return err
		}
		all, err := a.learnSnapshots(p, id, got.values[0])
		if copies = all[id]; err != nil || len(copies) == 0 {
			return err
		}
	}
	return &rds.Error{Kind: rds.ErrConflict, Err: fmt.Errorf("%s is still there after %d removals", copies[0].name, maxRemovals), Hint: "does a disk stand on it?"}
}

func removeKept(p pool, k kept) string {
	if p.FS == "btrfs" {
		return removeSubvolume(p, k.name)
	}
	return removeFile(k.name)
}
