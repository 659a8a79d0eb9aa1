package node

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

// NodeGetVolumeStats says how large a volume is, and how full its filesystem.
func (s *Server) NodeGetVolumeStats(ctx context.Context, r *spec.NodeGetVolumeStatsRequest) (*spec.NodeGetVolumeStatsResponse, error) {
	usage, err := s.stats(ctx, r)
	if err != nil {
		return nil, fail(err, "stats of volume %q at %q", r.GetVolumeId(), r.GetVolumePath())
	}
	return &spec.NodeGetVolumeStatsResponse{Usage: usage}, nil
}

func (s *Server) stats(ctx context.Context, r *spec.NodeGetVolumeStatsRequest) ([]*spec.VolumeUsage, error) {
	v, err := readVolume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	path, err := readMounted("volume_path", r.GetVolumePath())
	if err != nil {
		return nil, err
	}
	now, err := s.look()
	if err != nil {
		return nil, err
	}
	d, node, err := s.at(v, path, now)
	if err != nil {
		return nil, err
	}
	if node {
		return []*spec.VolumeUsage{{Unit: spec.VolumeUsage_BYTES, Total: d.Size}}, nil
	}
	var u Usage
	err = s.patient.do(ctx, path, func() error {
		var err error
		u, err = s.config.Statfs(path)
		return err
	})
	if errors.Is(err, syscall.EIO) {
		err = fmt.Errorf("%w: %w", errDead, err)
	}
	if err != nil {
		return nil, err
	}
	return []*spec.VolumeUsage{
		{Unit: spec.VolumeUsage_BYTES, Total: u.Total, Used: u.Used, Available: u.Available},
		{Unit: spec.VolumeUsage_INODES, Total: u.Inodes, Used: u.InodesUsed, Available: u.InodesFree},
	}, nil
}

// at finds the volume's device by what a path shows.
func (s *Server) at(v volume, path string, now sight) (d nvme.Device, node bool, err error) {
	dev, node, mounted := now.shows(path)
	if !mounted {
		return d, false, fmt.Errorf("%w: nothing is mounted at %s", errNotHere, path)
	}
	subsystem, d, known := nvme.ByDev(now.subsystems, dev)
	switch {
	case known && !nvme.Names(subsystem.NQN, v.slot):
		return d, node, fmt.Errorf("%w: %s is mounted at %s", errNotHere, subsystem.NQN, path)
	case known:
		return d, node, nil
	}
	if r, err := s.load(v); err == nil && r.Step == stepStaged {
		return d, node, fmt.Errorf("%w: the device %s that %s shows is gone", errDead, dev, path)
	}
	return d, node, fmt.Errorf("%w: %s shows no NVMe device", errNotHere, path)
}
