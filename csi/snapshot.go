package csi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// snapshot is one snapshot that a request speaks of. Its handle is made like a
// volume's.
type snapshot struct {
	*Backend
	id     string
	handle string
}

// locateSnapshot finds the array and the id of a snapshot handle. What no
// snapshot of this driver can be called is ErrNotFound.
func (s *Server) locateSnapshot(handle string) (snapshot, error) {
	if handle == "" {
		return snapshot{}, invalid("snapshot_id is missing")
	}
	h, err := rds.ParseHandle(handle)
	if err != nil || !rds.ValidSnapshot(h.Slot) {
		return snapshot{}, fmt.Errorf("%w: this driver makes no snapshot %q", rds.ErrNotFound, handle)
	}
	b, err := s.backend(h.Array)
	if err != nil {
		return snapshot{}, fmt.Errorf("snapshot %s: %w", handle, err)
	}
	return snapshot{Backend: b, id: h.Slot, handle: s.volumeOf(b, h.Slot).handle}, nil
}

// CreateSnapshot keeps the present content of a volume, or finds what an earlier
// attempt made of it.
func (s *Server) CreateSnapshot(ctx context.Context, r *spec.CreateSnapshotRequest) (*spec.CreateSnapshotResponse, error) {
	made, err := s.createSnapshot(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("create snapshot %q of volume %q: %w", r.GetName(), r.GetSourceVolumeId(), err)
	}
	return &spec.CreateSnapshotResponse{Snapshot: made}, nil
}

func (s *Server) createSnapshot(ctx context.Context, r *spec.CreateSnapshotRequest) (*spec.Snapshot, error) {
	switch {
	case r.GetName() == "":
		return nil, invalid("name is missing")
	case !namePattern.MatchString(r.GetName()):
		return nil, invalid("the name may hold letters, digits, '.', '_' and '-' only, and at most 253 of them")
	case r.GetSourceVolumeId() == "":
		return nil, invalid("source_volume_id is missing")
	}
	if err := checkSnapshotParameters(r.GetParameters()); err != nil {
		return nil, err
	}
	vol, err := s.locate(r.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	id := rds.SnapshotFor(r.GetName())
	end, err := s.pending.begin(s.volumeOf(vol.Backend, id).handle, "create snapshot")
	if err != nil {
		return nil, err
	}
	defer end()
	var made rds.Snapshot
	err = s.adopting(ctx, vol, func() error {
		made, err = vol.Array.CreateSnapshot(ctx, rds.NewSnapshot{ID: id, Source: vol.slot})
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.snapshotMessage(vol.Backend, made), nil
}

// checkSnapshotParameters refuses parameters of a VolumeSnapshotClass: there are
// none but the sidecar's own.
func checkSnapshotParameters(given map[string]string) error {
	for key := range given {
		if !strings.HasPrefix(key, sidecarPrefix) {
			return invalid("parameter %q is not known; a VolumeSnapshotClass of this driver needs none", key)
		}
	}
	return nil
}

// adopting does what needs a volume's ledger. Where there is none (another
// plugin's volume, an edited comment) it is rebuilt from what the cluster says,
// and then decides as any other.
func (s *Server) adopting(ctx context.Context, vol volume, do func() error) error {
	err := do()
	if !errors.Is(err, rds.ErrLedger) {
		return err
	}
	end, pending := s.pending.begin(vol.handle, "rebuild the ledger")
	if pending != nil {
		return pending
	}
	defer end()
	attached, err := s.attached(ctx, vol)
	if err == nil {
		err = s.rebuild(ctx, vol, attached)
	}
	if err != nil {
		return err
	}
	return do()
}

func (s *Server) snapshotMessage(b *Backend, made rds.Snapshot) *spec.Snapshot {
	return &spec.Snapshot{
		SnapshotId:     s.volumeOf(b, made.ID).handle,
		SourceVolumeId: s.volumeOf(b, made.Source).handle,
		SizeBytes:      made.Size,
		CreationTime:   timestamppb.New(made.Created),
		ReadyToUse:     made.Ready,
	}
}

// DeleteSnapshot removes a snapshot. Volumes made from it do not need it.
func (s *Server) DeleteSnapshot(ctx context.Context, r *spec.DeleteSnapshotRequest) (*spec.DeleteSnapshotResponse, error) {
	snap, err := s.locateSnapshot(r.GetSnapshotId())
	if errors.Is(err, rds.ErrNotFound) {
		return &spec.DeleteSnapshotResponse{}, nil
	}
	if err == nil {
		err = s.deleteSnapshot(ctx, snap)
	}
	if err != nil {
		return nil, fmt.Errorf("delete snapshot %q: %w", r.GetSnapshotId(), err)
	}
	return &spec.DeleteSnapshotResponse{}, nil
}

func (s *Server) deleteSnapshot(ctx context.Context, snap snapshot) error {
	end, err := s.pending.begin(snap.handle, "delete snapshot")
	if err != nil {
		return err
	}
	defer end()
	return snap.Array.DeleteSnapshot(ctx, snap.id)
}

// GetSnapshot reads one snapshot from its array.
func (s *Server) GetSnapshot(ctx context.Context, r *spec.GetSnapshotRequest) (*spec.GetSnapshotResponse, error) {
	snap, err := s.locateSnapshot(r.GetSnapshotId())
	var found []*spec.Snapshot
	if err == nil {
		found, err = s.snapshotsOf(ctx, snap.Backend)
	}
	if err != nil {
		return nil, fmt.Errorf("get snapshot %q: %w", r.GetSnapshotId(), err)
	}
	for _, message := range found {
		if message.GetSnapshotId() == snap.handle {
			return &spec.GetSnapshotResponse{Snapshot: message}, nil
		}
	}
	return nil, fmt.Errorf("get snapshot %q: %w: array %s has no such snapshot", r.GetSnapshotId(), rds.ErrNotFound, snap.Name)
}

// ListSnapshots lists the snapshots of every array, of one volume, or the one
// that is named. An array that does not answer fails the listing.
func (s *Server) ListSnapshots(ctx context.Context, r *spec.ListSnapshotsRequest) (*spec.ListSnapshotsResponse, error) {
	after, err := readPage(r)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	all, err := s.listSnapshots(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	page, next := paginate(all, (*spec.Snapshot).GetSnapshotId, after, r.GetMaxEntries())
	response := &spec.ListSnapshotsResponse{NextToken: next}
	for _, message := range page {
		response.Entries = append(response.Entries, &spec.ListSnapshotsResponse_Entry{Snapshot: message})
	}
	return response, nil
}

// listSnapshots asks those arrays that can have what is asked for. A handle that
// names nothing of this driver's matches nothing.
func (s *Server) listSnapshots(ctx context.Context, r *spec.ListSnapshotsRequest) ([]*spec.Snapshot, error) {
	backends := s.config.Backends
	wanted := func(*spec.Snapshot) bool { return true }
	if r.GetSnapshotId() != "" {
		snap, err := s.locateSnapshot(r.GetSnapshotId())
		if err != nil {
			return nil, noneIf(err, rds.ErrNotFound)
		}
		backends = []Backend{*snap.Backend}
		wanted = func(m *spec.Snapshot) bool { return m.GetSnapshotId() == snap.handle }
	}
	if r.GetSourceVolumeId() != "" {
		vol, err := s.locate(r.GetSourceVolumeId())
		if err != nil {
			return nil, noneIf(err, rds.ErrInvalid)
		}
		backends = slices.DeleteFunc(slices.Clone(backends), func(b Backend) bool { return b.Name != vol.Name })
		byID := wanted
		wanted = func(m *spec.Snapshot) bool { return byID(m) && m.GetSourceVolumeId() == vol.handle }
	}
	found := make([][]*spec.Snapshot, len(backends))
	group, ctx := errgroup.WithContext(ctx)
	for i := range backends {
		group.Go(func() (err error) {
			found[i], err = s.snapshotsOf(ctx, s.backends[backends[i].Name])
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Concat(found...), func(m *spec.Snapshot) bool { return !wanted(m) }), nil
}

func noneIf(err, kind error) error {
	if errors.Is(err, kind) {
		return nil
	}
	return err
}

func (s *Server) snapshotsOf(ctx context.Context, b *Backend) ([]*spec.Snapshot, error) {
	all, err := b.Array.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	messages := make([]*spec.Snapshot, 0, len(all))
	for _, one := range all {
		messages = append(messages, s.snapshotMessage(b, one))
	}
	return messages, nil
}
