package doctor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/doctor"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	sim "git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

const base = "raid10/k8s"

// simulate starts an array with a pool, the base directory and a volume of somebody's.
func simulate(t *testing.T, o sim.Options) (*sim.Server, routeros.Config) {
	t.Helper()
	o.HostKeyType = sim.Ed25519
	o.WholeScripts = true // in statements that interleave, two swaps may both win
	server, err := sim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	key := filepath.Join(t.TempDir(), "key")
	disk := map[string]string{"type": "file", "slot": "pvc-mine", "file-path": "/" + base + "/pvc-mine.img", "file-size": "1073741824", "comment": "mine"}
	err = errors.Join(
		sim.WriteKey(key),
		server.AddPool(sim.Pool{Name: "raid10", FS: "xfs", Size: 1 << 40}),
		server.AddDirectory(base),
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.AddDisk(disk); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(""); err != nil {
		t.Fatal(err)
	}
	return server, routeros.Config{
		Name: "west", Address: server.Addr(), User: "admin", KeyFile: key, BasePath: base,
		HostKey: routeros.HostKeys{ssh.FingerprintSHA256(server.HostKey())},
	}
}

// contents are all disks, with what may be changed about them, and files.
func contents(server *sim.Server) string {
	return fmt.Sprintf("%+v\n%+v", server.Disks(), server.Files())
}

func examine(t *testing.T, config routeros.Config, o doctor.Options) doctor.Report {
	t.Helper()
	report, err := doctor.Examine(t.Context(), config, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func wantVerdict(t *testing.T, r doctor.Report, check string, want doctor.Verdict) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Check == check {
			if f.Verdict != want || want == doctor.Fail && f.Advice == "" {
				t.Errorf("%s: %s (%s), advice %q; want %s", check, f.Verdict, f.Detail, f.Advice, want)
			}
			return
		}
	}
	t.Errorf("no check %q", check)
}

func TestAHealthyArray(t *testing.T) {
	for name, tc := range map[string]struct {
		settings sim.Settings
		options  doctor.Options
		skipped  int
	}{
		"read only":                     {skipped: 14},
		"with a scratch volume":         {options: doctor.Options{Scratch: true}, skipped: 5},
		"with a console that wraps":     {settings: sim.Settings{WrapPut: true}, options: doctor.Options{Scratch: true}, skipped: 5},
		"with idle exports that show":   {settings: sim.Settings{ShowIdleExport: true, FalseFlags: true}, options: doctor.Options{Scratch: true}, skipped: 5},
		"with errors that tell a place": {settings: sim.Settings{LocateErrors: true}, options: doctor.Options{Scratch: true}, skipped: 5},
	} {
		t.Run(name, func(t *testing.T) {
			server, config := simulate(t, sim.Options{Settings: tc.settings})
			before := contents(server)
			report := examine(t, config, tc.options)
			for _, f := range report.Findings {
				if f.Verdict == doctor.Fail || f.Verdict == doctor.Unknown {
					t.Errorf("%s: %s: %s", f.Check, f.Verdict, f.Detail)
				}
			}
			if got := report.Count(doctor.Skipped); got != tc.skipped {
				t.Errorf("%d checks skipped, want %d", got, tc.skipped)
			}
			if after := contents(server); after != before {
				t.Errorf("the array was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// TestReadOnlyChangesNothing: no statement that reaches the array even could.
func TestReadOnlyChangesNothing(t *testing.T) {
	server, config := simulate(t, sim.Options{})
	examine(t, config, doctor.Options{})
	for _, c := range server.Log() {
		for _, verb := range []string{"/add", "/remove", "/comment ", "/file/set"} {
			if strings.Contains(c.Text, verb) {
				t.Errorf("%s", c.Text)
			}
		}
		if strings.Contains(c.Text, "/disk/set") && !strings.Contains(c.Text, doctor.Prefix) {
			t.Errorf("%s", c.Text)
		}
	}
}

func TestAnArrayThatIsOtherwise(t *testing.T) {
	for name, tc := range map[string]struct {
		options sim.Options
		config  func(*routeros.Config)
		hinder  func(*sim.Server)
		failing []string
	}{
		"too old": {options: sim.Options{Settings: sim.Settings{Version: "7.20.1 (stable)"}}, failing: []string{"version and pool", "create"}},
		"a user who may only read": {
			options: sim.Options{Users: []sim.User{{Name: "admin", AnyKey: true, Policies: []string{"ssh", "read"}}}}, failing: []string{"policies", "create"}},
		"another pool":      {config: func(c *routeros.Config) { c.BasePath = "raid1/k8s" }, failing: []string{"version and pool", "base directory", "create"}},
		"no base directory": {config: func(c *routeros.Config) { c.BasePath = "raid10/other" }, failing: []string{"base directory", "create"}},
		"short comments": {failing: []string{"length of a comment"}, hinder: func(s *sim.Server) {
			meddle(s, func(d sim.Disk) string {
				if len(d.Comment) <= 200 {
					return ""
				}
				return "comment=" + routeros.Quote(d.Comment[:200])
			})
		}},
		"swaps that do not compare": {failing: []string{"compare and swap"}, hinder: func(s *sim.Server) {
			n := 0
			meddle(s, func(d sim.Disk) string {
				if !strings.HasPrefix(d.Comment, "rds1 g3 ") {
					return ""
				}
				n++
				return fmt.Sprintf("comment=%q", fmt.Sprintf("rds1 g3 swap=%d", n))
			})
		}},
		"an export that goes off with a comment": {failing: []string{"comment while exported"}, hinder: func(s *sim.Server) {
			meddle(s, func(d sim.Disk) string {
				if !d.Exported || !strings.Contains(d.Comment, "second=") {
					return ""
				}
				return "nvme-tcp-export=no"
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			server, config := simulate(t, tc.options)
			before := contents(server)
			if tc.config != nil {
				tc.config(&config)
			}
			if tc.hinder != nil {
				tc.hinder(server)
			}
			report := examineOtherwise(t, config)
			server.OnStep(nil)
			for _, check := range tc.failing {
				wantVerdict(t, report, check, doctor.Fail)
			}
			if after := contents(server); after != before {
				t.Errorf("the array was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// examineOtherwise accepts that an array that forbids changes cannot be cleaned up,
// either: nothing was made there.
func examineOtherwise(t *testing.T, config routeros.Config) doctor.Report {
	t.Helper()
	report, err := doctor.Examine(t.Context(), config, doctor.Options{Scratch: true})
	if err != nil && !errors.Is(err, rds.ErrDenied) && !errors.Is(err, rds.ErrUnsupported) {
		t.Fatal(err)
	}
	return report
}

// meddle changes scratch disks behind the doctor's back, before each command that reads.
func meddle(server *sim.Server, change func(sim.Disk) string) {
	var busy atomic.Bool
	server.OnStep(func(ctx context.Context, _ sim.Command, _ sim.Step) {
		if !busy.CompareAndSwap(false, true) {
			return
		}
		defer busy.Store(false)
		for _, d := range server.Disks() {
			if !strings.HasPrefix(d.Slot, doctor.Prefix) {
				continue
			}
			if set := change(d); set != "" {
				_, _ = server.Run(ctx, "/disk/set [find where slot="+routeros.Quote(d.Slot)+"] "+set)
			}
		}
	})
}

func TestLeftoversAreNotTouched(t *testing.T) {
	server, config := simulate(t, sim.Options{})
	if err := server.AddFile(base+"/"+doctor.Prefix+"old.img", 1); err != nil {
		t.Fatal(err)
	}
	before := contents(server)
	if _, err := doctor.Examine(t.Context(), config, doctor.Options{Scratch: true}); err == nil || !strings.Contains(err.Error(), "1 files") {
		t.Errorf("it went on: %v", err)
	}
	if after := contents(server); after != before {
		t.Errorf("the array was\n%s\nand is\n%s", before, after)
	}
}

// TestAnInterruptLeavesNothing: at any moment of the examination.
func TestAnInterruptLeavesNothing(t *testing.T) {
	for _, at := range []string{"/disk/add", "swap-1=", "nvme-tcp-export=yes", "file-size="} {
		t.Run(strings.Trim(at, "/="), func(t *testing.T) {
			server, config := simulate(t, sim.Options{})
			before := contents(server)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			server.OnStep(func(_ context.Context, c sim.Command, _ sim.Step) {
				if strings.Contains(c.Text, at) {
					cancel()
				}
			})
			_, err := doctor.Examine(ctx, config, doctor.Options{Scratch: true})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("it was interrupted at %s and says %v", at, err)
			}
			if err := server.WaitIdle(t.Context()); err != nil {
				t.Fatal(err)
			}
			if after := contents(server); after != before {
				t.Errorf("the array was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

func TestAnArrayThatIsAway(t *testing.T) {
	server, config := simulate(t, sim.Options{})
	if err := server.Down(); err != nil {
		t.Fatal(err)
	}
	if report, err := doctor.Examine(t.Context(), config, doctor.Options{Scratch: true}); !errors.Is(err, rds.ErrUnreachable) || len(report.Findings) > 0 {
		t.Errorf("%d findings and %v", len(report.Findings), err)
	}
}

// host is a node at the seam: what it sees are the simulator's exports.
type host struct {
	server   *sim.Server
	identity func(connections int) string
	grows    bool // sees a new size after a rescan
	survives bool // its connection outlives its export's name
	anyName  bool // it can connect by whatever name
	first    int64
	connects int
}

func (h *host) export(nqn string) (sim.Event, error) {
	exports := h.server.Exports()
	if i := slices.IndexFunc(exports, func(e sim.Event) bool { return e.NQN == nqn || h.anyName }); i >= 0 {
		return exports[i], nil
	}
	return sim.Event{}, errors.New("no such export")
}

func (h *host) see(nqn string, size int64) (doctor.Device, error) {
	if _, err := h.export(nqn); err != nil {
		return doctor.Device{}, err
	}
	return doctor.Device{Name: "nvme0n1", Identity: h.identity(h.connects), Size: size, Live: 1}, nil
}

func (h *host) Connect(_ context.Context, nqn string, size int64) (doctor.Device, error) {
	h.connects++
	h.first = size
	return h.see(nqn, size)
}
func (h *host) Look(_ context.Context, nqn string) (doctor.Device, error) { return h.see(nqn, h.first) }
func (h *host) Rescan(_ context.Context, nqn string, size int64) (doctor.Device, error) {
	if h.grows {
		h.first = size
	}
	return h.see(nqn, h.first)
}
func (h *host) Lost(_ context.Context, nqn string) error {
	if h.survives {
		return errors.New("still connected to " + nqn)
	}
	return nil
}
func (h *host) Release(context.Context, string) error { return nil }

func TestWhatAHostSees(t *testing.T) {
	kept := func(int) string { return "uuid.1" }
	for name, tc := range map[string]struct {
		host    host
		hinder  func(*sim.Server)
		failing string
	}{
		"as assumed":                          {host: host{identity: kept, grows: true}},
		"a size that never shows":             {host: host{identity: kept}, failing: "growth, seen by a host"},
		"a random identity":                   {host: host{identity: func(n int) string { return fmt.Sprint("uuid.", n) }, grows: true}, failing: "identity"},
		"no identity":                         {host: host{identity: func(int) string { return "" }, grows: true}, failing: "identity"},
		"a connection that outlives its name": {host: host{identity: kept, grows: true, survives: true}, failing: "new NQN, seen by a host"},
		"an old name that still works":        {host: host{identity: kept, grows: true, anyName: true}, failing: "new NQN, seen by a host"},
		"a name that stays while the export is on": {host: host{identity: kept, grows: true}, failing: "new NQN, seen by a host", hinder: func(s *sim.Server) {
			meddle(s, func(d sim.Disk) string {
				old, renamed := strings.CutSuffix(d.NQN, ".g500")
				if !renamed {
					return ""
				}
				return "nvme-tcp-server-nqn=" + routeros.Quote(old+".g400")
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			server, config := simulate(t, sim.Options{})
			before := contents(server)
			tc.host.server = server
			if tc.hinder != nil {
				tc.hinder(server)
			}
			report := examine(t, config, doctor.Options{Scratch: true, Host: &tc.host})
			for _, f := range report.Findings {
				if f.Check != tc.failing && f.Verdict != doctor.Pass {
					t.Errorf("%s: %s: %s", f.Check, f.Verdict, f.Detail)
				}
			}
			if tc.failing != "" {
				wantVerdict(t, report, tc.failing, doctor.Fail)
			}
			if after := contents(server); after != before {
				t.Errorf("the array was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

func TestReports(t *testing.T) {
	report := doctor.Report{Array: "west", Version: "7.24", Findings: []doctor.Finding{
		{Check: "a", Verdict: doctor.Pass, Detail: "well", Assumption: "A"},
		{Check: "b", Verdict: doctor.Fail, Detail: "ill", Assumption: "B", Promise: "P", Advice: "rest"},
	}}
	var text, data bytes.Buffer
	if err := errors.Join(doctor.Text(&text, report), doctor.JSON(&data, report)); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"PASS     a", "FAIL     b", "assumed: B", "rests on it: P", "do: rest", "1 passed, 1 failed, 0 unknown, 0 skipped"} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("no %q in\n%s", part, text.String())
		}
	}
	if strings.Contains(text.String(), "assumed: A") {
		t.Error("what passed needs no explanation")
	}
	var back doctor.Report
	if err := json.Unmarshal(data.Bytes(), &back); err != nil || !slices.Equal(back.Findings, report.Findings) {
		t.Errorf("%v: %+v", err, back)
	}
}

func TestEveryCheckIsExplained(t *testing.T) {
	names := map[string]bool{}
	for _, c := range doctor.Checks() {
		if c.Name == "" || c.Assumption == "" || c.Promise == "" || c.Advice == "" || names[c.Name] {
			t.Errorf("%+v", c)
		}
		names[c.Name] = true
	}
}
