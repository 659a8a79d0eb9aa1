package routeros

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

var testConfig = Config{BasePath: "raid10/k8s", NVMePort: 4420, NQNPrefix: rds.DefaultNQNPrefix}

// The rows are those recorded on an RDS2216 with 7.24.4, in the shapes of
// :serialize that were seen on 7.23.
const (
	recordedVolume = `{".id":"*1F","block-device":true,"nvme-tcp-export":true,"type":"file","slot":"vm-storage-001","slot-default":"","parent":"","fs":"-",
		"model":"/raid10/k8s/vm-storage-001.img","size":1099511627776,"mount-filesystem":false,"sector-size":512,"raid-master":"none",
		"nvme-tcp-server-port":4420,"nvme-tcp-server-nqn":"nqn.2026-09.com.mikrotik:rds2216.vm-storage-001","nvme-tcp-server-allow-host-name":"",
		"file-path":"/raid10/k8s/vm-storage-001.img","file-size":"1024.0GiB","file-offset":0}`
	recordedPool = `{".id":"*1A","block-device":true,"mounted":true,"type":"raid","slot":"raid10","fs-label":"ocp-storage","fs":"xfs","model":"RAID0 striped",
		"size":16003143565312.000000,"free":14789895307264.000000,"use":8,"mount-point":"raid10","state":"clean","nvme-tcp-export":false}`
)

func rowsOf(t *testing.T, text string) []row {
	t.Helper()
	rows, err := decodeRows(json.RawMessage(text))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestDecodeRecorded(t *testing.T) {
	rows := rowsOf(t, "["+recordedVolume+","+recordedPool+"]")
	v, ours := rows[0].volume(&testConfig)
	want := rds.Volume{
		ID: "*1F", Slot: "vm-storage-001", Size: 1 << 40, Path: "/raid10/k8s/vm-storage-001.img",
		NQN: "nqn.2026-09.com.mikrotik:rds2216.vm-storage-001", Port: 4420, Exported: true, Ledger: rds.ParseLedger(""),
	}
	if diff := cmp.Diff(want, v); diff != "" || !ours {
		t.Errorf("ours %v (-want +got)\n%s", ours, diff)
	}
	p, err := decodePool(rows, &testConfig)
	wantPool := pool{slot: "raid10", Pool: rds.Pool{MountPoint: "raid10", FS: "xfs", State: "clean", Size: 16003143565312, Free: 14789895307264, Allocated: 1 << 40}}
	if diff := cmp.Diff(wantPool, p, cmp.AllowUnexported(pool{})); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}

func TestDecodeShapes(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want int
	}{
		"none": {"[]", 0}, "null": {"null", 0}, "bare object": {`{"a":1}`, 1}, "two": {`[{"a":1},{"a":2}]`, 2}, "blanks": {" [ ] ", 0},
	} {
		if rows := rowsOf(t, tc.text); len(rows) != tc.want {
			t.Errorf("%s: %d rows, want %d", name, len(rows), tc.want)
		}
	}
	for _, text := range []string{"", "x", `"text"`, "1", "[1]", `[{"a":1}`, `{"a"}`} {
		if rows, err := decodeRows(json.RawMessage(text)); err == nil {
			t.Errorf("%q was read as %v", text, rows)
		}
	}
}

func TestRowNumber(t *testing.T) {
	rows := rowsOf(t, `{"whole":2048,"float":2048.000000,"text":"2048","grouped":"1 099 511 627 776","rounded":"1024.0GiB","half":0.5,
		"negative":-1,"null":null,"flag":true,"huge":99999999999999999999,"exp":1e3,"hex":"0x10","dots":"1.2.3","empty":""}`)
	for key, want := range map[string]int64{"whole": 2048, "float": 2048, "text": 2048, "grouped": 1 << 40} {
		if n, ok := rows[0].number(key); !ok || n != want {
			t.Errorf("%s = %d, %v, want %d", key, n, ok, want)
		}
	}
	for _, key := range []string{"rounded", "half", "negative", "null", "flag", "huge", "exp", "hex", "dots", "empty", "absent"} {
		if n, ok := rows[0].number(key); ok {
			t.Errorf("%s was read as %d", key, n)
		}
	}
}

func TestRowFlag(t *testing.T) {
	rows := rowsOf(t, `{"a":true,"b":"true","c":"yes","d":false,"e":"no","f":null,"g":1,"h":""}`)
	for key, want := range map[string]bool{"a": true, "b": true, "c": true, "d": false, "e": false, "f": false, "g": false, "h": false, "absent": false} {
		if got := rows[0].flag(key); got != want {
			t.Errorf("%s = %v, want %v", key, got, want)
		}
	}
}

func TestVolumeOfOthers(t *testing.T) {
	for name, text := range map[string]string{
		"pool":       recordedPool,
		"elsewhere":  `{"type":"file","slot":"a","file-path":"/raid10/other/a.img","size":1}`,
		"sibling":    `{"type":"file","slot":"a","file-path":"/raid10/k8s2/a.img","size":1}`,
		"no path":    `{"type":"file","slot":"a","size":1}`,
		"odd slot":   `{"type":"file","slot":"a b","file-path":"/raid10/k8s/a.img","size":1}`,
		"no slot":    `{"type":"file","file-path":"/raid10/k8s/a.img","size":1}`,
		"other type": `{"type":"partition","slot":"a","file-path":"/raid10/k8s/a.img","size":1}`,
	} {
		if v, ours := rowsOf(t, text)[0].volume(&testConfig); ours {
			t.Errorf("%s was taken for a volume: %+v", name, v)
		}
	}
}

func TestVolumeVariants(t *testing.T) {
	v, ours := rowsOf(t, `{".id":"*2","type":"file","slot":"a","file-path":"raid10/k8s/a.1234abcd.img","file-size":"1048576","nvme-tcp-export":"yes","comment":"rds1 g1 n=5","nvme-tcp-server-port":null}`)[0].volume(&testConfig)
	if !ours || v.Path != "/raid10/k8s/a.1234abcd.img" || v.Size != 1<<20 || !v.Exported || v.Port != 4420 || !v.Ledger.Holds("n") {
		t.Errorf("%+v, ours %v", v, ours)
	}
	if v, ours := rowsOf(t, `{"type":"file","slot":"a","file-path":"/raid10/k8s/a.img","file-size":"50.0GiB"}`)[0].volume(&testConfig); !ours || v.Size != 0 {
		t.Errorf("a rounded size was taken for an exact one: %+v", v)
	}
}

func TestDecodePoolMissing(t *testing.T) {
	_, err := decodePool(rowsOf(t, `[{"type":"raid","slot":"r","mount-point":"other","size":1,"free":1},{"type":"file","slot":"a"}]`), &testConfig)
	if !errors.Is(err, rds.ErrUnsupported) || !strings.Contains(err.Error(), "raid10") || !strings.Contains(err.Error(), "other") {
		t.Errorf("the error names neither what is missing nor what is there: %v", err)
	}
	if _, err := decodePool(rowsOf(t, `[{"type":"raid","slot":"r","mount-point":"raid10","size":"1.0TiB","free":1}]`), &testConfig); err == nil {
		t.Error("a rounded size of the pool was believed")
	}
}

func TestCheckVersion(t *testing.T) {
	for version, good := range map[string]bool{
		"7.24.4 (stable)": true, "7.21": true, "7.21rc1 (testing)": true, "8.0": true, "7.100beta2": true,
		"7.20.9 (stable)": false, "7.2": false, "6.49.10": false, "": false, "unknown": false,
	} {
		if err := checkVersion(version); (err == nil) != good || err != nil && !errors.Is(err, rds.ErrUnsupported) {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

func TestClassify(t *testing.T) {
	for words, want := range map[string]error{
		"failure: not allowed by device-mode":                 rds.ErrDenied,
		"not enough permissions (9)":                          rds.ErrDenied,
		"no such item (4)":                                    rds.ErrConflict,
		"failure: already have such slot":                     rds.ErrExists,
		"failure: not enough space on disk":                   rds.ErrNoSpace,
		"bad command name disk (line 1 column 1)":             rds.ErrUnsupported,
		"bad parameter nvme-tcp-server-nqn (line 1 column 9)": rds.ErrUnsupported,
		"failure: the moon is in the wrong house":             rds.ErrFailed,
		"":                           rds.ErrFailed,
		"success":                    rds.ErrFailed,
		"invalid value of file-size": rds.ErrFailed,
	} {
		if err := classify(words); !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
			t.Errorf("%q = %v, want %v with the array's words", words, err, want)
		}
	}
}

// wrap breaks a text as a console of that width does.
func wrap(text string, width int) string {
	var b strings.Builder
	for len(text) > width {
		b.WriteString(text[:width] + "\r\n")
		text = text[width:]
	}
	return b.String() + text + "\r\n"
}

func TestParseAnswer(t *testing.T) {
	const nonce = "0123456789abcdef"
	m := func(marks ...string) string { return nonce + strings.Join(marks, nonce) }
	tests := map[string]struct {
		reason string
		out    string
		want   answer
	}{
		"whole":      {"", m("<") + `"7.24"` + `[{"a":1}]` + m(">"), answer{complete: true, values: []json.RawMessage{[]byte(`"7.24"`), []byte(`[{"a":1}]`)}}},
		"changed":    {"", m("<", "+") + "[]" + m(">"), answer{complete: true, changed: true, values: []json.RawMessage{[]byte("[]")}}},
		"undone":     {"as before", m("<", "+", "-", "!") + "failure: full" + m(">"), answer{complete: true, failed: true, words: "failure: full"}},
		"failed":     {"the array's words", m("<", "!") + "no such item" + m(">"), answer{complete: true, failed: true, words: "no such item"}},
		"half":       {"cut before the end", m("<", "+") + `[{"a`, answer{changed: true, words: `[{"a`}},
		"other run":  {"another nonce proves nothing", strings.ReplaceAll(m("<", ">"), "0", "f"), answer{words: strings.ReplaceAll(m("<", ">"), "0", "f")}},
		"echo":       {"the command itself proves nothing", `:put ("01234567" . "89abcdef<");:put ("01234567" . "89abcdef>")`, answer{words: `:put ("01234567" . "89abcdef<");:put ("01234567" . "89abcdef>")`}},
		"not parsed": {"", "syntax error (line 1 column 5)\r\n", answer{words: "syntax error (line 1 column 5)"}},
		"nothing":    {"", "", answer{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for _, width := range []int{7, 80, 1000} {
				out := tc.out
				if tc.want.complete {
					out = wrap(out, width)
				}
				if diff := cmp.Diff(tc.want, parseAnswer(nonce, []byte(out)), cmp.AllowUnexported(answer{})); diff != "" {
					t.Errorf("%s, width %d: (-want +got)\n%s", tc.reason, width, diff)
				}
			}
		})
	}
}

// FuzzDecode feeds answers that no array gave: none may crash the decoder, and
// what is cut off is never whole.
func FuzzDecode(f *testing.F) {
	const nonce = "0123456789abcdef"
	for _, seed := range []string{
		"[" + recordedVolume + "," + recordedPool + "]", "[]", "null", "{}", `[{"size":"1e999999999","file-path":"/raid10/k8s/a","type":"file","slot":"a"}]`, `{"a":[1,{}]}`, "\x00", `"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		whole := nonce + "<" + body + nonce + ">"
		got := parseAnswer(nonce, []byte(whole))
		for _, value := range got.values {
			rows, err := decodeRows(value)
			if err != nil {
				continue
			}
			for _, r := range rows {
				if v, ours := r.volume(&testConfig); ours && (v.Size < 0 || !strings.HasPrefix(v.Path, "/raid10/k8s/")) {
					t.Fatalf("volume %+v", v)
				}
			}
			if p, err := decodePool(rows, &testConfig); err == nil && p.slot == "" {
				t.Fatal("a pool without a slot")
			}
		}
		if strings.Contains(body, nonce) {
			return
		}
		if cut := parseAnswer(nonce, []byte(whole[:len(whole)-1])); cut.complete {
			t.Fatalf("a cut answer was taken for whole: %q", body)
		}
	})
}

// TestScriptsFit builds the longest commands that are possible: RouterOS's limit
// is unknown, ours must hold for whatever a comment contains.
func TestScriptsFit(t *testing.T) {
	c := Config{BasePath: strings.Repeat("b", maxBasePath), NQNPrefix: "nqn.2000-02." + strings.Repeat("n", 116), NVMePort: 65535}
	slot := strings.Repeat("s", 64)
	ledger := rds.Ledger{Known: true, Generation: 1 << 62, Foreign: strings.Repeat("?", rds.MaxComment-30)}
	v := rds.Volume{Slot: slot, Comment: ledger.String(), Ledger: ledger, NQN: rds.NQN(c.NQNPrefix, slot, 1<<62), Path: "/" + c.BasePath + "/" + slot + ".0123abcd.img"}
	next := ledger
	next.Generation++
	w, err := plan(v, rds.Change{Ledger: &next, NQN: rds.NQN(c.NQNPrefix, slot, 1<<62), Export: rds.ExportOn, Size: 1 << 62}, &c)
	if err != nil {
		t.Fatal(err)
	}
	grow, err := plan(v, rds.Change{Size: 1 << 62}, &c)
	if err != nil {
		t.Fatal(err)
	}
	p := pool{slot: slot, Pool: rds.Pool{FS: "btrfs", MountPoint: c.mountPoint()}}
	n := rds.NewVolume{Slot: slot[:rds.MaxNewSlot], Size: 1 << 62}
	xfs, id, now := pool{slot: slot, Pool: rds.Pool{FS: "xfs", MountPoint: c.mountPoint()}}, rds.SnapshotFor("a"), time.Unix(1<<33, 0)
	for name, s := range map[string]*script{
		"update": w.script(), "expand": grow.script(), "create": creation(&c, p, n, subvolumeOrigin(p, v.Path[1:], n.Size-1), newImage(&c, p, n.Slot, "-12345678"), 9),
		"snapshot": snapshotting(&c, p, v, v.Path[1:], snapshotStem(&c, id, v, now), id),
		"copy":     snapshotCopy(&c, xfs, v, snapshotStem(&c, id, v, now), id, true),
		"clone":    volumeCopy(&c, xfs, n, &origin{size: n.Size - 1, image: v.Path[1:], conditions: []string{whileUntouched(v)}}, 9, now, true),
		"list":     newScript("", false).add(listing(&c, p, slot)...).add(removeSubvolume(p, v.Path)),
	} {
		line := s.line()
		if len(line) > maxScript {
			t.Errorf("%s takes %d bytes", name, len(line))
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s is not one printable line", name)
		}
	}
}
