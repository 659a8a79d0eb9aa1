package rds

import (
	"cmp"
	"context"
	"time"
)

// Array is one ROSE Data Server. Every error wraps one of the sentinels of this
// package; a method that fails with anything but ErrUnknownOutcome, ErrConflict or
// ErrUnderWay has changed nothing, except that a deletion may have begun or a
// generation risen. A disk that has the slot but is no volume of this driver is
// ErrExists: nothing may be concluded from it about the volume. Implementations are
// safe for concurrent use, but callers keep two calls from changing one slot at the
// same time.
type Array interface {
	// View reads the pool and every volume at once.
	View(ctx context.Context) (View, error)
	// Volume reads one volume afresh; ErrNotFound is the array's own answer.
	Volume(ctx context.Context, slot string) (Volume, error)
	// Create makes a volume, with an empty ledger and without an export. A
	// volume of the same slot and source, and of a size that will do, is returned
	// as it is, one that differs is ErrExists. A source that is absent is
	// ErrNotFound; while one is being copied, which only arrays without snapshots of
	// their own do, the volume does not exist yet: ErrUnderWay.
	Create(ctx context.Context, v NewVolume) (Volume, error)
	// Update reads, decides and writes under compare-and-swap of the comment.
	// decide may first be shown what was read earlier; a change is only made, and
	// an empty change or an error of decide only believed, on what the array
	// says now. decide may therefore be called more than once. Each write of a
	// ledger raises its generation, beyond what decide said if need be.
	Update(ctx context.Context, slot string, decide Decide) (Volume, error)
	// Delete removes a volume whose ledger is known and names nobody, and then
	// its files. It returns nil when a fresh answer proves the volume absent, and
	// ErrUnderWay while a copy that was to become it may still show.
	Delete(ctx context.Context, slot string) error
	// CreateSnapshot keeps the present content of a volume. One of the same id and
	// source is returned as it is, one of another source is ErrExists. One that is
	// not Ready yet becomes so, and whatever keeps it from that is found out, by
	// calling again.
	CreateSnapshot(ctx context.Context, n NewSnapshot) (Snapshot, error)
	// Snapshots reads all snapshots, in the order of their ids.
	Snapshots(ctx context.Context) ([]Snapshot, error)
	// DeleteSnapshot returns nil when a fresh answer proves the snapshot absent, and
	// ErrUnderWay while its copy may still show.
	DeleteSnapshot(ctx context.Context, id string) error
}

// Decide says what is to change about the volume it is shown.
type Decide func(ctx context.Context, v Volume) (Change, error)

// View is what an array said at one moment.
type View struct {
	// ObservedAt is when the answer was complete, by our clock. A View that is
	// zero here has never been observed.
	ObservedAt time.Time
	Version    string // RouterOS's, for example "7.24.4 (stable)"
	Pool       Pool
	Volumes    map[string]Volume // by slot; those below the base path only
}

// Observed reports whether the view is of an array that has answered.
func (v View) Observed() bool { return !v.ObservedAt.IsZero() }

// Pool is the file system that holds the volumes' images.
type Pool struct {
	MountPoint string // without a leading slash, for example "raid10"
	FS         string // "xfs", "ext4", "btrfs"
	State      string // of a RAID, as the array says it: "clean"; may be empty
	Size       int64  // bytes
	Free       int64  // bytes
	Allocated  int64  // bytes promised to volumes: the sum of their sizes
}

// Available is what can still be promised, in bytes and never negative: images
// may be sparse, so neither the free space nor the promises alone bound it.
func (p Pool) Available(reserve int64) int64 {
	return max(0, min(p.Free, p.Size-p.Allocated)-reserve)
}

// Volume is one file-backed disk of the array.
type Volume struct {
	ID       string // RouterOS's internal id, for example "*1F"
	Slot     string
	Size     int64  // bytes, as the array has it
	Path     string // of the image, with a leading slash
	NQN      string // may be empty while the export is off: the array hides it
	Port     int    // of the NVMe/TCP export
	Exported bool
	Comment  string // verbatim; what compare-and-swap compares
	Ledger   Ledger // parsed from Comment
}

// NewVolume asks for a volume.
type NewVolume struct {
	Slot string
	Size int64 // bytes, a multiple of 1 MiB; with a source, 0 for the source's
	From Source
	// Least and Limit are the sizes, in bytes, that will do as well: Limit is the
	// greatest that the source's may turn out to be, 0 is none. With a Limit, what
	// an earlier request made may have any size from Least, or Size if that is 0.
	Least, Limit int64
}

// Admits reports whether a size, in bytes, will do.
func (n NewVolume) Admits(have int64) bool {
	switch {
	case n.Limit > 0:
		return have >= cmp.Or(n.Least, n.Size) && have <= n.Limit
	case n.Size > 0:
		return have == n.Size
	}
	return true // that of the source
}

// Change is what one update does to a volume, all at once. The zero Change
// changes nothing.
type Change struct {
	Ledger *Ledger
	NQN    string // a new one, or empty to keep it
	Export Export
	Size   int64 // a larger one in bytes, or 0 to keep it
}

// Empty reports whether nothing is to change.
func (c Change) Empty() bool { return c == Change{} }

// Export says what a Change does to the export.
type Export int

// What a Change may do to the export.
const (
	KeepExport Export = iota // as it is
	ExportOn
	ExportOff
)
