package mount

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
)

const mebibyte = int64(1) << 20

// loop makes a real block device of a sparse file, where that is possible.
func loop(t *testing.T, size int64) (device, file string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not run: needs root, for loop devices and mounts")
	}
	for _, program := range []string{"losetup", "blkid", "mkfs.ext4", "mount", "umount", "dd", "fsck", "resize2fs"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("not run: needs %s", program)
		}
	}
	file = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("not run: no loop device: %s", out)
	}
	device = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %s", device, out)
		}
	})
	return device, file
}

func mounter() *Mounter { return New(child.New().For("test"), "/proc/self/mountinfo") }

func TestInspectForReal(t *testing.T) {
	const size = 64 * mebibyte
	write := func(t *testing.T, file string, at int64) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{1}, at); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		at   int64 // of the one byte that is not zero; -1: none
		want Content
	}{
		"blank":             {-1, Content{Blank: true}},
		"first byte":        {0, Content{}},
		"end of the first":  {edge - 1, Content{}},
		"start of the last": {size - edge, Content{}},
		"last byte":         {size - 1, Content{}},
	} {
		t.Run(name, func(t *testing.T) {
			device, file := loop(t, size)
			if c.at >= 0 {
				write(t, file, c.at)
			}
			got, err := mounter().Inspect(t.Context(), device, size)
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	t.Run("smaller than its ends", func(t *testing.T) {
		device, _ := loop(t, mebibyte+512)
		if got, err := mounter().Inspect(t.Context(), device, mebibyte+512); err != nil || !got.Blank {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("smaller than it should be", func(t *testing.T) {
		device, _ := loop(t, mebibyte)
		if got, err := mounter().Inspect(t.Context(), device, 2*mebibyte); err == nil || got.Blank {
			t.Errorf("got %+v", got)
		}
	})
	// blkid ends as if there were nothing on it.
	t.Run("no such device", func(t *testing.T) {
		loop(t, mebibyte)
		if got, err := mounter().Inspect(t.Context(), "/dev/rds-no-such-device", size); err == nil || got.Blank {
			t.Errorf("got %+v", got)
		}
	})
}

func TestFilesystemsForReal(t *testing.T) {
	for _, fstype := range []string{Ext4, XFS} {
		t.Run(fstype, func(t *testing.T) {
			const size = 512 * mebibyte // XFS has no smaller ones
			device, file := loop(t, size)
			if _, err := exec.LookPath("mkfs." + fstype); err != nil {
				t.Skipf("not run: needs mkfs.%s", fstype)
			}
			m, at := mounter(), filepath.Join(t.TempDir(), "staging")
			ok := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			ok(m.Format(t.Context(), device, fstype))
			if got, err := m.Inspect(t.Context(), device, size); err != nil || got.Type != fstype {
				t.Fatalf("on it is %+v, %v", got, err)
			}
			ok(m.Check(t.Context(), device, fstype))
			ok(MakeDir(at))
			ok(m.Filesystem(t.Context(), device, at, fstype, []string{"noatime"}))
			t.Cleanup(func() { _ = exec.Command("umount", at).Run() })
			ok(os.WriteFile(filepath.Join(at, "file"), []byte("kept"), 0o600))
			bindForReal(t, m, at)
			if fstype == Ext4 && !maySetResources(t) {
				t.Log("ext4 is not grown: needs CAP_SYS_RESOURCE")
			} else {
				growForReal(t, m, device, file, at, 2*size)
			}
			ok(m.Unmount(t.Context(), at))
			ok(m.Unmount(t.Context(), at)) // again
			ok(m.Check(t.Context(), device, fstype))
			ok(Remove(at))
			ok(Remove(at))
		})
	}
}

// maySetResources reports whether this process has the capability that the kernel
// wants of who grows ext4.
func maySetResources(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:")
	effective, err := strconv.ParseUint(strings.Fields(rest)[0], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func bindForReal(t *testing.T, m *Mounter, source string) {
	t.Helper()
	target := filepath.Join(t.TempDir(), "pod")
	if err := MakeDir(target); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = exec.Command("umount", target).Run() })
	if err := m.Bind(t.Context(), source, target, true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(target, "other"), nil, 0o600); err == nil {
		t.Error("a read-only publication can be written to")
	}
	if got, err := os.ReadFile(filepath.Join(target, "file")); err != nil || string(got) != "kept" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := Remove(target); err == nil {
		t.Error("a mount was removed")
	}
	if err := m.Unmount(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if err := Remove(target); err != nil {
		t.Error(err)
	}
}

func growForReal(t *testing.T, m *Mounter, device, file, at string, size int64) {
	t.Helper()
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("losetup", "--set-capacity", device).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	for range 2 { // the second time there is nothing to do
		if err := m.Grow(t.Context(), device, at); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("df", "--output=size", "-B1", at).Output()
	if err != nil {
		t.Fatal(err)
	}
	if total := strings.Fields(string(out))[1]; len(total) < len("900000000") {
		t.Errorf("the filesystem has %s bytes", total)
	}
}

// Two XFS filesystems with one UUID: a volume and its clone.
func TestCloneOfXFSForReal(t *testing.T) {
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		t.Skip("not run: needs mkfs.xfs")
	}
	const size = 512 * mebibyte
	first, file := loop(t, size)
	m := mounter()
	if err := m.Format(t.Context(), first, XFS); err != nil {
		t.Fatal(err)
	}
	second, clone := loop(t, size)
	if out, err := exec.Command("cp", file, clone).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	for _, device := range []string{first, second} {
		at := t.TempDir()
		if err := m.Filesystem(t.Context(), device, at, XFS, nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = exec.Command("umount", at).Run() })
	}
}
