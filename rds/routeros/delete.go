package routeros

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// maxRemovals bounds how often a deletion looks for files; one script removes a dozen.
const maxRemovals = 10

// Delete removes a volume whose ledger is known and names nobody, and then its
// files: RouterOS never deletes an image with its disk. The order is export off and
// `deleting` in the ledger, disk, files; stopping anywhere leaves what the next
// call finds and finishes.
func (a *Array) Delete(ctx context.Context, slot string) error {
	return a.about("delete volume", slot, a.delete(ctx, slot))
}

func (a *Array) delete(ctx context.Context, slot string) error {
	p, err := a.knownPool(ctx)
	if err != nil {
		return err
	}
	v, err := a.update(ctx, "delete volume", slot, markDeleting)
	exists := err == nil
	if exists {
		a.isOver(slot) // the copy that became it
	}
	if err != nil && !errors.Is(err, rds.ErrNotFound) {
		return err
	}
	var removals []string
	for range maxRemovals {
		s := newScript("remove", true)
		if exists {
			compared := whereCompared(slot, v.Comment)
			s.guarded([]string{count(diskMenu, whereSlot(slot), 1), count(diskMenu, compared, 1)},
				"/disk/remove "+find(diskMenu, compared))
		}
		list := listing(&a.cfg, p, slot)
		s.fill(removals, len(strings.Join(list, ";")))
		got, err := a.changing(ctx, slot, s.add(list...))
		if errors.Is(err, rds.ErrConflict) {
			removals = nil // something went between two statements: look again
			continue
		}
		if err != nil {
			return err
		}
		found, err := a.found(slot, got)
		if err != nil {
			return a.unsure(slot, got, err)
		}
		switch {
		case found.disk != nil:
			return &rds.Error{Kind: rds.ErrConflict, Err: fmt.Errorf("the disk is still there, with the comment %q", found.disk.Comment)}
		case len(found.users) > 0:
			return &rds.Error{Kind: rds.ErrInUse, Err: fmt.Errorf("disk %s stands on a file of this volume", strings.Join(found.users, ", "))}
		case len(found.files) == 0 && len(found.subvolumes) == 0:
			a.forgetDeleted(slot, v.Size)
			return a.mayShow(slot) // a copy that was to become it
		}
		exists, removals = false, removalsOf(p, found.leftovers)
	}
	return &rds.Error{Kind: rds.ErrConflict, Err: fmt.Errorf("some of its files are still there after %d removals", maxRemovals)}
}

// markDeleting decides the first step. What is marked already and not exported
// needs none.
func markDeleting(_ context.Context, v rds.Volume) (rds.Change, error) {
	if err := rds.Deletable(v); err != nil {
		return rds.Change{}, err
	}
	if v.Ledger.Deleting && !v.Exported {
		return rds.Change{}, nil
	}
	ledger := v.Ledger
	ledger.Deleting = true
	return rds.Change{Ledger: &ledger, Export: rds.ExportOff}, nil
}

func (a *Array) forgetDeleted(slot string, size int64) {
	a.forget(slot, true)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pool.Allocated = max(0, a.pool.Allocated-size)
}
