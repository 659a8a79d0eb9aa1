package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	mountutils "k8s.io/mount-utils"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
)

var (
	// ErrNotMounted means that the mount did not come about, or is gone.
	ErrNotMounted = errors.New("not mounted")
	// ErrStillMounted means that unmounting did not take the mount away.
	ErrStillMounted = errors.New("still mounted")
)

const (
	// A journal that was long in use is replayed by mount.
	mountTimeout   = 5 * time.Minute
	unmountTimeout = 2 * time.Minute
	bindTimeout    = 30 * time.Second
)

// Mounter mounts for one volume.
type Mounter struct {
	run   child.Runner
	table string // like /proc/self/mountinfo
}

// New returns a Mounter whose children run starts. table is the kernel's table of
// mounts, /proc/self/mountinfo.
func New(run child.Runner, table string) *Mounter { return &Mounter{run: run, table: table} }

// Table reads what is mounted.
func (m *Mounter) Table() (Table, error) { return ReadTable(m.table) }

// Filesystem mounts a device. XFS is always mounted with nouuid: a clone has its
// origin's UUID, and the two may meet on one node.
func (m *Mounter) Filesystem(ctx context.Context, device, target, fstype string, options []string) error {
	if fstype == XFS && !slices.Contains(options, "nouuid") {
		options = append(slices.Clone(options), "nouuid")
	}
	args := mountutils.MakeMountArgs(device, target, fstype, options)
	if _, err := m.run.Run(ctx, child.Command{Name: "mount", Args: args, Timeout: mountTimeout}); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return nil
}

// Bind shows source at target as well.
func (m *Mounter) Bind(ctx context.Context, source, target string, readOnly bool) error {
	_, options, remount := mountutils.MakeBindOpts([]string{"bind", "ro"})
	args := mountutils.MakeMountArgs(source, target, "", options)
	if _, err := m.run.Run(ctx, child.Command{Name: "mount", Args: args, Timeout: bindTimeout}); err != nil {
		return fmt.Errorf("bind-mount %s: %w", source, err)
	}
	if !readOnly {
		return nil
	}
	return m.remount(ctx, source, target, remount)
}

// MakeReadOnly finishes a read-only bind mount that was cut off half-way.
func (m *Mounter) MakeReadOnly(ctx context.Context, source, target string) error {
	_, _, remount := mountutils.MakeBindOpts([]string{"bind", "ro"})
	return m.remount(ctx, source, target, remount)
}

func (m *Mounter) remount(ctx context.Context, source, target string, options []string) error {
	args := mountutils.MakeMountArgs(source, target, "", options)
	if _, err := m.run.Run(ctx, child.Command{Name: "mount", Args: args, Timeout: bindTimeout}); err != nil {
		return fmt.Errorf("make the mount at %s read-only: %w", target, err)
	}
	return nil
}

// maxLayers bounds how many mounts on top of one another are taken away; more
// than one means that an earlier attempt was cut off between two steps.
const maxLayers = 8

// Unmount takes away everything that is mounted at the path and makes sure that
// it is gone. Nothing mounted is fine.
func (m *Mounter) Unmount(ctx context.Context, path string) error {
	for range maxLayers {
		table, err := m.Table()
		if err != nil {
			return err
		}
		if len(table.At(path)) == 0 {
			return nil
		}
		if _, err := m.run.Run(ctx, child.Command{Name: "umount", Args: []string{path}, Timeout: unmountTimeout}); err != nil {
			return fmt.Errorf("unmount: %w", err)
		}
	}
	table, err := m.Table()
	if err != nil {
		return err
	}
	if left := len(table.At(path)); left > 0 {
		return fmt.Errorf("%w: %d mounts at %s", ErrStillMounted, left, path)
	}
	return nil
}

// MakeDir makes a directory to mount on.
func MakeDir(path string) error {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return fmt.Errorf("make a mount point: %w", err)
	}
	return nil
}

// MakeFile makes an empty file for a device node to be bind-mounted on. One that
// is there is left alone.
func MakeFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o640)
	if err != nil {
		return fmt.Errorf("make a mount point: %w", err)
	}
	return f.Close()
}

// Remove removes a mount point. It never removes what is in it: a directory that
// is not empty is an error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the mount point: %w", err)
	}
	return nil
}
