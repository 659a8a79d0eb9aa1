package mount

import (
	"errors"
	"fmt"
)

// The filesystems that are made.
const (
	Ext4 = "ext4"
	XFS  = "xfs"
	ext3 = "ext3"
)

var (
	// ErrNotBlank means that the device holds something that is not a filesystem of ours, so
	// it is not formatted.
	ErrNotBlank = errors.New("not blank")
	// ErrWrongType means that another filesystem was asked for than can be had.
	ErrWrongType = errors.New("wrong filesystem type")
	// ErrReadOnly means that formatting was needed and must not be.
	ErrReadOnly = errors.New("read-only and not formatted")
)

// Wish is what is to be mounted.
type Wish struct {
	Type     string // empty: whatever is there, else ext4
	ReadOnly bool
	// Begun says that this node began to format the very same export of the volume,
	// blank then, and never mounted it since: what is on it is a half-made filesystem.
	Begun bool
}

// Plan is what to do before mounting.
type Plan struct {
	Type   string
	Format bool
}

// Supported reports whether a filesystem of the type can be asked for.
func Supported(fstype string) bool {
	return fstype == "" || fstype == Ext4 || fstype == XFS || fstype == ext3
}

// Decide says whether a device may be formatted, and what will be mounted. Only
// one that is provably blank may.
func Decide(c Content, w Wish) (Plan, error) {
	wanted := w.Type
	if wanted == "" {
		wanted = Ext4
	}
	known := c.Type == Ext4 || c.Type == XFS || c.Type == ext3
	switch {
	case w.ReadOnly && (c.Blank || w.Begun):
		return Plan{}, ErrReadOnly
	case c.Blank, w.Begun:
		if wanted == ext3 {
			return Plan{}, fmt.Errorf("%w: new filesystems are %s or %s", ErrWrongType, Ext4, XFS)
		}
		return Plan{Type: wanted, Format: true}, nil
	case c.Type == "":
		return Plan{}, fmt.Errorf("%w: there is data, and no filesystem that blkid knows; it was used as a Block volume, or a format was cut off", ErrNotBlank)
	case !known:
		return Plan{}, fmt.Errorf("%w: there is %s", ErrNotBlank, c.Type)
	case w.Type != "" && w.Type != c.Type:
		return Plan{}, fmt.Errorf("%w: there is %s, and %s is wanted", ErrWrongType, c.Type, w.Type)
	}
	return Plan{Type: c.Type}, nil
}
