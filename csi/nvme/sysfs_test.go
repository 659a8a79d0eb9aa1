package nvme

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// tree reads a recorded sysfs: lines `path = value`, `path -> target` and `path/`.
func tree(t *testing.T, file string) fstest.MapFS {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sys := fstest.MapFS{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.Contains(line, " -> "):
			path, target, _ := strings.Cut(line, " -> ")
			sys[path] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte(target)}
		case strings.HasSuffix(line, "/"):
			sys[strings.TrimSuffix(line, "/")] = &fstest.MapFile{Mode: fs.ModeDir}
		default:
			path, value, _ := strings.Cut(line, " = ")
			sys[path] = &fstest.MapFile{Data: []byte(value + "\n")}
		}
	}
	return sys
}

const volumeNQN = "nqn.2000-02.com.mikrotik:pvc-a.g3"

func TestReadMultipath(t *testing.T) {
	got, err := Read(tree(t, "multipath.txt"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Subsystem{
		{
			Name: "nvme-subsys0", NQN: "nqn.2014.08.org.nvmexpress:1b361b36boot",
			Controllers: []Controller{{Name: "nvme0", Transport: "pcie", State: "live", Address: ""}},
			Namespaces: []Namespace{{
				Disk: Disk{"nvme0n1", "259:0"}, ID: 1, Size: 512110190592, Identity: "eui.0025388b",
				Partitions: []Disk{{"nvme0n1p1", "259:1"}, {"nvme0n1p2", "259:2"}}, Users: []string{"dm-0"},
			}},
		},
		{
			Name: "nvme-subsys3", NQN: volumeNQN,
			Controllers: []Controller{
				{Name: "nvme4", Transport: "tcp", State: "live", Address: "192.0.2.1", Port: "4420", HostNQN: "nqn.2014-08.org.nvmexpress:uuid:h"},
				{Name: "nvme7", Transport: "tcp", State: "connecting", Address: "fd00::2", Port: "4420", HostNQN: "nqn.2014-08.org.nvmexpress:uuid:h"},
			},
			Namespaces: []Namespace{{Disk: Disk{"nvme3n1", "259:8"}, ID: 1, Size: 1073741824, Identity: "uuid.40437dbc-2318-45dc-817b-b3bb95cf48ab"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
}

// A subsystem without shared namespaces, or a kernel without multipath, has its
// disks below the controllers.
func TestReadWithoutMultipath(t *testing.T) {
	subsystems, err := Read(tree(t, "single.txt"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := Find(subsystems, volumeNQN, 1)
	if err != nil || d.Name != "nvme2n1" || d.Path() != "/dev/nvme2n1" || d.Dev != "259:4" || d.Size != 4096*512 || !d.ReadOnly {
		t.Errorf("found %+v, %v", d, err)
	}
	if _, err := Find(subsystems, "nqn.2000-02.com.mikrotik:pvc-b.g1", 1); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("two disks of one namespace: %v", err)
	}
}

func TestReadWithoutNVMe(t *testing.T) {
	got, err := Read(fstest.MapFS{"class": &fstest.MapFile{Mode: fs.ModeDir}})
	if err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

// What cannot be read is never taken for what is not there.
func TestReadFailure(t *testing.T) {
	for _, path := range []string{
		"devices/virtual/nvme-subsystem/nvme-subsys3/subsysnqn",
		"devices/virtual/nvme-fabrics/ctl/nvme4/state",
		"devices/virtual/nvme-fabrics/ctl/nvme4/address",
		"devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1/size",
		"devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1/wwid",
	} {
		sys := tree(t, "multipath.txt")
		if sys[path] == nil {
			t.Fatalf("%s is not in the tree", path)
		}
		if _, err := Read(broken{sys, path}); !errors.Is(err, errBroken) {
			t.Errorf("%s: got %v", path, err)
		}
		// A number that is none.
		if strings.HasSuffix(path, "/size") {
			sys[path].Data = []byte("?")
			if _, err := Read(sys); err == nil {
				t.Error("a size that is no number was accepted")
			}
		}
		// Gone meanwhile.
		delete(sys, path)
		if _, err := Read(sys); err != nil {
			t.Errorf("without %s: %v", path, err)
		}
	}
}

var errBroken = errors.New("input/output error")

// broken is a sysfs with one file that cannot be read.
type broken struct {
	fstest.MapFS
	path string
}

func (b broken) ReadFile(name string) ([]byte, error) {
	if strings.HasSuffix(name, lastTwo(b.path)) {
		return nil, errBroken
	}
	return b.MapFS.ReadFile(name)
}

// lastTwo is enough of a path, whichever links lead there.
func lastTwo(path string) string {
	parts := strings.Split(path, "/")
	return strings.Join(parts[len(parts)-2:], "/")
}
