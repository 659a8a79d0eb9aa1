package mount

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const recorded = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
25 22 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=1k
40 22 259:8 / /var/lib/kubelet/plugins/a/globalmount rw,relatime shared:3 - ext4 /dev/nvme3n1 ro
41 22 259:8 / /var/lib/kubelet/pods/1/volumes/with\040blank/mount ro,relatime shared:3 - ext4 /dev/nvme3n1 ro
42 22 0:5 /nvme5n1 /var/lib/kubelet/publish/pvc-b rw,nosuid shared:2 - devtmpfs udev rw,size=1k
43 22 0:5 /nvme6n1//deleted /var/lib/kubelet/publish/pvc-c rw,nosuid shared:2 - devtmpfs udev rw,size=1k
44 22 0:50 / /var/lib/kubelet/publish/pvc-b rw shared:9 - tmpfs tmpfs rw
`

func TestTable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(file, []byte(recorded), 0o600); err != nil {
		t.Fatal(err)
	}
	table, err := ReadTable(file)
	if err != nil {
		t.Fatal(err)
	}
	want := Entry{Dev: "259:8", Root: "/", Point: "/var/lib/kubelet/pods/1/volumes/with blank/mount", FSType: "ext4", ReadOnly: true, SuperReadOnly: true}
	if diff := cmp.Diff(Table{want}, table.At("/var/lib/kubelet/pods/1/volumes/with blank/mount/")); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
	if top, ok := table.Top("/var/lib/kubelet/publish/pvc-b"); !ok || top.FSType != "tmpfs" || top.IsDeviceNode() {
		t.Errorf("the topmost is %+v", top)
	}
	if below := table.At("/var/lib/kubelet/publish/pvc-b")[0]; !below.IsDeviceNode() {
		t.Errorf("%+v is a device's node", below)
	}
	if gone, _ := table.Top("/var/lib/kubelet/publish/pvc-c"); !gone.IsDeviceNode() {
		t.Errorf("%+v was a device's node", gone)
	}
	if dev, _ := table.Top("/dev"); dev.IsDeviceNode() {
		t.Error("/dev is not a device's node")
	}
	if _, ok := table.Top("/var/lib/kubelet"); ok {
		t.Error("a directory is said to be a mount")
	}
	if _, err := ReadTable(file + "x"); err == nil {
		t.Error("a table that cannot be read was read")
	}
}

// Kubelet's directory may be a link; the kernel's table has what it leads to.
func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if got := Resolve(filepath.Join(dir, "link", "mount")); got != filepath.Join(dir, "real", "mount") {
		t.Errorf("got %s", got)
	}
}
