package csi

import (
	"context"
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
	size     int64 // bytes; 0 for that of the source
	from     rds.Source
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
	v, err := s.make(ctx, c)
	if err := s.creates.note(c.handle, err); err != nil {
		return nil, fmt.Errorf("create volume %s: %w", r.GetName(), err)
	}
	if v.Ledger.Deleting {
		// It is not final: the next attempt may find it over.
		return nil, fmt.Errorf("create volume %s: %w: one of that name is being deleted", r.GetName(), errPending)
	}
	return &spec.CreateVolumeResponse{Volume: &spec.Volume{
		VolumeId:      c.handle,
		CapacityBytes: v.Size,
		VolumeContext: c.volumeContext(c.Backend, c.caps),
		ContentSource: r.GetVolumeContentSource(),
	}}, nil
}

func (s *Server) make(ctx context.Context, c creation) (v rds.Volume, err error) {
	create := func() error {
		v, err = c.Array.Create(ctx, rds.NewVolume{Slot: c.slot, Size: c.size, From: c.from, Least: max(1, c.capacity.required), Limit: c.capacity.limit})
		return err
	}
	if c.from.Volume != "" {
		err = s.adopting(ctx, s.volumeOf(c.Backend, c.from.Volume), create)
	} else {
		err = create()
	}
	return v, err
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
	if r.GetVolumeContentSource() != nil && c.capacity.required == 0 {
		c.size = 0
	}
	b, err := s.backend(c.array)
	if err != nil {
		// Unlike in a handle, an unknown array in a parameter is a plain mistake.
		return c, invalid("parameter %s: %s", paramArray, err)
	}
	c.volume = s.volumeOf(b, rds.SlotFor(r.GetName()))
	c.from, err = s.readSource(b, r.GetVolumeContentSource())
	return c, err
}

// readSource finds what the content comes from, which must be on the same array.
func (s *Server) readSource(b *Backend, given *spec.VolumeContentSource) (rds.Source, error) {
	var from rds.Source
	var on *Backend
	switch {
	case given == nil:
		return from, nil
	case given.GetSnapshot() != nil:
		snap, err := s.locateSnapshot(given.GetSnapshot().GetSnapshotId())
		if err != nil {
			return from, fmt.Errorf("source: %w", err)
		}
		from.Snapshot, on = snap.id, snap.Backend
	case given.GetVolume() != nil:
		vol, err := s.locate(given.GetVolume().GetVolumeId())
		if err != nil {
			return from, fmt.Errorf("source: %w", err)
		}
		from.Volume, on = vol.slot, vol.Backend
	default:
		return from, invalid("volume_content_source is neither a snapshot nor a volume")
	}
	if on != b {
		return from, invalid("source %s is on array %s, and the volume is to be on array %s; set the parameter %s", from, on.Name, b.Name, paramArray)
	}
	return from, nil
}
