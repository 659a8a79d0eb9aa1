package csi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// DeleteVolume removes a volume that no node holds.
func (s *Server) DeleteVolume(ctx context.Context, r *spec.DeleteVolumeRequest) (*spec.DeleteVolumeResponse, error) {
	vol, err := s.locate(r.GetVolumeId())
	if err == nil {
		err = s.delete(ctx, vol)
	}
	if err != nil {
		return nil, fmt.Errorf("delete volume %q: %w", r.GetVolumeId(), err)
	}
	return &spec.DeleteVolumeResponse{}, nil
}

// delete asks the cluster first: whatever the ledger says, a volume that is
// attached somewhere is not deleted.
func (s *Server) delete(ctx context.Context, vol volume) error {
	end, err := s.pending.begin(vol.handle, "delete volume")
	if err != nil {
		return err
	}
	defer end()
	attached, err := s.attached(ctx, vol)
	if err != nil {
		return err
	}
	if len(attached) > 0 {
		return fmt.Errorf("%w: a VolumeAttachment says it is attached to %s; it is deleted when that is gone", rds.ErrInUse, strings.Join(attached, " and "))
	}
	err = vol.Array.Delete(ctx, vol.slot)
	if !errors.Is(err, rds.ErrLedger) {
		return err
	}
	// A volume of another plugin, or a comment that was edited: the ledger is
	// rebuilt from what the cluster just said, and then decides as any other.
	if err := s.rebuild(ctx, vol, attached); err != nil && !errors.Is(err, rds.ErrNotFound) {
		return err
	}
	return vol.Array.Delete(ctx, vol.slot)
}

// rebuild writes a ledger for a volume that has none.
func (s *Server) rebuild(ctx context.Context, vol volume, attached []string) error {
	_, err := vol.Array.Update(ctx, vol.slot, func(_ context.Context, v rds.Volume) (rds.Change, error) {
		if v.Ledger.Known {
			return rds.Change{}, nil
		}
		ledger := rds.Rebuild(v, attached, s.config.Now())
		return rds.Change{Ledger: &ledger}, ledger.Check()
	})
	return err
}

// ControllerExpandVolume grows a volume. The node must look at the device again.
func (s *Server) ControllerExpandVolume(ctx context.Context, r *spec.ControllerExpandVolumeRequest) (*spec.ControllerExpandVolumeResponse, error) {
	vol, err := s.locate(r.GetVolumeId())
	if err != nil {
		return nil, fmt.Errorf("expand volume %q: %w", r.GetVolumeId(), err)
	}
	v, err := s.expand(ctx, vol, r)
	if err != nil {
		return nil, fmt.Errorf("expand volume %s: %w", vol.handle, err)
	}
	return &spec.ControllerExpandVolumeResponse{CapacityBytes: v.Size, NodeExpansionRequired: true}, nil
}

func (s *Server) expand(ctx context.Context, vol volume, r *spec.ControllerExpandVolumeRequest) (rds.Volume, error) {
	if r.GetCapacityRange() == nil {
		return rds.Volume{}, invalid("capacity_range is missing")
	}
	capacity, err := readRange(r.GetCapacityRange())
	if err != nil {
		return rds.Volume{}, err
	}
	if r.GetVolumeCapability() != nil {
		if err := checkCapability(r.GetVolumeCapability()); err != nil {
			return rds.Volume{}, err
		}
	}
	var size int64 // a limit alone asks for no growth
	if capacity.required > 0 {
		if size, err = capacity.size(); err != nil {
			return rds.Volume{}, err
		}
	}
	end, err := s.pending.begin(vol.handle, "expand volume")
	if err != nil {
		return rds.Volume{}, err
	}
	defer end()
	v, err := vol.Array.Update(ctx, vol.slot, func(ctx context.Context, v rds.Volume) (rds.Change, error) {
		if capacity.limit > 0 && v.Size > capacity.limit {
			return rds.Change{}, fmt.Errorf("%w: the volume has %d bytes already, at most %d are allowed, and volumes never shrink", rds.ErrOutOfRange, v.Size, capacity.limit)
		}
		if rds.PublishNeedsCluster(v) {
			attached, err := s.attached(ctx, vol)
			if err != nil {
				return rds.Change{}, err
			}
			// Only to decide upon; expanding writes no ledger.
			v.Ledger = rds.Holders(v, "", attached, s.config.Now())
		}
		return rds.Expand(v, size)
	})
	if errors.Is(err, rds.ErrNoSpace) {
		// To csi-resizer OutOfRange alone means that the user may ask for less.
		err = fmt.Errorf("%w: %w", rds.ErrOutOfRange, err)
	}
	return v, err
}

// ControllerGetVolume reads one volume from its array, and who holds it.
func (s *Server) ControllerGetVolume(ctx context.Context, r *spec.ControllerGetVolumeRequest) (*spec.ControllerGetVolumeResponse, error) {
	v, err := s.read(ctx, r.GetVolumeId())
	if err != nil {
		return nil, fmt.Errorf("get volume %q: %w", r.GetVolumeId(), err)
	}
	return &spec.ControllerGetVolumeResponse{
		Volume: &spec.Volume{VolumeId: r.GetVolumeId(), CapacityBytes: v.Size},
		Status: &spec.ControllerGetVolumeResponse_VolumeStatus{PublishedNodeIds: s.config.Cluster.NodeIDs(v.Ledger.Nodes())},
	}, nil
}

// ValidateVolumeCapabilities confirms what a volume can be used for.
func (s *Server) ValidateVolumeCapabilities(ctx context.Context, r *spec.ValidateVolumeCapabilitiesRequest) (*spec.ValidateVolumeCapabilitiesResponse, error) {
	if r.GetVolumeId() == "" || len(r.GetVolumeCapabilities()) == 0 {
		return nil, invalid("validate volume %q: volume_id and volume_capabilities are needed", r.GetVolumeId())
	}
	if _, err := s.read(ctx, r.GetVolumeId()); err != nil {
		return nil, fmt.Errorf("validate volume %q: %w", r.GetVolumeId(), err)
	}
	err := checkCapabilities(r.GetVolumeCapabilities())
	if err == nil {
		_, err = parseParameters(r.GetParameters())
	}
	if err != nil {
		return &spec.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &spec.ValidateVolumeCapabilitiesResponse{Confirmed: &spec.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext:      r.GetVolumeContext(),
		VolumeCapabilities: r.GetVolumeCapabilities(),
		Parameters:         r.GetParameters(),
	}}, nil
}

func (s *Server) read(ctx context.Context, id string) (rds.Volume, error) {
	vol, err := s.locate(id)
	if err != nil {
		return rds.Volume{}, err
	}
	return vol.Array.Volume(ctx, vol.slot)
}

// GetCapacity says how much an array can still promise.
func (s *Server) GetCapacity(ctx context.Context, r *spec.GetCapacityRequest) (*spec.GetCapacityResponse, error) {
	p, err := parseParameters(r.GetParameters())
	if err != nil {
		return nil, fmt.Errorf("get capacity: %w", err)
	}
	b, err := s.backend(p.array)
	if err != nil {
		return nil, invalid("get capacity: parameter %s: %s", paramArray, err)
	}
	if len(r.GetVolumeCapabilities()) > 0 && checkCapabilities(r.GetVolumeCapabilities()) != nil {
		return &spec.GetCapacityResponse{}, nil // none of volumes that cannot be
	}
	view, err := b.Array.View(ctx)
	if err != nil {
		return nil, fmt.Errorf("get capacity of array %s: %w", b.Name, err)
	}
	return &spec.GetCapacityResponse{AvailableCapacity: view.Pool.Available(b.Reserve)}, nil
}
