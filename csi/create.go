package csi

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// namePattern bounds volume names. None of them reaches the array (slots are
// derived), but they stand in messages and logs.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$`)

// creation is a CreateVolume request that makes sense.
type creation struct {
	volume
	parameters
	capacity sizeRange
	size     int64 // bytes
	caps     []*spec.VolumeCapability
}

// CreateVolume makes a volume, or finds the one that an earlier attempt made.
func (s *Server) CreateVolume(ctx context.Context, r *spec.CreateVolumeRequest) (*spec.CreateVolumeResponse, error) {
	c, err := s.readCreation(r)
	if err != nil {
		return nil, fmt.Errorf("create volume %q: %w", r.GetName(), err)
	}
	end, err := s.pending.begin(c.handle, "create volume")
	if err != nil {
		return nil, err
	}
	defer end()
	v, err := c.Array.Create(ctx, rds.NewVolume{Slot: c.slot, Size: c.size})
	if errors.Is(err, rds.ErrExists) && c.capacity.limit > 0 {
		v, err = c.existing(ctx, err)
	}
	if err := s.creates.note(c.handle, err); err != nil && !errors.Is(err, rds.ErrInUse) {
		return nil, fmt.Errorf("create volume %s: %w", r.GetName(), err)
	}
	if err != nil || v.Ledger.Deleting {
		// Only a deletion forbids a creation. It is not final: the next attempt may find it over.
		return nil, fmt.Errorf("create volume %s: %w: one of that name is being deleted", r.GetName(), errPending)
	}
	return &spec.CreateVolumeResponse{Volume: &spec.Volume{
		VolumeId:      c.handle,
		CapacityBytes: v.Size,
		VolumeContext: c.volumeContext(c.Backend, c.caps),
	}}, nil
}

// existing accepts a volume of another size that meets the range that was asked for.
func (c creation) existing(ctx context.Context, exists error) (rds.Volume, error) {
	v, err := c.Array.Volume(ctx, c.slot)
	if err != nil {
		return v, err
	}
	if !c.capacity.admits(v.Size) {
		return v, exists
	}
	return v, nil
}

// readCreation refuses everything that could not be meant, before the array is
// asked.
func (s *Server) readCreation(r *spec.CreateVolumeRequest) (creation, error) {
	c := creation{caps: r.GetVolumeCapabilities()}
	if r.GetName() == "" {
		return c, invalid("name is missing")
	}
	if !namePattern.MatchString(r.GetName()) {
		return c, invalid("the name may hold letters, digits, '.', '_' and '-' only, and at most 253 of them")
	}
	if err := checkCapabilities(c.caps); err != nil {
		return c, err
	}
	if r.GetVolumeContentSource() != nil {
		return c, invalid("volumes from snapshots and clones are not supported yet; create an empty one")
	}
	if len(r.GetMutableParameters()) > 0 {
		return c, invalid("mutable parameters (a VolumeAttributesClass) are not supported")
	}
	var err error
	if c.parameters, err = parseParameters(r.GetParameters()); err != nil {
		return c, err
	}
	if c.capacity, err = readRange(r.GetCapacityRange()); err != nil {
		return c, err
	}
	if c.size, err = c.capacity.size(); err != nil {
		return c, err
	}
	b, err := s.backend(c.array)
	if err != nil {
		// Unlike in a handle, an unknown array in a parameter is a plain mistake.
		return c, invalid("parameter %s: %s", paramArray, err)
	}
	c.volume = s.volumeOf(b, rds.SlotFor(r.GetName()))
	return c, nil
}
