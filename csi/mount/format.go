package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	mountutils "k8s.io/mount-utils"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
)

const (
	probeTimeout = time.Minute
	mkfsTimeout  = 10 * time.Minute
	// A repair that is killed half-way does more harm than one that takes long.
	fsckTimeout = 2 * time.Hour
	growTimeout = 15 * time.Minute

	// edge is how much of a device's beginning and end must be zero for it to be
	// blank: that is where every filesystem, partition table, RAID and volume
	// manager has its mark, also those that blkid does not know.
	edge  = 4 << 20
	block = 1 << 20
)

// ErrDamaged means that the filesystem check found what it could not repair.
var ErrDamaged = errors.New("filesystem damaged")

// Content is what is on a device.
type Content struct {
	Type  string // as blkid has it; empty if it recognizes nothing
	Blank bool   // provably: nothing recognized, and both ends are zero
}

// Inspect looks what is on a device of the size. Reading nothing is never taken
// for finding nothing: blkid ends with the same code for both, so a device that
// it does not recognize is read.
func (m *Mounter) Inspect(ctx context.Context, device string, size int64) (Content, error) {
	e := &executor{ctx: ctx, run: m.run, timeout: probeTimeout}
	kind, err := mountutils.NewSafeFormatAndMount(nil, e).GetDiskFormat(device)
	if err != nil {
		return Content{}, fmt.Errorf("look what is on %s: %w", device, err)
	}
	if kind != "" {
		return Content{Type: kind}, nil
	}
	for _, at := range []int64{0, max(0, size-edge)} {
		zero, err := m.zero(ctx, device, at, min(edge, size-at))
		if err != nil {
			return Content{}, fmt.Errorf("look whether %s is blank: %w", device, err)
		}
		if !zero {
			return Content{}, nil
		}
	}
	return Content{Blank: true}, nil
}

// zero reads length bytes, from the device and not from a cache, and reports
// whether all are zero.
func (m *Mounter) zero(ctx context.Context, device string, at, length int64) (bool, error) {
	if length <= 0 {
		return false, fmt.Errorf("%s has no size", device)
	}
	out, err := m.run.Run(ctx, child.Command{Name: "dd", Timeout: probeTimeout, Limit: edge, Args: []string{
		"if=" + device, "bs=" + strconv.Itoa(block), "count=" + strconv.FormatInt((length+block-1)/block, 10),
		"skip=" + strconv.FormatInt(at, 10), "iflag=direct,skip_bytes",
	}})
	if err != nil {
		return false, err
	}
	if int64(len(out)) != length {
		return false, fmt.Errorf("read %d of %d bytes", len(out), length)
	}
	return bytes.Count(out, []byte{0}) == len(out), nil
}

// Format makes a filesystem. The caller has asked Decide. A blank device has
// nothing to discard, which saves the array the work.
func (m *Mounter) Format(ctx context.Context, device, fstype string) error {
	var args []string
	switch fstype {
	case Ext4:
		args = []string{"-F", "-m0", "-E", "nodiscard", device}
	case XFS:
		args = []string{"-f", "-K", device}
	default:
		return fmt.Errorf("%w: %s cannot be made", ErrWrongType, fstype)
	}
	if _, err := m.run.Run(ctx, child.Command{Name: "mkfs." + fstype, Args: args, Timeout: mkfsTimeout}); err != nil {
		return fmt.Errorf("format %s: %w", device, err)
	}
	return nil
}

// fsck's exit code is a sum.
const (
	fsckUncorrected = 4
	fsckFailed      = 8 | 16 | 32 | 128
)

// Check repairs what can be repaired without asking. XFS does so when it is
// mounted.
func (m *Mounter) Check(ctx context.Context, device, fstype string) error {
	if fstype == XFS {
		return nil
	}
	_, err := m.run.Run(ctx, child.Command{Name: "fsck", Args: []string{"-a", device}, Timeout: fsckTimeout})
	code, ended := child.ExitCode(err)
	switch {
	case err == nil:
		return nil
	case !ended:
		return fmt.Errorf("check the filesystem: %w", err)
	case code&fsckFailed != 0:
		return fmt.Errorf("check the filesystem: %w", err)
	case code&fsckUncorrected != 0:
		return fmt.Errorf("%w: %w; it needs fsck by hand, or a restore", ErrDamaged, err)
	}
	return nil // it was repaired
}

// Grow makes the filesystem that is mounted at path as large as its device. One
// that is so already stays as it is. A device on which no filesystem is recognized is an
// error: there is one, and it has not grown.
func (m *Mounter) Grow(ctx context.Context, device, path string) error {
	e := &executor{ctx: ctx, run: m.run, timeout: growTimeout}
	resized, err := mountutils.NewResizeFs(e).Resize(device, path)
	switch {
	case err == nil && !resized:
		return fmt.Errorf("grow the filesystem: blkid recognizes nothing on %s, whose filesystem is mounted at %s", device, path)
	case err == nil:
		return nil
	case e.failed != nil:
		return fmt.Errorf("grow the filesystem on %s: %w", device, e.failed)
	}
	return fmt.Errorf("grow the filesystem: %w", err)
}
