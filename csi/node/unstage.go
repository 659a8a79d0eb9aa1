package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/mount"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

// NodeUnstageVolume unmounts a volume and disconnects it. It needs neither
// contexts nor a record: the NQN of a volume names its slot.
func (s *Server) NodeUnstageVolume(ctx context.Context, r *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	v, err := readVolume(r.GetVolumeId())
	if err == nil {
		err = s.unstage(ctx, v, r.GetStagingTargetPath())
	}
	if err != nil {
		return nil, fail(err, "unstage volume %q", r.GetVolumeId())
	}
	return &spec.NodeUnstageVolumeResponse{}, nil
}

func (s *Server) unstage(ctx context.Context, v volume, path string) error {
	path, err := readPath("staging_target_path", path)
	if err != nil {
		return err
	}
	end, err := s.pending.begin(v, "unstage volume")
	if err != nil {
		return err
	}
	defer end()
	r, err := s.load(v)
	if err != nil {
		// What the kernel says is enough to take the volume away.
		logr.FromContextOrDiscard(ctx).Info("unstaging without the record", "reason", err.Error())
	}
	now, err := s.look()
	if err != nil {
		return err
	}
	if err := unstageable(v, r, path, now); err != nil {
		return err
	}
	if err := s.mounter(v).Unmount(ctx, path); err != nil {
		return err
	}
	if err := s.release(ctx, v); err != nil {
		return err
	}
	return s.records.remove(v.handle)
}

// unstageable makes sure that what is mounted at the staging path is the volume's,
// and that no pod sees it any more.
func unstageable(v volume, r record, path string, now sight) error {
	for _, e := range now.table.At(path) {
		s, _, known := nvme.ByDev(now.subsystems, e.Dev)
		// A device that is of no subsystem is dead: nothing but the record, or the path,
		// tells whose it was.
		switch {
		case known && !nvme.Names(s.NQN, v.slot):
			return fmt.Errorf("%w: %s is mounted at %s", nvme.ErrForeign, s.NQN, path)
		case !known && !mount.Supported(e.FSType):
			return fmt.Errorf("%w: a %s is mounted at %s", nvme.ErrForeign, e.FSType, path)
		}
		if elsewhere := now.places(e.Dev, e.Point); len(elsewhere) > 0 {
			return fmt.Errorf("%w: it is still published at %s", nvme.ErrInUse, strings.Join(elsewhere, ", "))
		}
	}
	for _, p := range r.Published {
		if _, mounted := now.table.Top(p.Path); mounted {
			return fmt.Errorf("%w: it is still published at %s", nvme.ErrInUse, p.Path)
		}
	}
	return nil
}

// release disconnects every export of the volume. Those of somebody else are left
// alone; one that is in use, or that cannot be cut, is an error: an unstaging that
// succeeds tells the array that this host writes no more.
func (s *Server) release(ctx context.Context, v volume) error {
	now, err := s.settled(ctx, v)
	if err != nil {
		return err
	}
	u, err := s.usage(v, now)
	if err != nil {
		return err
	}
	log := logr.FromContextOrDiscard(ctx)
	for _, subsystem := range nvme.BySlot(now.subsystems, v.slot) {
		err := nvme.MayDisconnect(subsystem, u)
		if errors.Is(err, nvme.ErrForeign) {
			log.Info("left connected", "nqn", subsystem.NQN, "reason", err.Error())
			continue
		}
		if err != nil {
			return err
		}
		if err := s.connect.Disconnect(ctx, s.run(v), subsystem); err != nil {
			return err
		}
		log.Info("disconnected", "nqn", subsystem.NQN)
	}
	return nil
}

const (
	settleTime     = 5 * time.Second
	settleInterval = 200 * time.Millisecond
)

// settled looks at the node when the volume's filesystem is gone: the last mount
// may be that of a container which ends just now.
func (s *Server) settled(ctx context.Context, v volume) (sight, error) {
	end := s.config.Clock.After(settleTime)
	for {
		now, err := s.look()
		if err != nil || !now.lingers(v) {
			return now, err
		}
		select {
		case <-s.config.Clock.After(settleInterval):
		case <-end:
			return now, nil
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}

// lingers reports whether a filesystem of the volume lives that is mounted nowhere
// here.
func (now sight) lingers(v volume) bool {
	for _, s := range nvme.BySlot(now.subsystems, v.slot) {
		for _, n := range s.Namespaces {
			if now.filesystems[n.Name] != "" && len(now.places(n.Dev, "")) == 0 {
				return true
			}
		}
	}
	return false
}
