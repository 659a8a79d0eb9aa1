package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

const (
	scratchSize = 64 << 20
	swapRounds  = 13 // of two connections with maxChannels each: 104 by default
	flips       = 10
)

// scratchChecks change a volume of their own.
func scratchChecks() []Check {
	return []Check{
		{Name: "create", run: create, Level: Scratch,
			Assumption: "one add makes a disk of exactly so many bytes, with its comment, without export",
			Promise:    "a volume is what its claim asked for, and a creation that is repeated finds it",
			Advice:     "report the array's version and this line"},
		{Name: "file", run: fileOfDisk, Level: Scratch,
			Assumption: "the image is in /file under its path without a leading slash",
			Promise:    "deletions leave no file behind, and no stale data comes back",
			Advice:     "report the array's version and this line; look for left files after deletions"},
		{Name: "length of a comment", run: longComment, Level: Scratch,
			Assumption: fmt.Sprintf("a comment of %d printable ASCII characters is kept whole", rds.MaxComment),
			Promise:    "the ledger of who holds a volume",
			Advice:     "do not use this array: it cannot keep the ledger; report its limit"},
		{Name: "compare and swap", run: swaps, Level: Scratch,
			Assumption: "a set whose where names the old comment is carried out at most once among many at the same time",
			Promise:    "no change is made on a reading that is out of date",
			Advice:     "see that one controller only changes the array's volumes (it holds a Lease for that), and edit no comments by hand meanwhile"},
		{Name: "one set, at once", run: atomicSet, Level: Scratch,
			Assumption: "the properties of one set appear together",
			Promise:    "a crash leaves a volume published or not, never half",
			Advice:     "report the array's version and this line"},
		{Name: "new NQN", run: newNQN, Level: Scratch,
			Assumption: "an export that was off takes a new NQN, and get knows it while the export is off",
			Promise:    "a host that was cut off cannot come back to a volume that another one holds",
			Advice:     "do not use this array with forced detachments; report its version and this line"},
		{Name: "comment while exported", run: commentExported, Level: Scratch,
			Assumption: "a comment on an exported disk leaves the export as it is",
			Promise:    "live migrations: the second node is noted down while the VM runs",
			Advice:     "do not use this array for live migration; report its version and this line"},
		{Name: "growth", run: grow, Level: Scratch,
			Assumption: "an exported disk's file-size can be raised, and reads back exactly",
			Promise:    "volumes grow while they are used",
			Advice:     "grow volumes only while no pod uses them"},
		{Name: "delete", run: remove, Level: Scratch,
			Assumption: "removing a disk keeps its file, which can be removed by its name",
			Promise:    "deleted volumes give their space back",
			Advice:     "look for left files below basePath; report the array's version and this line"},
	}
}

var errNoVolume = errors.New("there is no scratch volume: its creation failed")

func create(ctx context.Context, p *patient) outcome {
	v, err := p.array.Create(ctx, rds.NewVolume{Slot: p.slot, Size: scratchSize})
	if err != nil {
		return broke(err)
	}
	p.volume = v
	if v.Size != scratchSize || v.Exported || !v.Ledger.Known {
		return fail("it has %d bytes, exported=%t, the comment %q", v.Size, v.Exported, v.Comment)
	}
	return pass("disk %s of %d bytes", v.Slot, v.Size)
}

// have reads the volume afresh.
func (p *patient) have(ctx context.Context) error {
	if p.volume.Slot == "" {
		return errNoVolume
	}
	v, err := p.array.Volume(ctx, p.slot)
	if err == nil {
		p.volume = v
	}
	return err
}

func fileOfDisk(ctx context.Context, p *patient) outcome {
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	name := strings.TrimPrefix(p.volume.Path, "/")
	n, err := p.text(ctx, ":len [/file/find where name="+routeros.Quote(name)+"]")
	if err != nil {
		return broke(err)
	}
	if n != "1" {
		return fail("/file has %s items of the name %s", n, name)
	}
	return pass("%s", name)
}

// literal finds the scratch disk by its name.
func (p *patient) literal() string { return "[/disk/find where slot=" + routeros.Quote(p.slot) + "]" }

func (p *patient) comment(ctx context.Context, text string) error {
	_, err := p.array.Probe(ctx, true, "/disk/comment "+p.literal()+" comment="+routeros.Quote(text))
	return err
}

func longComment(ctx context.Context, p *patient) outcome {
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	was := p.volume.Comment
	var all strings.Builder
	all.WriteString(was + " | ")
	for c := byte('!'); all.Len() < rds.MaxComment; c++ {
		if c > '~' {
			c = '!'
		}
		all.WriteByte(c)
	}
	if err := p.comment(ctx, all.String()); err != nil {
		return broke(err)
	}
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	kept := p.volume.Comment
	if err := p.comment(ctx, was); err != nil {
		return broke(err)
	}
	if kept != all.String() {
		return fail("of %d characters %d were kept: %q", all.Len(), len(kept), kept)
	}
	return pass("%d characters were kept", all.Len())
}

// swaps lets many contend for the same old comment, again and again. The contenders of
// a round show what stands there afterwards: with one winner all show the same.
func swaps(ctx context.Context, p *patient) outcome {
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	old, total := p.volume.Comment, 0
	for round := range swapRounds {
		seen, err := p.contend(ctx, old, round)
		if err != nil {
			return broke(err)
		}
		total += 2 * p.config.MaxChannels
		if len(seen) != 1 {
			return fail("round %d of swaps ended with %d winners", round+1, len(seen))
		}
		for winner := range seen {
			if !strings.HasPrefix(winner, fmt.Sprintf("rds1 g%d ", round+1)) {
				return fail("round %d of swaps had no winner: the comment is %q", round+1, winner)
			}
			old = winner
		}
	}
	return pass("%d swaps in %d rounds, %d at once over two connections: one winner each", total, swapRounds, 2*p.config.MaxChannels)
}

func (p *patient) contend(ctx context.Context, old string, round int) (map[string]bool, error) {
	var mu sync.Mutex
	seen := map[string]bool{}
	group, ctx := errgroup.WithContext(ctx)
	for i := range 2 * p.config.MaxChannels {
		array := []*routeros.Array{p.array, p.second}[i%2]
		group.Go(func() error {
			mine := fmt.Sprintf("rds1 g%d swap-%d=%d", round+1, i, p.now().Unix())
			compared := "[/disk/find where slot=" + routeros.Quote(p.slot) + " and comment=" + routeros.Quote(old) + "]"
			values, err := array.Probe(ctx, true, "/disk/set "+compared+" comment="+routeros.Quote(mine), routeros.Show("/disk/get "+p.literal()+" comment"))
			if err != nil {
				return err
			}
			shown, err := decodeText(values[0])
			mu.Lock()
			defer mu.Unlock()
			seen[shown] = true
			return err
		})
	}
	return seen, group.Wait()
}

// export switches the export on or off, together with the comment, in one set.
func (p *patient) export(ctx context.Context, generation uint64, on bool) error {
	comment, state := fmt.Sprintf("rds1 g%d off=0", generation), "no"
	if on {
		comment, state = fmt.Sprintf("rds1 g%d on=0", generation), "yes"
	}
	set := "/disk/set " + p.literal() + " nvme-tcp-export=" + state + " comment=" + routeros.Quote(comment)
	if on {
		set += " nvme-tcp-server-nqn=" + routeros.Quote(rds.NQN(p.config.NQNPrefix, p.slot, generation))
	}
	if _, err := p.array.Probe(ctx, true, set); err != nil {
		return err
	}
	return p.have(ctx)
}

// atomicSet flips the export with a comment that says so, and looks meanwhile.
func atomicSet(ctx context.Context, p *patient) outcome {
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	if err := p.export(ctx, 100, false); err != nil {
		return broke(err)
	}
	looking, stop := context.WithCancel(ctx)
	looks, half := 0, ""
	var group errgroup.Group
	group.Go(func() error {
		for looking.Err() == nil {
			v, err := p.second.Volume(looking, p.slot)
			if err != nil {
				return nil // an end, or a line that breaks: the flips decide
			}
			looks++
			if v.Exported != strings.Contains(v.Comment, " on=") {
				half = fmt.Sprintf("exported=%t with the comment %q", v.Exported, v.Comment)
			}
		}
		return nil
	})
	var err error
	for i := uint64(1); i <= flips && err == nil; i++ {
		err = p.export(ctx, 100+i, i%2 == 1)
	}
	stop()
	_ = group.Wait() // it returns none
	switch {
	case err != nil:
		return broke(err)
	case half != "":
		return fail("half a set was seen: %s", half)
	case looks == 0:
		return unknown("nobody looked in time")
	}
	return pass("%d sets, %d looks, never half of one", flips, looks)
}

func newNQN(ctx context.Context, p *patient) outcome {
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	for _, generation := range []uint64{200, 201} {
		if err := p.export(ctx, generation, true); err != nil {
			return broke(err)
		}
		want := rds.NQN(p.config.NQNPrefix, p.slot, generation)
		if p.volume.NQN != want || !p.volume.Exported {
			return fail("exported=%t as %q instead of %q", p.volume.Exported, p.volume.NQN, want)
		}
		if err := p.export(ctx, generation, false); err != nil {
			return broke(err)
		}
		known, err := p.text(ctx, "/disk/get "+p.literal()+" nvme-tcp-server-nqn")
		if err != nil {
			return broke(err)
		}
		if known != want || p.volume.Exported {
			return fail("when off: exported=%t, get shows %q instead of %q", p.volume.Exported, known, want)
		}
	}
	return pass("%s, then %s", "…g200", "…g201")
}

func commentExported(ctx context.Context, p *patient) outcome {
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	if err := p.export(ctx, 300, true); err != nil {
		return broke(err)
	}
	before := p.volume
	if err := p.comment(ctx, "rds1 g301 on=0 second=1"); err != nil {
		return broke(err)
	}
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	if after := p.volume; !after.Exported || after.NQN != before.NQN || after.Comment != "rds1 g301 on=0 second=1" {
		return fail("afterwards exported=%t as %q with the comment %q", after.Exported, after.NQN, after.Comment)
	}
	return pass("the export stays on under its name (what a host notices, --node tells)")
}

func grow(ctx context.Context, p *patient) outcome {
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	if !p.volume.Exported {
		return unknown("the volume is not exported")
	}
	const larger = 2 * scratchSize
	v, err := p.array.Update(ctx, p.slot, func(context.Context, rds.Volume) (rds.Change, error) {
		return rds.Change{Size: larger}, nil
	})
	if err != nil {
		return broke(err)
	}
	if v.Size != larger || !v.Exported {
		return fail("it has %d bytes instead of %d, exported=%t", v.Size, larger, v.Exported)
	}
	p.volume = v
	return pass("from %d to %d bytes while exported", scratchSize, v.Size)
}

func remove(ctx context.Context, p *patient) outcome {
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	name := ":len [/file/find where name=" + routeros.Quote(strings.TrimPrefix(p.volume.Path, "/")) + "]"
	values, err := p.array.Probe(ctx, true,
		"/disk/set "+p.literal()+" nvme-tcp-export=no", "/disk/remove "+p.literal(), routeros.Show(":len "+p.literal()), routeros.Show(name))
	if err != nil {
		return broke(err)
	}
	disks, err1 := decodeText(values[0])
	files, err2 := decodeText(values[1])
	if err := errors.Join(err1, err2); err != nil {
		return fail("%v", err)
	}
	if err := p.array.Delete(ctx, p.slot); err != nil {
		return broke(err)
	}
	left, err := p.text(ctx, name)
	switch {
	case err != nil:
		return broke(err)
	case disks != "0" || left != "0":
		return fail("%s disks and %s files are left", disks, left)
	case files != "1":
		return pass("disk and file are gone; the file went with the disk already, which is no harm")
	}
	return pass("disk and file are gone")
}
