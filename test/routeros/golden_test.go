package routeros_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

var update = flag.Bool("update", false, "rewrite the golden files that are not recordings")

// fixedClock stands still.
type fixedClock struct{ now time.Time }

func (c fixedClock) Now() time.Time                       { return c.now }
func (c fixedClock) After(time.Duration) <-chan time.Time { return make(chan time.Time) }

// recordedArray is the array of the recordings: the pool is item 26, the
// volume item 31.
func recordedArray(t *testing.T, width int) *routeros.Server {
	t.Helper()
	srv, err := routeros.New(routeros.Options{
		HostKeyType: routeros.Ed25519, Settings: routeros.Settings{Width: width},
		Clock: fixedClock{time.Date(2025, 11, 11, 14, 32, 41, 0, time.UTC)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	filler := func(n int) {
		if _, err := srv.AddDisk(map[string]string{"slot": fmt.Sprintf("nvme%d", n), "type": "hardware"}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 26 {
		filler(i)
	}
	err = srv.AddPool(routeros.Pool{
		Name: "raid10", Label: "ocp-storage", Size: 16003143565312, Used: 113736630272,
		Properties: map[string]string{
			"fs-uuid": "40437dbc-2318-45dc-817b-b3bb95cf48ab", "raid-uuid": "eadca0af-ecff031c-239758ad-951a47de",
			"total-inodes": "1562806656",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		filler(100 + i)
	}
	for i := range 3 {
		if err := srv.AddFile(fmt.Sprintf("raid10/other-%d", i), 0); err != nil {
			t.Fatal(err)
		}
	}
	must(t, srv, `/disk/add type=file slot=vm-storage-001 file-path=/raid10/vm-storage-001.img file-size=1T `+
		`mount-filesystem=no nvme-tcp-export=yes nvme-tcp-server-nqn="nqn.2026-09.com.mikrotik:rds2216.vm-storage-001"`)
	return srv
}

func golden(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

const wide = 236

func TestRecordedDisk(t *testing.T) {
	srv := recordedArray(t, wide)
	out, err := srv.Run(ctxOf(t), `/disk/print detail where slot="vm-storage-001"`)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(golden(t, "disk-print-detail-file.txt"), "\n", "\r\n")
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
}

func TestRecordedPool(t *testing.T) {
	// The recording's blank column is that of a volume listed with the pool.
	out := must(t, recordedArray(t, wide), `/disk/print detail where slot="raid10" or slot="vm-storage-001"`)
	legend, rest, _ := strings.Cut(out, "\n")
	if want := "Flags: B - BLOCK-DEVICE; M - MOUNTED; t - NVME-TCP-EXPORT"; legend != want {
		t.Errorf("legend %q, want %q", legend, want)
	}
	entry, _, _ := strings.Cut(rest, "\n\n")
	if diff := cmp.Diff(golden(t, "disk-print-detail-pool.txt"), entry+"\n"); diff != "" {
		t.Error(diff)
	}
}

func TestRecordedFile(t *testing.T) {
	srv := newServer(t, routeros.Options{Clock: fixedClock{time.Date(2025, 11, 11, 14, 32, 41, 0, time.UTC)}})
	if err := srv.AddPool(routeros.Pool{Name: "storage-pool", Size: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	const name = "storage-pool/metal-csi/pvc-0d5f4f0e-6d3b-4b7c-9a55-0f7a3f1c2b4e.img"
	if err := srv.AddFile(name, 10<<30); err != nil {
		t.Fatal(err)
	}
	out := must(t, srv, `/file/print detail where name~"img\$"`)
	want := strings.Replace(golden(t, "file-print-detail.txt"), " 1 ", " 3 ", 1)
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
}

// TestNarrow shows what a client without a terminal reads.
func TestNarrow(t *testing.T) {
	srv := recordedArray(t, 80)
	must(t, srv, `/disk/set vm-storage-001 comment="rds1 g7 node-a=1760000000" `+
		`nvme-tcp-server-allow-host-name="`+strings.Repeat("nqn.2014-08.org.nvmexpress:uuid:", 4)+`"`)
	got := must(t, srv, `/disk/print detail where slot="vm-storage-001" or slot=raid10`)
	for _, line := range strings.Split(got, "\n") {
		if len(line) > 80 && !strings.HasPrefix(line, "Flags:") {
			t.Errorf("line of %d columns: %s", len(line), line)
		}
	}
	path := "disk-print-detail-80.golden"
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", path), []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(golden(t, path), got); diff != "" {
		t.Error(diff)
	}
}

func TestJSONShapes(t *testing.T) {
	const query = `:put [:serialize to=json options=json.no-string-conversion value=[/disk/print detail as-value where %s]]`
	tests := map[string]struct {
		set   routeros.Settings
		where string
		want  []string
		never []string
	}{
		"values are typed": {
			where: `slot="vm-storage-001"`,
			want: []string{
				`[{".id":"*20",`, `"size":1099511627776,`, `"nvme-tcp-export":true`, `"mount-filesystem":false`,
				`"file-path":"/raid10/vm-storage-001.img"`, `"nvme-tcp-server-port":4420`,
			},
			never: []string{"comment", "\"disabled\""},
		},
		"no match is an empty list": {where: `slot="nobody"`, want: []string{"[]\n"}},
		"numbers as some releases write them": {
			set: routeros.Settings{JSON: routeros.JSONStyle{FloatNumbers: true}}, where: `slot="vm-storage-001"`,
			want: []string{`"size":1099511627776.000000,`},
		},
		"empty fields as null": {
			set: routeros.Settings{JSON: routeros.JSONStyle{EmptyAsNull: true}}, where: `slot="vm-storage-001"`,
			want: []string{`"slot-default":null`},
		},
		"flags that are not set": {
			set: routeros.Settings{FalseFlags: true}, where: `slot="vm-storage-001"`,
			want: []string{`"disabled":false`, `"mounted":false`},
		},
		"rounded sizes": {
			set: routeros.Settings{RoundedFileSize: true}, where: `slot="vm-storage-001"`,
			want: []string{`"file-size":"1024.0GiB"`},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			srv := recordedArray(t, 80)
			srv.Configure(func(s *routeros.Settings) { *s = tt.set })
			out := must(t, srv, fmt.Sprintf(query, tt.where))
			for _, w := range tt.want {
				if !strings.Contains(out, w) {
					t.Errorf("%s is missing in %s", w, out)
				}
			}
			for _, w := range tt.never {
				if strings.Contains(out, w) {
					t.Errorf("%s is in %s", w, out)
				}
			}
		})
	}
}

// TestWrapPut: removing CR and LF undoes the wrapping of JSON.
func TestWrapPut(t *testing.T) {
	srv := recordedArray(t, 80)
	const query = `:put [:serialize to=json value=[/disk/print detail as-value where slot="vm-storage-001"]]`
	plain := must(t, srv, query)
	srv.Configure(func(s *routeros.Settings) { s.WrapPut = true })
	wrapped := must(t, srv, query)
	if strings.Count(wrapped, "\n") < 5 {
		t.Fatalf("not wrapped: %s", wrapped)
	}
	if diff := cmp.Diff(strings.TrimSpace(plain), strings.ReplaceAll(wrapped, "\n", "")); diff != "" {
		t.Error(diff)
	}
}

func TestOneItemMenu(t *testing.T) {
	srv := newServer(t, routeros.Options{})
	out := must(t, srv, `:put [:serialize to=json value=[/system/resource/print as-value]]; :put [/system resource get board-name]`)
	for _, w := range []string{`{"architecture-name"`, `"version":"7.24.4 (stable)"`, "\nRDS2216\n"} {
		if !strings.Contains(out, w) {
			t.Errorf("%s is missing in %s", w, out)
		}
	}
	srv.Configure(func(s *routeros.Settings) { s.Version = "7.20.1 (stable)" })
	if got := must(t, srv, `:put [/system/resource/get version]`); got != "7.20.1 (stable)\n" {
		t.Errorf("version %q", got)
	}
}
