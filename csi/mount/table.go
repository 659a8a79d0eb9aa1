package mount

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	mountutils "k8s.io/mount-utils"
)

// Entry is one line of the table of mounts.
type Entry struct {
	Dev      string // major:minor of the filesystem
	Root     string // what of the filesystem is mounted
	Point    string
	FSType   string
	ReadOnly bool // this mount
	// SuperReadOnly: the whole filesystem, because it was mounted so or because the
	// kernel found it damaged.
	SuperReadOnly bool
}

// Table is what is mounted, in the order in which it was.
type Table []Entry

// ReadTable reads a file like /proc/self/mountinfo.
func ReadTable(file string) (Table, error) {
	lines, err := mountutils.ParseMountInfo(file)
	if err != nil {
		return nil, fmt.Errorf("read the table of mounts: %w", err)
	}
	table := make(Table, 0, len(lines))
	for _, l := range lines {
		table = append(table, Entry{
			Dev:           fmt.Sprintf("%d:%d", l.Major, l.Minor),
			Root:          unescape(l.Root),
			Point:         unescape(l.MountPoint),
			FSType:        l.FsType,
			ReadOnly:      slices.Contains(l.MountOptions, "ro"),
			SuperReadOnly: slices.Contains(l.SuperOptions, "ro"),
		})
	}
	return table, nil
}

var escape = regexp.MustCompile(`\\[0-7]{3}`)

// unescape turns the kernel's \040 back into a blank.
func unescape(s string) string {
	return escape.ReplaceAllStringFunc(s, func(e string) string {
		n, err := strconv.ParseUint(e[1:], 8, 8)
		if err != nil {
			return e
		}
		return string([]byte{byte(n)})
	})
}

// At is what is mounted at a path, the topmost last. The path's directory is
// resolved as the kernel did when it was mounted; its last part is a mount point
// and not a link.
func (t Table) At(path string) Table {
	resolved := Resolve(path)
	var at Table
	for _, e := range t {
		if e.Point == resolved {
			at = append(at, e)
		}
	}
	return at
}

// Top is the mount that a path shows.
func (t Table) Top(path string) (Entry, bool) {
	at := t.At(path)
	if len(at) == 0 {
		return Entry{}, false
	}
	return at[len(at)-1], true
}

// Resolve is the path as the table of mounts has it.
func Resolve(path string) string {
	path = filepath.Clean(path)
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	return filepath.Join(dir, filepath.Base(path))
}

var nodePattern = regexp.MustCompile(`^nvme[0-9]+n[0-9]+(p[0-9]+)?$`)

// IsDeviceNode reports whether the mount shows an NVMe block device's node: a
// published block volume. The node may have been removed since.
func (e Entry) IsDeviceNode() bool {
	root := strings.TrimSuffix(e.Root, "//deleted")
	return nodePattern.MatchString(filepath.Base(root))
}
