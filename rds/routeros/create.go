package routeros

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

const (
	sizeUnit = 1 << 20
	// maxTries bounds how often a creation meets a new state of leftovers.
	maxTries = 3
)

// Create makes a volume with an empty ledger and without an export.
func (a *Array) Create(ctx context.Context, n rds.NewVolume) (rds.Volume, error) {
	v, err := a.create(ctx, n)
	return v, a.about("create volume", n.Slot, err)
}

func (a *Array) create(ctx context.Context, n rds.NewVolume) (rds.Volume, error) {
	if err := checkSlot(n.Slot); err != nil {
		return rds.Volume{}, err
	}
	if len(n.Slot) > rds.MaxNewSlot || n.Size <= 0 || n.Size%sizeUnit != 0 {
		return rds.Volume{}, &rds.Error{Kind: rds.ErrInvalid, Err: fmt.Errorf("slot of %d characters (at most %d), %d bytes (a multiple of 1 MiB)", len(n.Slot), rds.MaxNewSlot, n.Size)}
	}
	taken, err := a.promise(ctx, n.Slot, n.Size)
	if errors.Is(err, rds.ErrNoSpace) {
		// A volume that exists takes no more space.
		if v, existsErr := a.volume(ctx, n.Slot); existsErr == nil {
			return sameSize(v, n)
		}
	}
	if err != nil {
		return rds.Volume{}, err
	}
	v, created, err := a.add(ctx, n)
	taken(created)
	return v, err
}

// add runs the creating script until it either made the volume or found one.
func (a *Array) add(ctx context.Context, n rds.NewVolume) (v rds.Volume, created bool, err error) {
	p, err := a.knownPool(ctx)
	if err != nil {
		return rds.Volume{}, false, err
	}
	tolerated := 0
	for range maxTries {
		image := newImage(&a.cfg, p, n.Slot)
		got, err := a.changing(ctx, n.Slot, creation(&a.cfg, p, n, image, tolerated))
		if err != nil {
			if v, existsErr := a.raced(ctx, n, err); existsErr == nil {
				return v, false, nil
			}
			return rds.Volume{}, false, err
		}
		found, err := a.found(n.Slot, got)
		if err != nil {
			return rds.Volume{}, false, a.unsure(n.Slot, got, err)
		}
		switch {
		case found.disk == nil:
			// No disk, but files: those this driver made are no danger, since no
			// image name is used twice. They go when the slot is taken, and nothing
			// that may still run can make use of them.
			if tolerated, err = found.tolerable(&a.cfg, n.Slot); err != nil {
				return rds.Volume{}, false, err
			}
		case found.disk.Path == "/"+image.path && found.disk.Size < n.Size:
			return rds.Volume{}, false, a.undo(ctx, *found.disk, n)
		case found.disk.Path == "/"+image.path:
			a.settleCreated(ctx, p, *found.disk, found)
			return *found.disk, true, nil
		default:
			if v, err = sameSize(*found.disk, n); err == nil {
				a.settleCreated(ctx, p, v, found)
			}
			return v, false, err
		}
	}
	return rds.Volume{}, false, &rds.Error{Kind: rds.ErrConflict, Err: fmt.Errorf("the files of this slot changed %d times meanwhile", maxTries)}
}

// raced looks again after the array refused: an earlier attempt that was still
// running may have made the volume between this one's question and its add.
func (a *Array) raced(ctx context.Context, n rds.NewVolume, refusal error) (rds.Volume, error) {
	if !errors.Is(refusal, rds.ErrExists) && !errors.Is(refusal, rds.ErrFailed) {
		return rds.Volume{}, refusal
	}
	v, err := a.volume(ctx, n.Slot)
	if err != nil {
		return rds.Volume{}, refusal
	}
	if v, err = sameSize(v, n); err != nil {
		return rds.Volume{}, refusal
	}
	a.settle(v.Slot)
	return v, nil
}

// sameSize judges a volume that exists already.
func sameSize(v rds.Volume, n rds.NewVolume) (rds.Volume, error) {
	if v.Ledger.Deleting {
		return rds.Volume{}, &rds.Error{Kind: rds.ErrInUse, Err: fmt.Errorf("a volume of this name is being deleted")}
	}
	if v.Size != n.Size {
		return rds.Volume{}, &rds.Error{Kind: rds.ErrExists, Err: fmt.Errorf("it has %d bytes, %d are wanted", v.Size, n.Size)}
	}
	return v, nil
}

// undo removes a volume that came out smaller than asked for.
func (a *Array) undo(ctx context.Context, v rds.Volume, n rds.NewVolume) error {
	if err := a.Delete(ctx, v.Slot); err != nil {
		return &rds.Error{Kind: rds.ErrUnknownOutcome, Err: fmt.Errorf("the array made %d bytes of %d, and removing them failed: %w", v.Size, n.Size, err)}
	}
	return &rds.Error{Kind: rds.ErrFailed, Err: fmt.Errorf("the array made %d bytes of %d", v.Size, n.Size)}
}

// settleCreated ends what is uncertain about a slot's creation: the slot is
// taken now, so an add that still runs fails, and what it leaves is swept up here or
// when the volume is deleted.
func (a *Array) settleCreated(ctx context.Context, p pool, v rds.Volume, found foundFiles) {
	a.settle(v.Slot)
	a.remember(v)
	leftovers := found.others(v.Path)
	if len(leftovers.files) == 0 && len(leftovers.subvolumes) == 0 {
		return
	}
	if err := a.removeFiles(ctx, p, v.Slot, leftovers); err != nil {
		a.log.Error(err, "files left over by an earlier attempt stay until the volume is deleted", "array", a.cfg.Name, "slot", v.Slot)
	}
}

// image is where a new volume's bytes will be.
type image struct {
	path      string // of the file, without a leading slash
	subvolume string // that holds it, relative to the pool; only on btrfs
}

// newImage chooses a name that was never used: 32 random bits behind the slot,
// so that stale data cannot come back and no script that runs late meets a name
// it knows. On btrfs every volume has a subvolume, since that is what a snapshot
// is taken of.
func newImage(c *Config, p pool, slot string) image {
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	stem := c.BasePath + "/" + slot + "." + hex.EncodeToString(random)
	if p.FS != "btrfs" {
		return image{path: stem + ".img"}
	}
	return image{path: stem + "/disk.img", subvolume: strings.TrimPrefix(stem, p.MountPoint+"/")}
}

// madeHere matches, behind <base>/<slot>, the names that newImage makes.
var madeHere = regexp.MustCompile(`^\.[0-9a-f]{8}(\.img|(/disk\.img)?)$`)

// isMadeHere tells a volume of this driver from one of another plugin, whose image
// is <base>/<slot>.img.
func isMadeHere(v rds.Volume, c *Config) bool {
	rest, ok := strings.CutPrefix(v.Path, "/"+c.BasePath+"/"+v.Slot)
	return ok && madeHere.MatchString(rest)
}

// creation adds a disk if there is none of the slot and no more files of it than
// tolerated. An add that fails takes back what it may have made.
func creation(c *Config, p pool, n rds.NewVolume, to image, tolerated int) *script {
	conditions := []string{
		count(diskMenu, whereSlot(n.Slot), 0),
		count(diskMenu, whereImage(filePrefix(c.BasePath, n.Slot)), 0),
		count(fileMenu, whereFiles(c.BasePath, n.Slot), tolerated),
	}
	// An export that was never named would get a name of RouterOS's choosing,
	// which the other plugin's volumes have, too: generation 0 marks it as ours.
	add := fmt.Sprintf("/disk/add type=file slot=%s file-path=%s file-size=%d mount-filesystem=no nvme-tcp-export=no nvme-tcp-server-port=%d nvme-tcp-server-nqn=%s comment=%s",
		Quote(n.Slot), Quote(to.path), n.Size, c.NVMePort, Quote(rds.NQN(c.NQNPrefix, n.Slot, 0)), Quote(rds.Ledger{Known: true}.String()))
	s := newScript("create", true)
	undo := []string{s.mark(markChanged), removeFile(to.path)}
	if to.subvolume != "" {
		add = fmt.Sprintf("%s/add name=%s fs=%s;%s", subvolumeMenu, Quote(to.subvolume), Quote(p.slot), add)
		undo[1] = removeSubvolume(p, to.subvolume)
	}
	undo = append(undo, s.mark(markUndone), ":error $f")
	s.guarded(conditions, fmt.Sprintf(":onerror f in={%s} do={%s}", add, strings.Join(undo, ";")))
	return s.add(listing(c, p, n.Slot)...)
}
