package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/mount"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// staging is a request to bring a volume to this node.
type staging struct {
	volume
	access
	server  *Server
	path    string
	target  nvme.Target
	mounter *mount.Mounter
}

// NodeStageVolume connects a volume and, if it is a filesystem, mounts it.
func (s *Server) NodeStageVolume(ctx context.Context, r *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	g, err := s.readStaging(ctx, r)
	if err == nil {
		err = g.run(ctx)
	}
	if err != nil {
		return nil, fail(err, "stage volume %q", r.GetVolumeId())
	}
	return &spec.NodeStageVolumeResponse{}, nil
}

func (s *Server) readStaging(ctx context.Context, r *spec.NodeStageVolumeRequest) (staging, error) {
	g := staging{server: s}
	var err error
	if g.volume, err = readVolume(r.GetVolumeId()); err != nil {
		return g, err
	}
	if g.path, err = readPath("staging_target_path", r.GetStagingTargetPath()); err != nil {
		return g, err
	}
	if g.access, err = readAccess(r.GetVolumeCapability()); err != nil {
		return g, err
	}
	g.mounter = s.mounter(g.volume)
	g.target, err = s.readTarget(ctx, g.volume, r.GetPublishContext(), r.GetVolumeContext())
	return g, err
}

func (g staging) run(ctx context.Context) error {
	end, err := g.server.pending.begin(g.volume, "stage volume")
	if err != nil {
		return err
	}
	defer end()
	old, err := g.server.load(g.volume)
	if err != nil {
		return err
	}
	now, err := g.server.look()
	if err != nil {
		return err
	}
	if done, err := g.inPlace(old, now); done || err != nil {
		return err
	}
	if err := g.retire(ctx, now); err != nil {
		return err
	}
	err = g.bring(ctx, old)
	if final(err) {
		g.cleanUp(ctx)
	}
	return err
}

// inPlace decides about what an earlier request has staged: it is done, it is
// something else, or it is dead, and then nothing may be put in its place while a
// pod may still use it.
func (g staging) inPlace(old record, now sight) (done bool, err error) {
	found := g.found(old, now)
	if found.Step != stepStaged {
		return false, nil
	}
	uses := found.uses(now)
	switch {
	case !found.Block && len(uses) == 0, found.Block && len(uses) == 0 && found.NQN != g.target.NQN:
		return false, nil // nobody uses what may be left of it
	case found.Staging != g.path && !found.Block:
		return false, fmt.Errorf("%w: it is staged at %s", errIncompatible, found.Staging)
	case found.Block != g.block:
		return false, fmt.Errorf("%w: it is staged as %s", errIncompatible, found.mode())
	case !g.block && g.fstype != "" && found.FSType != "" && g.fstype != found.FSType:
		return false, fmt.Errorf("%w: its filesystem is %s, and %s is wanted", errIncompatible, found.FSType, g.fstype)
	case !g.block && g.readOnly != found.ReadOnly:
		return false, fmt.Errorf("%w: it is staged with read-only %t, and %t is wanted", errIncompatible, found.ReadOnly, g.readOnly)
	case found.NQN != g.target.NQN:
		return false, fmt.Errorf("%w: it is still staged as the older export %s, at %s, and is exported as %s now; it is staged anew after the pods that use it on this node have stopped", nvme.ErrInUse, found.NQN, uses[0], g.target.NQN)
	}
	if len(uses) == 0 {
		return false, nil // a block volume: connecting it again costs nothing and repairs paths
	}
	if err := usable(judge(found, now)); err != nil {
		return false, err
	}
	return true, g.server.records.save(found)
}

// found is the record of what is staged. A mount that is in place without one was
// made by another plugin, or the plugin was killed right after it.
func (g staging) found(old record, now sight) record {
	if old.Step == stepStaged || g.block {
		return old
	}
	top, mounted := now.table.Top(g.path)
	if !mounted {
		return old
	}
	r := g.record(stepStaged)
	r.Dev, r.FSType, r.ReadOnly = top.Dev, top.FSType, top.SuperReadOnly
	// A mount whose device is of no subsystem is judged dead by what was asked for.
	if s, d, ok := nvme.ByDev(now.subsystems, top.Dev); ok {
		r.NQN, r.NSID, r.Identity, r.Size = s.NQN, d.ID, d.Identity, 0
	}
	return r
}

func (g staging) record(step string) record {
	return record{
		Volume: g.handle, BootID: g.server.config.BootID, Step: step, Staging: g.path, Block: g.block, ReadOnly: g.readOnly,
		NQN: g.target.NQN, NSID: g.target.NSID, Portals: len(g.target.Portals), Size: g.target.Size,
	}
}

func (r record) mode() string {
	if r.Block {
		return "a block volume"
	}
	return "a filesystem"
}

// retire disconnects older exports of the volume. The array has switched them
// off, but a host goes on knocking, and their devices are not to be mistaken.
func (g staging) retire(ctx context.Context, now sight) error {
	u, err := g.server.usage(g.volume, now)
	if err != nil {
		return err
	}
	for _, s := range nvme.BySlot(now.subsystems, g.slot) {
		if s.NQN == g.target.NQN {
			continue
		}
		switch err := nvme.MayDisconnect(s, u); {
		case errors.Is(err, nvme.ErrForeign):
			logr.FromContextOrDiscard(ctx).V(1).Info("left alone", "nqn", s.NQN, "reason", err.Error())
		case err != nil:
			return fmt.Errorf("an older export of the volume: %w", err)
		default:
			logr.FromContextOrDiscard(ctx).Info("disconnecting an older export of the volume", "nqn", s.NQN)
			if err := g.server.connect.Disconnect(ctx, g.server.run(g.volume), s); err != nil {
				return err
			}
		}
	}
	return nil
}

// bring connects the volume and mounts it. Every step is written down before it
// is taken.
func (g staging) bring(ctx context.Context, old record) error {
	r := g.record(stepConnect)
	// What was begun on this very export; an NQN without a generation is not given
	// up between two stagings, and so proves nothing.
	if rds.MadeHere(g.target.NQN, g.slot) && old.FormatBegun == g.target.NQN {
		r.FormatBegun = old.FormatBegun
	}
	if err := g.server.records.save(r); err != nil {
		return err
	}
	d, partial, err := g.server.connect.Connect(ctx, g.server.run(g.volume), g.target)
	if err != nil {
		return err
	}
	if partial != nil {
		logr.FromContextOrDiscard(ctx).Info("the volume is connected by fewer paths than asked for", "device", d.Name, "reason", partial.Error())
	}
	r.Dev, r.Identity, r.Size = d.Dev, d.Identity, max(g.target.Size, d.Size)
	if !g.block {
		if err := g.mount(ctx, &r, d); err != nil {
			return err
		}
	}
	r.Step = stepStaged
	if err := g.server.records.save(r); err != nil {
		return err
	}
	logr.FromContextOrDiscard(ctx).Info("staged", "device", d.Name, "dev", d.Dev, "nqn", g.target.NQN, "connections", len(d.Controllers))
	return nil
}

// mount formats the device if it is blank, and mounts it.
func (g staging) mount(ctx context.Context, r *record, d nvme.Device) error {
	content, err := g.mounter.Inspect(ctx, d.Path(), d.Size)
	if err != nil {
		return err
	}
	plan, err := mount.Decide(content, mount.Wish{Type: g.fstype, ReadOnly: g.readOnly, Begun: r.FormatBegun != ""})
	if err != nil {
		return fmt.Errorf("device %s: %w", d.Name, err)
	}
	if err := g.prepare(ctx, r, d, plan); err != nil {
		return err
	}
	r.Step, r.FSType, r.FormatBegun = stepMount, plan.Type, ""
	if err := g.server.records.save(*r); err != nil {
		return err
	}
	if err := mount.MakeDir(g.path); err != nil {
		return err
	}
	if err := g.mounter.Filesystem(ctx, d.Path(), g.path, plan.Type, g.options); err != nil {
		return err
	}
	table, err := g.mounter.Table()
	if err != nil {
		return err
	}
	top, mounted := table.Top(g.path)
	if !mounted || top.Dev != d.Dev {
		return fmt.Errorf("%w: %s shows device %s after mounting %s (%s)", mount.ErrNotMounted, g.path, top.Dev, d.Name, d.Dev)
	}
	if plan.Format || g.readOnly {
		return nil
	}
	// A restored or grown volume is larger than its filesystem. That it is not fully
	// used keeps no pod from starting.
	if err := g.mounter.Grow(ctx, d.Path(), g.path); err != nil {
		logr.FromContextOrDiscard(ctx).Info("the filesystem could not be grown to the size of its device; it is used as it is", "device", d.Name, "reason", err.Error())
	}
	return nil
}

// prepare makes a filesystem, or checks the one that there is.
func (g staging) prepare(ctx context.Context, r *record, d nvme.Device, plan mount.Plan) error {
	if plan.Format {
		// Killed after this, the half-made filesystem is known to be ours.
		r.Step, r.FormatBegun = stepFormat, g.target.NQN
		if err := g.server.records.save(*r); err != nil {
			return err
		}
		logr.FromContextOrDiscard(ctx).Info("formatting a blank device", "device", d.Name, "filesystem", plan.Type, "bytes", d.Size)
		return g.mounter.Format(ctx, d.Path(), plan.Type)
	}
	live, err := liveFilesystems(g.server.config.Sys)
	if err != nil || g.readOnly || live[d.Name] != "" { // mounted in another mount namespace: not to be repaired
		return err
	}
	return g.mounter.Check(ctx, d.Path(), plan.Type)
}

// cleanUpTime bounds what is done after a failure, for which kubelet may no
// longer wait.
const cleanUpTime = 90 * time.Second

// cleanUp undoes a staging that failed for good: kubelet takes such an error for
// "nothing is left", and does not unstage. What cannot be undone stays, with its
// record, for the next request.
func (g staging) cleanUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	log := logr.FromContextOrDiscard(ctx)
	r, err := g.server.load(g.volume)
	if err == nil && !g.block {
		err = g.mounter.Unmount(ctx, g.path)
	}
	if err == nil {
		err = g.server.release(ctx, g.volume)
	}
	if err == nil && r.FormatBegun == "" {
		err = g.server.records.remove(g.handle)
	}
	if err != nil {
		log.Info("what a failed staging left could not be cleaned up; the next one goes on from there", "reason", err.Error())
	}
}
