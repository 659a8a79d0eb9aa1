package rds

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

const snapshotPrefix = "snap-"

// Snapshot is the content of a volume at one moment, kept on its array. It
// depends on nothing: the volume may change, grow or be deleted.
type Snapshot struct {
	ID      string    // as SnapshotFor gives it
	Source  string    // slot of the volume
	Size    int64     // bytes; a volume made of it has at least as many
	Created time.Time // whole seconds, by our clock
	Ready   bool      // false while its content is still being copied
}

// NewSnapshot asks for a snapshot.
type NewSnapshot struct {
	ID     string
	Source string // slot of the volume
}

// Source is where a new volume's content comes from: a snapshot, a volume, or, if
// it is zero, nowhere.
type Source struct {
	Snapshot string // id
	Volume   string // slot
}

// String names the source for people.
func (s Source) String() string {
	if s.Snapshot != "" {
		return "snapshot " + s.Snapshot
	}
	return "volume " + s.Volume
}

// Blank reports whether there is no source.
func (s Source) Blank() bool { return s == Source{} }

// SnapshotFor derives a snapshot's id from the name that the CO gave it, like
// SlotFor: `snap-` and 26 characters, those of the UUID in a name
// `snapshot-<UUID>`, or of a version 5 UUID of any other name.
func SnapshotFor(name string) string {
	id, err := uuid.Parse(strings.TrimPrefix(name, "snapshot-"))
	if err != nil || "snapshot-"+id.String() != name {
		id = uuid.NewSHA1(slotNamespace, []byte("snapshot "+name))
	}
	return snapshotPrefix + slotEncoding.EncodeToString(id[:])
}

// ValidSnapshot reports whether SnapshotFor can have made the id.
func ValidSnapshot(id string) bool {
	text, ok := strings.CutPrefix(id, snapshotPrefix)
	raw, err := slotEncoding.DecodeString(text)
	return ok && err == nil && len(raw) == len(uuid.UUID{})
}

// Fit is the size of a new volume whose content comes from a source of so many
// bytes: what was asked for, or the source's own rounded up to unit where nothing
// was. A smaller one than the source, or one above the limit, is ErrOutOfRange.
func (n NewVolume) Fit(source, unit int64) (int64, error) {
	size := n.Size
	if size == 0 {
		size = (source + unit - 1) / unit * unit
	}
	switch {
	case size < source:
		return 0, &Error{Kind: ErrOutOfRange, Err: fmt.Errorf("%d bytes are wanted, and %s has %d", size, n.From, source)}
	case n.Limit > 0 && size > n.Limit:
		return 0, &Error{Kind: ErrOutOfRange, Err: fmt.Errorf("at most %d bytes are allowed, and %s has %d", n.Limit, n.From, source)}
	}
	return size, nil
}

// Copyable reports why a volume may not be copied byte by byte, or nil. While it
// is, nobody may write to it, and only a ledger can tell that nobody does.
func Copyable(v Volume) error {
	e := &Error{Kind: ErrInUse, Op: "copy volume", Slot: v.Slot}
	switch {
	case v.Ledger.Deleting:
		e.Err = fmt.Errorf("its deletion has begun")
	case !v.Ledger.Known:
		e.Kind, e.Err = ErrLedger, fmt.Errorf("%s", v.Ledger.Problem)
	case len(v.Ledger.Publications) > 0:
		e.Err = fmt.Errorf("published to %s, and this pool is not btrfs: a copy would be torn", strings.Join(v.Ledger.Nodes(), " and "))
		e.Hint = "stop what uses it first"
	case v.Exported:
		e.Err = fmt.Errorf("its export is on, although its ledger names nobody")
		e.Hint = "switch it off on the array, if no host is connected"
	default:
		return nil
	}
	return e
}
