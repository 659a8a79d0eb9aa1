package routeros

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// origin is where a new volume's content comes from.
type origin struct {
	size int64
	// subvolume is what the new one is made of, on btrfs; elsewhere image is the
	// file to be copied.
	subvolume, image string
	// conditions hold while it is the content that was meant.
	conditions []string
}

// originTag tells volumes of different sources apart by the names of their images:
// a name that is asked for twice must not get the content of something else.
func originTag(from rds.Source) string {
	if from.Blank() {
		return ""
	}
	sum := sha256.Sum256([]byte(from.String()))
	return "-" + hex.EncodeToString(sum[:4])
}

// origin looks a source up. Unless fresh, what is remembered will do: the
// conditions are checked when it is used.
func (a *Array) origin(ctx context.Context, from rds.Source, fresh bool) (*origin, error) {
	switch {
	case from.Blank():
		return nil, nil
	case from.Snapshot != "" && !rds.ValidSnapshot(from.Snapshot):
		return nil, &rds.Error{Kind: rds.ErrNotFound, Err: fmt.Errorf("%q is not the id of a snapshot", from.Snapshot)}
	case from.Snapshot != "":
		return a.snapshotOrigin(ctx, from.Snapshot, fresh)
	}
	return a.volumeOrigin(ctx, from.Volume, fresh)
}

func (a *Array) snapshotOrigin(ctx context.Context, id string, fresh bool) (*origin, error) {
	a.mu.Lock()
	k, known := a.snaps[id]
	known = known && k.Ready && a.verified
	a.mu.Unlock()
	if fresh || !known {
		all, err := a.snapshots(ctx, id)
		if err != nil {
			return nil, err
		}
		if len(all[id]) == 0 {
			return nil, &rds.Error{Kind: rds.ErrNotFound, Err: fmt.Errorf("the array has no snapshot %s", id)}
		}
		if k = all[id][0]; !k.Ready {
			return nil, &rds.Error{Kind: rds.ErrUnderWay, Err: fmt.Errorf("snapshot %s is still being copied", id)}
		}
	}
	p, err := a.knownPool(ctx)
	if err != nil {
		return nil, err
	}
	if p.FS == "btrfs" {
		return subvolumeOrigin(p, k.name, k.Size), nil
	}
	return &origin{size: k.Size, image: k.name, conditions: []string{count(fileMenu, "name="+Quote(k.name), 1)}}, nil
}

// subvolumeOrigin needs no more than that the subvolume is there: its name is
// never given to another.
func subvolumeOrigin(p pool, name string, size int64) *origin {
	return &origin{size: size, subvolume: name, conditions: []string{
		count(subvolumeMenu, "name="+Quote(name)+" and fs="+Quote(p.slot), 1),
	}}
}

// volumeOrigin is for a clone. On btrfs the new subvolume is made of the source's
// at one moment, whoever writes to it, as a snapshot is; elsewhere nobody may.
func (a *Array) volumeOrigin(ctx context.Context, slot string, fresh bool) (*origin, error) {
	v, isFresh, err := a.warm(ctx, slot)
	if err == nil && fresh && !isFresh {
		v, err = a.volume(ctx, slot)
	}
	if err != nil {
		return nil, err
	}
	p, err := a.knownPool(ctx)
	if err != nil {
		return nil, err
	}
	if p.FS == "btrfs" {
		subvolume, err := subvolumeOf(v, &a.cfg, p)
		if err != nil {
			return nil, err
		}
		return subvolumeOrigin(p, subvolume, v.Size), nil
	}
	if err := rds.Copyable(v); err != nil {
		if fresh || isFresh {
			return nil, err
		}
		return a.volumeOrigin(ctx, slot, true)
	}
	return &origin{size: v.Size, image: strings.TrimPrefix(v.Path, "/"), conditions: []string{whileUntouched(v)}}, nil
}

// whileUntouched holds as long as nobody was let write to a volume since it was
// read: every publication raises the generation in its comment, and none comes
// back. It is compared alone, for a whole comment can be long.
func whileUntouched(v rds.Volume) string {
	generation := rds.Ledger{Known: true, Generation: v.Ledger.Generation}.String()
	return count(diskMenu, whereSlot(v.Slot)+" and nvme-tcp-export=no and comment~"+quoteExpr("^", generation, "( |$)"), 1)
}

func (o *origin) met() []string {
	if o == nil {
		return nil
	}
	return o.conditions
}
