package csi_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// memory is an rds.Array without an array: for what no simulator can be made
// to do on cue (fail in a given way, answer only when told to).
type memory struct {
	mu      sync.Mutex
	volumes map[string]rds.Volume
	snaps   map[string]rds.Snapshot
	pool    rds.Pool
	// before is called ahead of every operation; its error is the operation's.
	before func(ctx context.Context, op, slot string) error
}

func newMemory() *memory {
	return &memory{
		volumes: map[string]rds.Volume{},
		snaps:   map[string]rds.Snapshot{},
		pool:    rds.Pool{MountPoint: "raid10", FS: "xfs", Size: 1 << 40, Free: 1 << 40},
	}
}

func (m *memory) start(ctx context.Context, op, slot string) error {
	if m.before == nil {
		return nil
	}
	return m.before(ctx, op, slot)
}

func (m *memory) View(ctx context.Context) (rds.View, error) {
	if err := m.start(ctx, "view", ""); err != nil {
		return rds.View{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	view := rds.View{ObservedAt: time.Unix(1, 0), Pool: m.pool, Volumes: map[string]rds.Volume{}}
	for slot, v := range m.volumes {
		view.Volumes[slot] = v
		view.Pool.Allocated += v.Size
	}
	return view, nil
}

func (m *memory) Volume(ctx context.Context, slot string) (rds.Volume, error) {
	if err := m.start(ctx, "volume", slot); err != nil {
		return rds.Volume{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.find(slot)
}

func (m *memory) find(slot string) (rds.Volume, error) {
	v, ok := m.volumes[slot]
	if !ok {
		return v, &rds.Error{Kind: rds.ErrNotFound, Op: "read volume", Slot: slot}
	}
	return v, nil
}

func (m *memory) Create(ctx context.Context, n rds.NewVolume) (rds.Volume, error) {
	if err := m.start(ctx, "create", n.Slot); err != nil {
		return rds.Volume{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.volumes[n.Slot]; ok {
		if !n.Admits(v.Size) {
			return v, &rds.Error{Kind: rds.ErrExists, Op: "create volume", Slot: n.Slot}
		}
		return v, nil
	}
	if !n.From.Blank() {
		size, err := m.sizeOf(n.From)
		if err == nil {
			n.Size, err = n.Fit(size, 1<<20)
		}
		if err != nil {
			return rds.Volume{}, err
		}
	}
	v := rds.Volume{ID: "*1", Slot: n.Slot, Size: n.Size, Path: "/raid10/" + n.Slot + ".img", Port: 4420, Ledger: rds.Ledger{Known: true}}
	v.Comment = v.Ledger.String()
	m.volumes[n.Slot] = v
	return v, nil
}

func (m *memory) Update(ctx context.Context, slot string, decide rds.Decide) (rds.Volume, error) {
	if err := m.start(ctx, "update", slot); err != nil {
		return rds.Volume{}, err
	}
	m.mu.Lock()
	v, err := m.find(slot)
	m.mu.Unlock()
	if err != nil {
		return v, err
	}
	change, err := decide(ctx, v)
	if err != nil {
		return v, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.volumes[slot].Comment != v.Comment {
		return v, &rds.Error{Kind: rds.ErrConflict, Op: "update volume", Slot: slot}
	}
	if change.Size > m.pool.Size {
		return v, &rds.Error{Kind: rds.ErrNoSpace, Op: "update volume", Slot: slot}
	}
	if change.Ledger != nil {
		v.Ledger, v.Comment = *change.Ledger, change.Ledger.String()
	}
	if change.NQN != "" {
		v.NQN = change.NQN
	}
	if change.Export != rds.KeepExport {
		v.Exported = change.Export == rds.ExportOn
	}
	if change.Size != 0 {
		v.Size = change.Size
	}
	m.volumes[slot] = v
	return v, nil
}

func (m *memory) Delete(ctx context.Context, slot string) error {
	if err := m.start(ctx, "delete", slot); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.volumes[slot]
	if !ok {
		return nil
	}
	if err := rds.Deletable(v); err != nil {
		return err
	}
	delete(m.volumes, slot)
	return nil
}

func (m *memory) sizeOf(from rds.Source) (int64, error) {
	if s, ok := m.snaps[from.Snapshot]; ok {
		return s.Size, nil
	}
	v, err := m.find(from.Volume)
	return v.Size, err
}

func (m *memory) CreateSnapshot(ctx context.Context, n rds.NewSnapshot) (rds.Snapshot, error) {
	if err := m.start(ctx, "create snapshot", n.ID); err != nil {
		return rds.Snapshot{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.snaps[n.ID]; ok {
		if s.Source != n.Source {
			return s, &rds.Error{Kind: rds.ErrExists, Op: "snapshot volume", Slot: n.Source}
		}
		return s, nil
	}
	v, err := m.find(n.Source)
	if err != nil {
		return rds.Snapshot{}, err
	}
	s := rds.Snapshot{ID: n.ID, Source: n.Source, Size: v.Size, Created: time.Unix(2, 0), Ready: true}
	m.snaps[n.ID] = s
	return s, nil
}

func (m *memory) Snapshots(ctx context.Context) ([]rds.Snapshot, error) {
	if err := m.start(ctx, "snapshots", ""); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.snaps)), nil
}

func (m *memory) DeleteSnapshot(ctx context.Context, id string) error {
	if err := m.start(ctx, "delete snapshot", id); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.snaps, id)
	return nil
}

// put stores a volume as somebody else would have made it.
func (m *memory) put(v rds.Volume) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v.Ledger = rds.ParseLedger(v.Comment)
	m.volumes[v.Slot] = v
}
