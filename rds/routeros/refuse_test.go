package routeros_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	sim "git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// wantNothing requires an error of the kind that names all the parts, and an
// array on which nothing was made.
func wantNothing(t *testing.T, server *sim.Server, err, kind error, parts ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error %v, want %v", err, kind)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if server == nil {
		return
	}
	if len(server.Disks()) > 1 || len(server.Files()) > 2 || len(server.Subvolumes()) > 0 {
		t.Errorf("something was made: %+v, %+v, %+v", server.Disks(), server.Files(), server.Subvolumes())
	}
}

func TestRefusals(t *testing.T) {
	tests := map[string]struct {
		opts  sim.Options
		fs    string
		set   func(*testing.T, *sim.Server, *routeros.Config)
		kind  error
		parts []string
	}{
		"old RouterOS":   {sim.Options{Settings: sim.Settings{Version: "7.20.8 (stable)"}}, "xfs", nil, rds.ErrUnsupported, []string{"7.20.8", "7.21"}},
		"no such pool":   {sim.Options{}, "xfs", func(_ *testing.T, _ *sim.Server, c *routeros.Config) { c.BasePath = "tank/k8s" }, rds.ErrUnsupported, []string{"tank", "raid10"}},
		"no directory":   {sim.Options{}, "xfs", func(_ *testing.T, _ *sim.Server, c *routeros.Config) { c.BasePath = "raid10/none" }, rds.ErrFailed, []string{"no such directory"}},
		"no directory b": {sim.Options{}, "btrfs", func(_ *testing.T, _ *sim.Server, c *routeros.Config) { c.BasePath = "raid10/none" }, rds.ErrFailed, []string{"no such directory"}},
		"full pool":      {sim.Options{}, "xfs", func(t *testing.T, s *sim.Server, _ *routeros.Config) { must(t, s.FillPool("raid10")) }, rds.ErrNoSpace, []string{"raid10", "1073741824"}},
		"reserve":        {sim.Options{}, "xfs", func(_ *testing.T, _ *sim.Server, c *routeros.Config) { c.ReserveBytes = 100*gib - mib }, rds.ErrNoSpace, []string{"kept free"}},
		"wrong user key": {sim.Options{Users: []sim.User{{Name: "admin", Policies: []string{"ssh", "read", "write"}}}}, "xfs", nil, rds.ErrDenied, []string{"ssh-keys"}},
		"wrong user":     {sim.Options{}, "xfs", func(_ *testing.T, _ *sim.Server, c *routeros.Config) { c.User = "nobody" }, rds.ErrDenied, nil},
		"may not write":  {sim.Options{Users: []sim.User{{Name: "admin", AnyKey: true, Policies: []string{"ssh", "read"}}}}, "xfs", nil, rds.ErrDenied, []string{"not enough permissions", "policies"}},
		"may not read":   {sim.Options{Users: []sim.User{{Name: "admin", AnyKey: true, Policies: []string{"ssh"}}}}, "xfs", nil, rds.ErrDenied, []string{"policies"}},
		"wrong host key": {sim.Options{}, "xfs", func(t *testing.T, _ *sim.Server, c *routeros.Config) {
			c.HostKey = routeros.HostKeys{fingerprint(t)}
		}, rds.ErrDenied, []string{"not pinned", "SHA256:"}},
		"host key of another type": {sim.Options{HostKeyType: sim.RSA}, "xfs", func(t *testing.T, _ *sim.Server, c *routeros.Config) {
			key, err := ssh.NewPublicKey(newKey(t).Public())
			must(t, err)
			c.HostKey = routeros.HostKeys{string(ssh.MarshalAuthorizedKey(key))}
		}, rds.ErrDenied, []string{"host key"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := simulate(t, tc.fs, tc.opts)
			cfg := config(t, server)
			if tc.set != nil {
				tc.set(t, server, &cfg)
			}
			_, err := connect(t, cfg).Create(ctxOf(t), rds.NewVolume{Slot: slot, Size: gib})
			wantNothing(t, server, err, tc.kind, tc.parts...)
		})
	}
}

func fingerprint(t *testing.T) string {
	t.Helper()
	key, err := ssh.NewPublicKey(newKey(t).Public())
	must(t, err)
	return ssh.FingerprintSHA256(key)
}

// TestPoolFillsUp has an array that says no in words nobody has heard, when a warm
// view still promises space.
func TestPoolFillsUp(t *testing.T) {
	for _, fs := range []string{"xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			phrases := sim.DefaultPhrases()
			phrases.NoSpace = "failure: the cup runneth over"
			server := simulate(t, fs, sim.Options{Settings: sim.Settings{Phrases: &phrases}})
			array := connect(t, config(t, server))
			_, err := array.View(ctxOf(t))
			must(t, err)
			must(t, server.FillPool("raid10"))
			_, err = array.Create(ctxOf(t), rds.NewVolume{Slot: slot, Size: gib})
			wantNothing(t, server, err, rds.ErrFailed, "the cup runneth over")
		})
	}
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := listener.Addr().String()
	must(t, listener.Close())
	array := connect(t, routeros.Config{Name: "west", Address: address, User: "admin", KeyFile: keyFile(t, newKey(t)), HostKey: routeros.HostKeys{fingerprint(t)}, BasePath: base})
	_, err = array.Create(ctxOf(t), rds.NewVolume{Slot: slot, Size: gib})
	wantNothing(t, nil, err, rds.ErrUnreachable, "west", address)
	must(t, array.Close())
	_, err = array.View(ctxOf(t))
	wantNothing(t, nil, err, rds.ErrUnreachable, "closed")
}

// TestSilentPeer is a host that accepts connections and says nothing.
func TestSilentPeer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = listener.Close() }()
	array := connect(t, routeros.Config{Name: "west", Address: listener.Addr().String(), User: "admin", KeyFile: keyFile(t, newKey(t)), HostKey: routeros.HostKeys{fingerprint(t)},
		BasePath: base, DialTimeout: routeros.Duration{Duration: 200 * time.Millisecond}})
	_, err = array.View(ctxOf(t))
	wantNothing(t, nil, err, rds.ErrUnreachable)
}

func TestSessionsUsedUp(t *testing.T) {
	server := simulate(t, "xfs", sim.Options{Settings: sim.Settings{MaxSessions: 1}})
	cfg := config(t, server)
	_, err := connect(t, cfg).View(ctxOf(t))
	must(t, err)
	_, err = connect(t, cfg).View(ctxOf(t))
	wantNothing(t, nil, err, rds.ErrUnreachable, "max-sessions")
}

func TestUserKeys(t *testing.T) {
	server := simulate(t, "xfs", sim.Options{HostKeyType: sim.RSA, MACs: []string{ssh.HMACSHA256}})
	cfg := config(t, server)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	cfg.KeyFile = keyFile(t, key)
	_, err = connect(t, cfg).View(ctxOf(t))
	must(t, err)
	cfg.HostKey = routeros.HostKeys{fingerprint(t), ssh.FingerprintSHA256(server.HostKey())}
	_, err = connect(t, cfg).View(ctxOf(t))
	must(t, err)
	cfg.HostKey, cfg.InsecureAcceptAnyHostKey = nil, true
	_, err = connect(t, cfg).View(ctxOf(t))
	must(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	cfg.KeyFile = keyFile(t, curve)
	if _, err = routeros.New(cfg); !errors.Is(err, rds.ErrInvalid) || !strings.Contains(err.Error(), "ecdsa") {
		t.Errorf("an ECDSA key: %v", err)
	}
}

func TestHostKeyReplaced(t *testing.T) {
	server := simulate(t, "xfs", sim.Options{})
	array := connect(t, config(t, server))
	_, err := array.View(ctxOf(t))
	must(t, err)
	_, err = server.RotateHostKey()
	must(t, err)
	server.CutAll()
	_, err = array.View(ctxOf(t))
	wantNothing(t, nil, err, rds.ErrDenied, "not pinned")
}

// TestOddAnswers replaces the answer to a change by texts that say neither what
// happened nor that it did.
func TestOddAnswers(t *testing.T) {
	for text, want := range map[string]error{
		"":                          rds.ErrUnknownOutcome,
		"ok":                        rds.ErrUnknownOutcome,
		"failure: something":        rds.ErrUnknownOutcome,
		"interrupted":               rds.ErrUnknownOutcome,
		`[{"slot":"` + slot + `"}]`: rds.ErrUnknownOutcome,
		"bad command name onerror (line 1 column 2)":          rds.ErrUnsupported,
		"syntax error (line 1 column 5)":                      rds.ErrFailed,
		"expected end of command (line 1 column 37)":          rds.ErrFailed,
		"bad parameter nvme-tcp-server-nqn (line 1 column 9)": rds.ErrUnsupported,
	} {
		t.Run(text, func(t *testing.T) {
			server := simulate(t, "xfs", sim.Options{})
			array := connect(t, config(t, server))
			_, err := array.View(ctxOf(t))
			must(t, err)
			_, err = server.Inject(sim.Fault{Kind: sim.Answer, Text: text})
			must(t, err)
			_, err = array.Create(ctxOf(t), rds.NewVolume{Slot: slot, Size: gib})
			wantNothing(t, server, err, want)
			_, err = server.Inject(sim.Fault{Kind: sim.Answer, Text: text})
			must(t, err)
			if _, err = array.Volume(ctxOf(t), slot); err == nil || errors.Is(err, rds.ErrNotFound) || errors.Is(err, rds.ErrUnknownOutcome) {
				t.Errorf("a read that got %q: %v", text, err)
			}
		})
	}
}

// TestInTheWay has disks and files that look like the volume's own.
func TestInTheWay(t *testing.T) {
	tests := map[string]struct {
		reason string
		set    func(*testing.T, *sim.Server)
		kind   error
		part   string
	}{
		"file":           {"of another plugin", func(t *testing.T, s *sim.Server) { must(t, s.AddFile(base+"/"+slot+".img", gib)) }, rds.ErrExists, slot + ".img"},
		"almost ours":    {"an administrator's copy", func(t *testing.T, s *sim.Server) { must(t, s.AddFile(base+"/"+slot+".0123abcd.img.bak", gib)) }, rds.ErrExists, ".bak"},
		"disk elsewhere": {"no volume of ours", func(t *testing.T, s *sim.Server) { addDisk(t, s, slot, "raid10/other.img", nil) }, rds.ErrExists, "raid10/other.img"},
		"renamed disk":   {"its image is one of ours", func(t *testing.T, s *sim.Server) { addDisk(t, s, "renamed", base+"/"+slot+".0123abcd.img", nil) }, rds.ErrExists, "renamed"},
		"another size":   {"", func(t *testing.T, s *sim.Server) { addDisk(t, s, slot, base+"/"+slot+".0123abcd.img", nil) }, rds.ErrExists, "bytes"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			server := simulate(t, "xfs", sim.Options{})
			tc.set(t, server)
			disks, files := len(server.Disks()), len(server.Files())
			_, err := connect(t, config(t, server)).Create(ctxOf(t), rds.NewVolume{Slot: slot, Size: gib})
			if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.part) {
				t.Errorf("%s: %v, want %v", tc.reason, err, tc.kind)
			}
			if len(server.Disks()) != disks || len(server.Files()) != files {
				t.Errorf("%s: now there are %+v, %+v", tc.reason, server.Disks(), server.Files())
			}
		})
	}
}

func addDisk(t *testing.T, s *sim.Server, slot, path string, more map[string]string) {
	t.Helper()
	properties := map[string]string{"type": "file", "slot": slot, "file-path": path, "file-size": "2147483648", "mount-filesystem": "no"}
	for name, value := range more {
		properties[name] = value
	}
	_, err := s.AddDisk(properties)
	must(t, err)
}

// TestNotOurs leaves a disk alone whose image is not below the base path.
func TestNotOurs(t *testing.T) {
	server := simulate(t, "xfs", sim.Options{})
	addDisk(t, server, slot, "raid10/other/"+slot+".img", map[string]string{"comment": "rds1 g1", "nvme-tcp-export": "yes"})
	array := connect(t, config(t, server))
	before, _ := server.Disk(slot)
	view, err := array.View(ctxOf(t))
	if err != nil || len(view.Volumes) != 0 || view.Pool.Allocated != before.Size {
		t.Errorf("view %+v, %v; it is no volume, but it takes space", view, err)
	}
	_, err = array.Volume(ctxOf(t), slot)
	wantNothing(t, nil, err, rds.ErrExists, "not below")
	_, err = array.Update(ctxOf(t), slot, func(context.Context, rds.Volume) (rds.Change, error) { t.Error("asked"); return rds.Change{}, nil })
	wantNothing(t, nil, err, rds.ErrExists)
	wantNothing(t, nil, array.Delete(ctxOf(t), slot), rds.ErrExists)
	if after, _ := server.Disk(slot); after != before {
		t.Errorf("it became %+v", after)
	}
}

// TestRefusedUnseen has the array refuse what it made at an earlier attempt, and fall
// silent when it is asked whether it did. That is no refusal: one is final, and what was
// made would be forgotten.
func TestRefusedUnseen(t *testing.T) {
	volume := rds.NewVolume{Slot: slot, Size: gib}
	asksFor := func(t *testing.T, a *routeros.Array) error {
		_, err := a.Create(ctxOf(t), volume)
		return err
	}
	made := func(t *testing.T, s *sim.Server) {
		t.Helper()
		must(t, asksFor(t, connect(t, config(t, s))))
	}
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, s *sim.Server)
		ask     func(t *testing.T, a *routeros.Array) error
		look    string // a pattern of the command that looks
	}{
		"no space": {func(t *testing.T, s *sim.Server) {
			made(t, s)
			must(t, s.FillPool("raid10"))
		}, asksFor, "/disk/get"},
		"exists": {func(t *testing.T, s *sim.Server) {
			s.OnStep(func(_ context.Context, _ sim.Command, step sim.Step) {
				if step.Name == "/disk/add" { // behind its questions
					s.OnStep(nil)
					addDisk(t, s, slot, base+"/"+slot+".0123abcd.img", map[string]string{"file-size": "1073741824", "comment": "rds1 g0"})
				}
			})
		}, asksFor, "/disk/get"},
		"in use": {func(t *testing.T, s *sim.Server) {
			made(t, s)
			a := connect(t, config(t, s))
			must(t, snapshot(ctxOf(t), a, slot))
			must(t, s.WaitIdle(ctxOf(t)))
			must(t, update(publishTo("node-a"))(ctxOf(t), a, slot))
		}, func(t *testing.T, a *routeros.Array) error { return snapshot(ctxOf(t), a, slot) }, "_snap-"},
	} {
		t.Run(name, func(t *testing.T) {
			server := simulate(t, "xfs", sim.Options{})
			tc.prepare(t, server)
			array := connect(t, config(t, server))
			silent, err := server.Inject(sim.Fault{Kind: sim.CutReceived, Pattern: tc.look, Times: -1})
			must(t, err)
			if err := tc.ask(t, array); !errors.Is(err, rds.ErrUnreachable) {
				t.Errorf("unseen: %v", err)
			}
			silent.Remove()
			if err := tc.ask(t, array); err != nil || silent.Hits() == 0 {
				t.Errorf("seen: %v, after %d silences", err, silent.Hits())
			}
		})
	}
}

// TestNoRoomToGrow has the array refuse to grow a volume, in words known and unknown, when
// a warm view still promises space. That is a refusal, and asking for less succeeds.
func TestNoRoomToGrow(t *testing.T) {
	known := sim.DefaultPhrases()
	odd := sim.DefaultPhrases()
	odd.NoSpace = "failure: the cup runneth over"
	for name, tc := range map[string]struct {
		phrases sim.Phrases
		kind    error
	}{"no space": {known, rds.ErrNoSpace}, "odd words": {odd, rds.ErrFailed}} {
		t.Run(name, func(t *testing.T) {
			server := simulate(t, "xfs", sim.Options{Settings: sim.Settings{Phrases: &tc.phrases}})
			array := connect(t, config(t, server))
			must(t, create(ctxOf(t), array, slot))
			must(t, update(publishTo("node-a"))(ctxOf(t), array, slot))
			before, _ := server.Disk(slot)
			must(t, server.SetPoolUsed("raid10", 100*gib-before.Size-mib))
			for _, warm := range []bool{true, false} {
				err := update(expandTo(2*gib))(ctxOf(t), array, slot)
				if warm && (!errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.phrases.NoSpace)) {
					t.Errorf("refused by the array: %v, want %v", err, tc.kind)
				}
				_, viewErr := array.View(ctxOf(t))
				must(t, viewErr)
				if !warm && !errors.Is(err, rds.ErrNoSpace) {
					t.Errorf("refused by what is known: %v", err)
				}
			}
			must(t, update(expandTo(gib+mib))(ctxOf(t), array, slot))
			after, _ := server.Disk(slot)
			before.Size, before.Comment = gib+mib, after.Comment
			if after != before || !rds.ParseLedger(after.Comment).Holds("node-a") {
				t.Errorf("%+v, want %+v", after, before)
			}
		})
	}
}

// TestNoRoomToComplete has the array refuse to grow what was made of a snapshot to the
// size that was asked for: the creation has failed, and made nothing.
func TestNoRoomToComplete(t *testing.T) {
	server := simulate(t, "btrfs", sim.Options{})
	array, slot := connect(t, config(t, server)), "pvc-a"
	for _, step := range []call{source, snapshotSource} {
		must(t, step(ctxOf(t), array, slot))
	}
	must(t, server.SetPoolUsed("raid10", 100*gib-gib-mib))
	if err := restore(2*gib)(ctxOf(t), array, slot); !errors.Is(err, rds.ErrNoSpace) {
		t.Errorf("%v", err)
	}
	if disk, there := server.Disk(slot); there {
		t.Errorf("left behind: %+v", disk)
	}
	must(t, restore(gib+mib)(ctxOf(t), array, slot))
}

// deafHosts is a data plane that cannot show its hosts a new size.
type deafHosts struct{}

func (deafHosts) Apply(e sim.Event) error {
	if e.Kind == sim.ExportResize {
		return errors.New("no answer")
	}
	return nil
}

// TestGrownAllTheSame has an array that reports a failure when it has grown the volume:
// that is no refusal, and the next attempt finds it grown.
func TestGrownAllTheSame(t *testing.T) {
	server := simulate(t, "xfs", sim.Options{Backend: deafHosts{}})
	array := connect(t, config(t, server))
	must(t, create(ctxOf(t), array, slot))
	must(t, update(publishTo("node-a"))(ctxOf(t), array, slot))
	if err := update(expandTo(2*gib))(ctxOf(t), array, slot); !errors.Is(err, rds.ErrUnknownOutcome) {
		t.Errorf("%v", err)
	}
	v, err := array.Update(ctxOf(t), slot, expandTo(2*gib))
	if disk, _ := server.Disk(slot); err != nil || v.Size != 2*gib || disk.Size != v.Size {
		t.Errorf("%+v, %v, on the array %+v", v, err, disk)
	}
}
