package routeros

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// maxAttempts bounds how often an update decides anew because the volume was
// changed meanwhile.
const maxAttempts = 4

// Update reads, decides and writes under compare-and-swap of the comment.
//
// Every write of a known ledger raises its generation. So a comment never comes
// back, and a script that was cut off and still runs finds its comparison failed
// after the next write, whatever that write was for. A generation is harmless:
// the NQN in use is read from the disk. Where nothing is to change but such a
// script may be running, the generation alone is written.
func (a *Array) Update(ctx context.Context, slot string, decide rds.Decide) (rds.Volume, error) {
	return a.update(ctx, "update volume", slot, decide)
}

func (a *Array) update(ctx context.Context, op, slot string, decide rds.Decide) (rds.Volume, error) {
	v, fresh, err := a.warm(ctx, slot)
	if err != nil {
		return rds.Volume{}, a.about(op, slot, err)
	}
	for attempt := 0; attempt < maxAttempts; {
		w, needed, err := a.decided(ctx, op, v, decide)
		if !needed && !fresh {
			// A refusal, or that all is well, is only believed on what the array
			// says now.
			if v, err = a.volume(ctx, slot); err != nil {
				return rds.Volume{}, a.about(op, slot, err)
			}
			fresh = true
			continue
		}
		if !needed {
			return v, err
		}
		next, done, err := a.write(ctx, w)
		if err != nil {
			return rds.Volume{}, a.about(op, slot, err)
		}
		if done {
			return next, nil
		}
		v, fresh = next, !needsName(next, &a.cfg)
		attempt++
	}
	return rds.Volume{}, a.about(op, slot, &rds.Error{Kind: rds.ErrConflict, Err: fmt.Errorf("given up after %d attempts", maxAttempts)})
}

// decided is the write that the caller's decision about v amounts to, if one is
// needed: for the decision itself, or as a fence.
func (a *Array) decided(ctx context.Context, op string, v rds.Volume, decide rds.Decide) (w write, needed bool, err error) {
	change, err := decide(ctx, v)
	if err != nil {
		return write{}, false, err // the caller's own error, as it is
	}
	fence := a.isUncertain(v.Slot) && v.Ledger.Known
	if change.Empty() && !fence {
		return write{}, false, nil
	}
	if w, err = plan(v, change, &a.cfg); err != nil {
		return write{}, false, a.about(op, v.Slot, err)
	}
	return w, !w.idle(), nil
}

// write carries a change out. done is false when the comparison failed or the
// volume is not yet as wanted; next is then what to decide on.
func (a *Array) write(ctx context.Context, w write) (next rds.Volume, done bool, err error) {
	slot := w.from.Slot
	if grow := w.size - w.from.Size; grow > 0 {
		taken, err := a.promise(ctx, slot, grow)
		if err != nil {
			return rds.Volume{}, false, err
		}
		defer func() { taken(done) }()
	}
	got, err := a.changing(ctx, slot, w.script())
	if errors.Is(err, rds.ErrConflict) {
		next, err = a.volume(ctx, slot) // gone, or changed, between two statements
		return next, false, err
	}
	if err != nil {
		return rds.Volume{}, false, err
	}
	if err = got.want(1); err == nil {
		next, err = a.one(slot, got.values[0])
	}
	if err != nil {
		return rds.Volume{}, false, a.unsure(slot, got, err)
	}
	if w.comment != w.from.Comment && next.Comment == w.from.Comment {
		return rds.Volume{}, false, &rds.Error{Kind: rds.ErrFailed, Err: fmt.Errorf("the array shows the comment that was compared, and yet changed nothing"),
			Hint: "its where does not match a comment as assumed; run doctor"}
	}
	if next.Comment == w.comment {
		// The comparison of whatever was cut off before fails from now on.
		a.settle(slot)
		a.remember(next)
	}
	return next, w.fulfilled(next), nil
}

// unsure makes of an unreadable answer to a change what it is: an outcome that
// nobody knows. A disk proven absent is not unsure.
func (a *Array) unsure(slot string, got answer, err error) error {
	if !got.changed || errors.Is(err, rds.ErrNotFound) {
		return err
	}
	a.doubt(slot)
	return &rds.Error{Kind: rds.ErrUnknownOutcome, Err: err}
}

// write is a change as it will stand on the array.
type write struct {
	from    rds.Volume
	comment string
	nqn     string // empty to keep it
	export  rds.Export
	size    int64 // 0 to keep it
	grows   bool  // and nothing else is to change
}

// plan completes a change and refuses one that breaks the rules of this driver,
// whoever decided it.
func plan(v rds.Volume, change rds.Change, c *Config) (write, error) {
	w := write{from: v, comment: v.Comment, nqn: change.NQN, export: change.Export, size: change.Size,
		grows: change == rds.Change{Size: change.Size}}
	ledger := v.Ledger
	if change.Ledger != nil {
		ledger = *change.Ledger
	}
	if !ledger.Known && (change.Ledger != nil || change.NQN != "" || change.Export != rds.KeepExport) {
		return w, &rds.Error{Kind: rds.ErrLedger, Err: fmt.Errorf("%s", ledger.Problem)}
	}
	if change.NQN != "" && needsName(v, c) {
		return w, &rds.Error{Kind: rds.ErrUnsupported, Err: fmt.Errorf("the array does not show the name of the export, so none can be chosen safely"),
			Hint: "switch the export on by hand, under its own name"}
	}
	if change.Export == rds.ExportOff && (!v.Ledger.Known || len(ledger.Publications) > 0) {
		return w, &rds.Error{Kind: rds.ErrInUse, Err: fmt.Errorf("the export stays on: the ledger is unknown or names %s", strings.Join(ledger.Nodes(), " and "))}
	}
	if change.Size != 0 && change.Size <= v.Size {
		return w, &rds.Error{Kind: rds.ErrInvalid, Err: fmt.Errorf("%d bytes are no growth of a volume of %d", change.Size, v.Size)}
	}
	if ledger.Known {
		if v.Ledger.Known {
			ledger.Generation = max(ledger.Generation, v.Ledger.Generation+1)
		}
		if err := ledger.Check(); err != nil {
			return w, err
		}
		w.comment = ledger.String()
	}
	return w, nil
}

// idle reports whether nothing would be written: a volume without a ledger, of
// which only what is so already was asked for.
func (w write) idle() bool { return len(w.properties()) == 0 && w.size == 0 }

// fulfilled reports whether a row read back is what was wanted.
func (w write) fulfilled(v rds.Volume) bool {
	return v.Comment == w.comment &&
		(w.nqn == "" || v.NQN == w.nqn) &&
		(w.export == rds.KeepExport || v.Exported == (w.export == rds.ExportOn)) &&
		v.Size >= w.size
}

// script finds by literal slot, requires exactly one, compares the comment,
// changes, and reads back.
func (w write) script() *script {
	slot := w.from.Slot
	compared := whereCompared(slot, w.from.Comment)
	s := newScript("update", true)
	changes := w.statements(s, compared)
	s.guarded([]string{count(diskMenu, whereSlot(slot), 1), count(diskMenu, compared, 1)}, changes[0], changes[1:]...)
	return s.add(show(disksWhere(whereSlot(slot))))
}

// statements are the changes in an order in which stopping after any of them
// leaves the volume as it was, or with a ledger that says more than the truth.
func (w write) statements(s *script, compared string) []string {
	slot := w.from.Slot
	var out []string
	properties := w.properties()
	switch {
	case len(properties) > 1:
		// One set with several properties is taken to apply at once, and an export
		// that is on, though nobody holds it, to take a new name [INF]. Off and on
		// again would be safer for the name, but such an "off" could run late.
		out = append(out, set(compared, properties))
	case w.comment != w.from.Comment:
		// Only the comment changes: an exported disk may have a running virtual
		// machine on it, so nothing but /disk/comment touches it.
		out = append(out, "/disk/comment "+find(diskMenu, compared)+" comment="+Quote(w.comment))
	case len(properties) > 0:
		out = append(out, set(compared, properties))
	}
	if w.size > 0 {
		now := whereCompared(slot, w.comment)
		if w.comment == w.from.Comment {
			// Without a ledger no generation keeps a late script from shrinking
			// what a newer one has grown. That size compares as a number is [INF].
			now += fmt.Sprintf(" and size<%d", w.size)
		}
		grow := fmt.Sprintf("/disk/set %s file-size=%d", find(diskMenu, now), w.size)
		if w.grows {
			// Refused, with the disk seen to be no larger, it has changed nothing but the
			// generation: the array's no counts. If sizes do not compare as numbers
			// [INF] the outcome stays unknown.
			smaller := count(diskMenu, whereSlot(slot)+fmt.Sprintf(" and size<%d", w.size), 1)
			grow = fmt.Sprintf(":onerror f in={%s} do={%s;:error $f}", grow, when([]string{smaller}, s.mark(markUndone)))
		}
		out = append(out, grow)
	}
	return out
}

// properties that change, except for the size. Switching an export on or off
// where it is so already is left out.
func (w write) properties() []string {
	var out []string
	if w.comment != w.from.Comment {
		out = append(out, "comment="+Quote(w.comment))
	}
	if w.nqn != "" {
		out = append(out, "nvme-tcp-server-nqn="+Quote(w.nqn))
	}
	switch {
	case w.export == rds.ExportOn && (!w.from.Exported || w.nqn != ""):
		out = append(out, "nvme-tcp-export=yes")
	case w.export == rds.ExportOff && w.from.Exported:
		out = append(out, "nvme-tcp-export=no")
	}
	return out
}

func set(where string, properties []string) string {
	return "/disk/set " + find(diskMenu, where) + " " + strings.Join(properties, " ")
}
