package routeros

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
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
	if err == nil && v.Size < n.Size && !n.Admits(v.Size) {
		v, err = a.grown(ctx, v, n)
	}
	return v, a.about("create volume", n.Slot, err)
}

// grown completes a volume that was made with the size of its source. If that
// fails for good the volume goes: a creation that failed has made nothing.
func (a *Array) grown(ctx context.Context, v rds.Volume, n rds.NewVolume) (rds.Volume, error) {
	bigger, err := a.update(ctx, "grow volume", v.Slot, func(_ context.Context, v rds.Volume) (rds.Change, error) { return rds.Expand(v, n.Size) })
	if !errors.Is(err, rds.ErrNoSpace) && !errors.Is(err, rds.ErrFailed) {
		return bigger, err
	}
	if undone := a.delete(ctx, v.Slot); undone != nil {
		return v, &rds.Error{Kind: rds.ErrUnknownOutcome, Err: fmt.Errorf("%w, and removing it failed: %w", err, undone)}
	}
	return v, err
}

func (a *Array) create(ctx context.Context, n rds.NewVolume) (rds.Volume, error) {
	if err := checkSlot(n.Slot); err != nil {
		return rds.Volume{}, err
	}
	if len(n.Slot) > rds.MaxNewSlot || n.Size < 0 || n.Size == 0 && n.From.Blank() || n.Size%sizeUnit != 0 {
		return rds.Volume{}, &rds.Error{Kind: rds.ErrInvalid, Err: fmt.Errorf("slot of %d characters (at most %d), %d bytes (a multiple of 1 MiB)", len(n.Slot), rds.MaxNewSlot, n.Size)}
	}
	sized, src, err := a.sized(ctx, n, false)
	if err != nil {
		return a.unlessMade(ctx, n, err)
	}
	add, taken, begun := a.add, func(bool) {}, false
	if src != nil && src.image != "" {
		add = a.addCopy
		_, begun, _ = a.tookUp(n.Slot, a.clock.Now())
	}
	if !begun { // a copy under way counted on its space when it began; a fresh view would count it twice
		if taken, err = a.promise(ctx, n.Slot, sized.Size); err != nil {
			return a.unlessMade(ctx, n, err)
		}
	}
	p, err := a.knownPool(ctx)
	if err != nil {
		taken(false)
		return rds.Volume{}, err
	}
	v, created, err := add(ctx, p, n, sized, src)
	taken(created)
	return v, err
}

// sized looks the source up and completes the size by it.
func (a *Array) sized(ctx context.Context, n rds.NewVolume, fresh bool) (rds.NewVolume, *origin, error) {
	src, err := a.origin(ctx, n.From, fresh)
	if err == nil && src != nil {
		n.Size, err = n.Fit(src.size, sizeUnit)
	}
	return n, src, err
}

// unlessMade gives the volume if an earlier attempt made it, or says that its copy goes
// on: then it takes no more space, and what has become of its source since does not
// matter. A look that fails proves nothing, so its error is not the refusal.
func (a *Array) unlessMade(ctx context.Context, n rds.NewVolume, failure error) (rds.Volume, error) {
	final := []error{rds.ErrNoSpace, rds.ErrNotFound, rds.ErrOutOfRange, rds.ErrInUse, rds.ErrLedger, rds.ErrUnderWay}
	if !slices.ContainsFunc(final, func(kind error) bool { return errors.Is(failure, kind) }) {
		return rds.Volume{}, failure
	}
	if err := a.unlessCopied(ctx, n); err != nil {
		return rds.Volume{}, err
	}
	v, err := a.volume(ctx, n.Slot)
	_, began, due := a.tookUp(n.Slot, a.clock.Now())
	switch {
	case err == nil:
		a.isOver(n.Slot)
		return same(v, n)
	case !errors.Is(err, rds.ErrNotFound):
		return rds.Volume{}, err
	case began && !due:
		return rds.Volume{}, beingCopied(n.From)
	}
	a.isOver(n.Slot)
	return rds.Volume{}, failure
}

// add runs the creating script until it either made the volume or found one. n is
// what was asked for, and sized the same with the size that it comes to.
func (a *Array) add(ctx context.Context, p pool, n, sized rds.NewVolume, src *origin) (v rds.Volume, created bool, err error) {
	tolerated := 0
	for range maxTries {
		image := newImage(&a.cfg, p, n.Slot, originTag(n.From))
		got, err := a.changing(ctx, n.Slot, creation(&a.cfg, p, sized, src, image, tolerated))
		if err != nil {
			v, err = a.raced(ctx, n, err)
			return v, false, err
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
			if sized, src, err = a.sized(ctx, n, true); err != nil {
				return rds.Volume{}, false, err
			}
		case found.disk.Path == "/"+image.path && src == nil && found.disk.Size < sized.Size:
			return rds.Volume{}, false, a.undo(ctx, *found.disk, sized)
		case found.disk.Path == "/"+image.path:
			a.settleCreated(ctx, p, *found.disk, found)
			return *found.disk, true, nil
		default:
			if v, err = same(*found.disk, n); err == nil {
				a.settleCreated(ctx, p, v, found)
			}
			return v, false, err
		}
	}
	return rds.Volume{}, false, &rds.Error{Kind: rds.ErrConflict, Err: fmt.Errorf("the files of this slot changed %d times meanwhile", maxTries)}
}

// raced looks again after the array refused: an earlier attempt that was still
// running may have made the volume between this one's question and its add. Only an
// answer that there is none leaves it at the refusal.
func (a *Array) raced(ctx context.Context, n rds.NewVolume, refusal error) (rds.Volume, error) {
	if !errors.Is(refusal, rds.ErrExists) && !errors.Is(refusal, rds.ErrFailed) {
		return rds.Volume{}, refusal
	}
	v, err := a.volume(ctx, n.Slot)
	if errors.Is(err, rds.ErrNotFound) {
		return rds.Volume{}, refusal
	}
	if err == nil {
		v, err = same(v, n)
	}
	if err != nil {
		return rds.Volume{}, err
	}
	a.settle(v.Slot)
	return v, nil
}

// same judges a volume that exists already.
func same(v rds.Volume, n rds.NewVolume) (rds.Volume, error) {
	switch tag := tagOf(v); {
	case v.Ledger.Deleting:
		return rds.Volume{}, &rds.Error{Kind: rds.ErrUnderWay, Err: fmt.Errorf("the deletion of a volume of this name")}
	case tag != originTag(n.From) && n.From.Blank():
		return rds.Volume{}, &rds.Error{Kind: rds.ErrExists, Err: fmt.Errorf("it was made from a snapshot or volume, and an empty one is wanted")}
	case tag != originTag(n.From):
		return rds.Volume{}, &rds.Error{Kind: rds.ErrExists, Err: fmt.Errorf("it was not made from %s", n.From)}
	case n.Admits(v.Size):
		return v, nil
	case n.Size > v.Size && !n.From.Blank() && v.Ledger.Known && len(v.Ledger.Publications) == 0 && !v.Exported:
		return v, nil // an attempt that did not come to growing it, and that nobody has used
	}
	return rds.Volume{}, &rds.Error{Kind: rds.ErrExists, Err: fmt.Errorf("it has %d bytes, %d are wanted", v.Size, n.Size)}
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
// it knows. The tag tells where the content comes from. On btrfs every volume has
// a subvolume, since that is what a snapshot is taken of; the image in one that is
// made of another has its old name there, and yet a path that is new.
func newImage(c *Config, p pool, slot, tag string) image {
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	stem := c.BasePath + "/" + slot + "." + hex.EncodeToString(random) + tag
	if p.FS != "btrfs" {
		return image{path: stem + ".img"}
	}
	return image{path: stem + "/disk.img", subvolume: strings.TrimPrefix(stem, p.MountPoint+"/")}
}

// madeHere matches, behind <base>/<slot>, the names that newImage makes, and those
// of copies under way; it captures the tag.
var madeHere = regexp.MustCompile(`^\.[0-9a-f]{8}(-[0-9a-f]{8})?(\.img|\.[0-9]{1,12}\.part|(/disk\.img)?)$`)

// isMadeHere tells a volume of this driver from one of another plugin, whose image
// is <base>/<slot>.img.
func isMadeHere(v rds.Volume, c *Config) bool {
	rest, ok := strings.CutPrefix(v.Path, "/"+c.BasePath+"/"+v.Slot)
	return ok && madeHere.MatchString(rest)
}

// tagOf reads a volume's tag back from its image's name.
func tagOf(v rds.Volume) string {
	_, rest, _ := strings.Cut(v.Path, "/"+v.Slot+".")
	if part := madeHere.FindStringSubmatch("." + rest); part != nil {
		return part[1]
	}
	return ""
}

// creation adds a disk if there is none of the slot and no more files of it than
// tolerated. An add that fails takes back what it may have made.
func creation(c *Config, p pool, n rds.NewVolume, src *origin, to image, tolerated int) *script {
	conditions := append(vacant(c, n.Slot, tolerated), src.met()...)
	add := addDisk(c, n, src, to)
	s := newScript("create", true)
	undo := []string{s.mark(markChanged), removeFile(to.path)}
	if to.subvolume != "" {
		parent := ""
		if src != nil {
			// Without read-only=yes what is made of a read-only snapshot can be
			// written to, as always on btrfs [INF].
			parent = " parent=" + Quote(src.subvolume)
		}
		add = fmt.Sprintf("%s/add%s name=%s fs=%s;%s", subvolumeMenu, parent, Quote(to.subvolume), Quote(p.slot), add)
		undo[1] = removeSubvolume(p, to.subvolume)
	}
	undo = append(undo, s.mark(markUndone), ":error $f")
	s.guarded(conditions, fmt.Sprintf(":onerror f in={%s} do={%s}", add, strings.Join(undo, ";")))
	return s.add(listing(c, p, n.Slot)...)
}

// vacant are the conditions under which a slot is free.
func vacant(c *Config, slot string, tolerated int) []string {
	return []string{
		count(diskMenu, whereSlot(slot), 0),
		count(diskMenu, whereImage(filePrefix(c.BasePath, slot)), 0),
		count(fileMenu, whereFiles(c.BasePath, slot), tolerated),
	}
}

// addDisk makes a volume's disk: with a new image, or, if there is a source, on
// the image that has its content already. That one is taken as it is, which is
// what an add without file-size does [MAN].
func addDisk(c *Config, n rds.NewVolume, src *origin, to image) string {
	size := fmt.Sprintf(" file-size=%d", n.Size)
	if src != nil {
		size = ""
	}
	// An export that was never named would get a name of RouterOS's choosing,
	// which the other plugin's volumes have, too: generation 0 marks it as ours.
	return fmt.Sprintf("/disk/add type=file slot=%s file-path=%s%s mount-filesystem=no nvme-tcp-export=no nvme-tcp-server-port=%d nvme-tcp-server-nqn=%s comment=%s",
		Quote(n.Slot), Quote(to.path), size, c.NVMePort, Quote(rds.NQN(c.NQNPrefix, n.Slot, 0)), Quote(rds.Ledger{Known: true}.String()))
}
