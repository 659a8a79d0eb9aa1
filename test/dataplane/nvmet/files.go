package nvmet

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func createFile(file string, size int64) error {
	if err := os.MkdirAll(filepath.Dir(path(file)), 0o755); err != nil {
		return err
	}
	// A file that is there already is attached with what it holds, as the array does.
	f, err := os.OpenFile(path(file), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

func copyFile(from, to string) error {
	in, err := os.Open(path(from))
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := createFile(to, info.Size()); err != nil {
		return err
	}
	out, err := os.OpenFile(path(to), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	// Only what is written is copied, so that sparse files stay sparse.
	for offset := int64(0); ; {
		begin, err := unix.Seek(int(in.Fd()), offset, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return out.Close()
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(in.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, begin), io.NewSectionReader(in, begin, end-begin)); err != nil {
			return err
		}
		offset = end
	}
}

// loop is a file as a block device with sectors of 512 bytes.
type loop struct {
	file *os.File
	path string
}

func attach(file string) (*loop, error) {
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close() // the device keeps its own
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a loop device: %w", err)
	}
	l := &loop{path: fmt.Sprintf("/dev/loop%d", number)}
	if l.file, err = os.OpenFile(l.path, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: 512}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR // detached when nobody has it open
	if err := unix.IoctlLoopConfigure(int(l.file.Fd()), &config); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("attach %s: %w", l.path, err)
	}
	return l, nil
}

// grow makes the device as large as its file has become.
func (l *loop) grow() error {
	return unix.IoctlSetInt(int(l.file.Fd()), unix.LOOP_SET_CAPACITY, 0)
}

func (l *loop) close() error { return l.file.Close() }
