package doctor

import (
	"context"
	"fmt"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Host is this machine, as a node of the cluster.
type Host interface {
	// Connect connects to an export, if it is not yet, and waits for a device of at
	// least size bytes with a live connection.
	Connect(ctx context.Context, nqn string, size int64) (Device, error)
	// Look reads the device of an export that is connected.
	Look(ctx context.Context, nqn string) (Device, error)
	// Rescan has the kernel look at the device again, and waits for the size.
	Rescan(ctx context.Context, nqn string, size int64) (Device, error)
	// Lost waits until no connection to an export carries I/O any more.
	Lost(ctx context.Context, nqn string) error
	// Release cuts every connection to any export of the volume.
	Release(ctx context.Context, slot string) error
}

// Device is what a host sees of an export.
type Device struct {
	Name     string
	Identity string // what the array says identifies the namespace
	Size     int64  // bytes
	Live     int    // connections that carry I/O
}

func nodeChecks() []Check {
	return []Check{
		{Name: "connect", run: connect, Level: OnNode,
			Assumption: "a host that knows the NQN can connect, and sees namespace 1 of the exact size",
			Promise:    "pods get their volumes",
			Advice:     "check nvmeAddresses and the way from this node to them; load the module nvme-tcp"},
		{Name: "comment, seen by a host", run: commentConnected, Level: OnNode,
			Assumption: "a comment on an exported disk does not disturb a connected host",
			Promise:    "live migrations: the second node is noted down while the VM runs",
			Advice:     "do not use this array for live migration; report its version and this line"},
		{Name: "growth, seen by a host", run: growthSeen, Level: OnNode,
			Assumption: "a connected host sees the new size, after a rescan at the latest",
			Promise:    "volumes grow while they are used",
			Advice:     "grow volumes only while no pod uses them"},
		{Name: "identity", run: identityKept, Level: OnNode,
			Assumption: "the namespace keeps its identity when the export goes off and on",
			Promise:    "hosts find their disk again after the array restarts, whatever else is set",
			Advice:     "after the array restarts, restart the pods that use its volumes"},
		{Name: "new NQN, seen by a host", run: nqnTaken, Level: OnNode,
			Assumption: "an export that is on takes a new NQN in one set, which cuts off who was connected by the old one",
			Promise:    "a host that the ledger names no more, since it was lost or mended by hand, cannot write beside the next one",
			Advice:     "where a volume's ledger was lost or mended by hand, and no node holds it, switch its export off before a pod starts; report the array's version and this line"},
	}
}

func connect(ctx context.Context, p *patient) outcome {
	if err := p.have(ctx); err != nil {
		return broke(err)
	}
	if err := p.export(ctx, 400, true); err != nil {
		return broke(err)
	}
	d, err := p.host.Connect(ctx, p.volume.NQN, p.volume.Size)
	if err != nil {
		return fail("%v", err)
	}
	if d.Size != p.volume.Size {
		return fail("%s has %d bytes, the array's disk %d", d.Name, d.Size, p.volume.Size)
	}
	return pass("%s of %d bytes, %d connections, identity %s", d.Name, d.Size, d.Live, d.Identity)
}

// look reads the volume and the device that an earlier check connected.
func (p *patient) look(ctx context.Context) (Device, error) {
	if err := p.have(ctx); err != nil {
		return Device{}, err
	}
	d, err := p.host.Look(ctx, p.volume.NQN)
	if err != nil {
		return d, fmt.Errorf("not connected: %w", err)
	}
	return d, nil
}

func commentConnected(ctx context.Context, p *patient) outcome {
	before, err := p.look(ctx)
	if err != nil {
		return unknown("%v", err)
	}
	if err := p.comment(ctx, "rds1 g401 on=0 second=1"); err != nil {
		return broke(err)
	}
	after, err := p.look(ctx)
	if err != nil {
		return fail("afterwards: %v", err)
	}
	if after != before {
		return fail("%+v became %+v", before, after)
	}
	return pass("%s is as it was", after.Name)
}

func growthSeen(ctx context.Context, p *patient) outcome {
	before, err := p.look(ctx)
	if err != nil {
		return unknown("%v", err)
	}
	larger := p.volume.Size + scratchSize
	_, err = p.array.Update(ctx, p.slot, func(context.Context, rds.Volume) (rds.Change, error) { return rds.Change{Size: larger}, nil })
	if err != nil {
		return broke(err)
	}
	if d, err := p.look(ctx); err == nil && d.Size == larger {
		return pass("from %d to %d bytes, at once", before.Size, d.Size)
	}
	d, err := p.host.Rescan(ctx, p.volume.NQN, larger)
	if err != nil || d.Size != larger {
		return fail("from %d bytes the array went to %d, the host to %d: %v", before.Size, larger, d.Size, err)
	}
	return pass("from %d to %d bytes, after a rescan", before.Size, d.Size)
}

func identityKept(ctx context.Context, p *patient) outcome {
	before, err := p.look(ctx)
	if err != nil {
		return unknown("%v", err)
	}
	if before.Identity == "" {
		return fail("the array gives the namespace no identity")
	}
	// The same generation twice: the NQN stays, as over a restart of the array.
	for _, on := range []bool{false, true} {
		if err := p.export(ctx, 400, on); err != nil {
			return broke(err)
		}
	}
	after, err := p.host.Connect(ctx, p.volume.NQN, p.volume.Size)
	if err != nil {
		return fail("the host did not get its device back: %v", err)
	}
	if after.Identity != before.Identity {
		return fail("it was %s and is %s", before.Identity, after.Identity)
	}
	return pass("%s, before and after", after.Identity)
}

// nqnTaken does what the first publication does to an export that is on, though the
// ledger names nobody.
func nqnTaken(ctx context.Context, p *patient) outcome {
	if _, err := p.look(ctx); err != nil {
		return unknown("%v", err)
	}
	const generation = 500
	old, taken := p.volume.NQN, rds.NQN(p.config.NQNPrefix, p.slot, generation)
	if err := p.export(ctx, generation, true); err != nil {
		return broke(err)
	}
	if p.volume.NQN != taken || !p.volume.Exported {
		return fail("afterwards exported=%t as %q instead of %q", p.volume.Exported, p.volume.NQN, taken)
	}
	if err := p.host.Lost(ctx, old); err != nil {
		return fail("the host is not cut off: %v", err)
	}
	// Its kernel would go on knocking by the old name; one knock more tells as much.
	if err := p.host.Release(ctx, p.slot); err != nil {
		return unknown("%v", err)
	}
	if d, err := p.host.Connect(ctx, old, p.volume.Size); err == nil || d.Live > 0 {
		return fail("the host could connect to %s again", old)
	}
	d, err := p.host.Connect(ctx, taken, p.volume.Size)
	if err != nil {
		return fail("the host cannot connect to %s: %v", taken, err)
	}
	return pass("the host lost …g400, cannot get it back, and is connected to …g%d as %s", generation, d.Name)
}
