package node

import (
	"context"
	"fmt"
	"slices"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

// NodeExpandVolume makes the host see a volume's new size, and its filesystem use it.
func (s *Server) NodeExpandVolume(ctx context.Context, r *spec.NodeExpandVolumeRequest) (*spec.NodeExpandVolumeResponse, error) {
	size, err := s.expand(ctx, r)
	if err != nil {
		return nil, fail(err, "expand volume %q at %q", r.GetVolumeId(), r.GetVolumePath())
	}
	return &spec.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}

func (s *Server) expand(ctx context.Context, r *spec.NodeExpandVolumeRequest) (int64, error) {
	v, err := readVolume(r.GetVolumeId())
	if err != nil {
		return 0, err
	}
	path, err := readMounted("volume_path", r.GetVolumePath())
	if err != nil {
		return 0, err
	}
	required, limit := r.GetCapacityRange().GetRequiredBytes(), r.GetCapacityRange().GetLimitBytes()
	if required < 0 || limit < 0 || limit > 0 && required > limit {
		return 0, invalid("capacity_range makes no sense (required_bytes %d, limit_bytes %d)", required, limit)
	}
	end, err := s.pending.begin(v, "expand volume")
	if err != nil {
		return 0, err
	}
	defer end()
	now, err := s.look()
	if err != nil {
		return 0, err
	}
	d, was, err := s.growing(v, path, now)
	if err != nil {
		return 0, err
	}
	subsystem, _, _ := nvme.ByDev(now.subsystems, d.Dev)
	d, err = s.see(ctx, v, subsystem.NQN, d, max(required, was.Size))
	if err != nil {
		return 0, err
	}
	if limit > 0 && d.Size > limit {
		return 0, fmt.Errorf("%w: %s has %d bytes, and at most %d are allowed", errOutOfRange, d.Name, d.Size, limit)
	}
	if !was.Block {
		if err := s.mounter(v).Grow(ctx, d.Path(), was.Staging); err != nil {
			return 0, err
		}
	}
	logr.FromContextOrDiscard(ctx).Info("expanded", "device", d.Name, "bytes", d.Size)
	return d.Size, s.remember(v, d.Size)
}

// growing finds what is to grow, and where its filesystem is mounted: by the record,
// or, without one, by the path. The path may show it read-only, or, for a block
// volume, not at all. That the device looks smaller than it was is no obstacle: it is
// looked at again, and then is as large or is not.
func (s *Server) growing(v volume, path string, now sight) (nvme.Device, record, error) {
	r, err := s.load(v)
	if err != nil {
		return nvme.Device{}, r, err
	}
	if r.Step != stepStaged {
		d, block, err := s.at(v, path, now)
		return d, record{Block: block, Staging: path}, err
	}
	problems := slices.DeleteFunc(judge(r, now), func(p problem) bool { return p.reason == reasonTooSmall })
	if err := usable(problems); err != nil {
		return nvme.Device{}, r, err
	}
	d, err := nvme.Find(now.subsystems, r.NQN, r.NSID)
	return d, r, err
}

// see makes the kernel look at the size again. Even a connected host may learn of
// it only so.
func (s *Server) see(ctx context.Context, v volume, nqn string, d nvme.Device, size int64) (nvme.Device, error) {
	if err := s.connect.Rescan(ctx, s.run(v), d); err != nil {
		return d, err
	}
	grown, err := s.connect.AwaitSize(ctx, nqn, d.ID, size)
	if err == nil && grown.Dev != d.Dev {
		err = fmt.Errorf("%w: it was device %s, and is %s after looking again", errDead, d.Dev, grown.Dev)
	}
	return grown, err
}

func (s *Server) remember(v volume, size int64) error {
	r, err := s.load(v)
	if err != nil || r.Step != stepStaged {
		return err
	}
	r.Size = size
	return s.records.save(r)
}
