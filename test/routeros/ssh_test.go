package routeros_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

func TestCommandOverSSH(t *testing.T) {
	srv := started(t, routeros.Options{})
	c := dial(t, srv)
	out, status := c.run(`:put [/system/identity/get name]`)
	if out != "MikroTik\r\n" || status != 0 {
		t.Errorf("%q, %d", out, status)
	}
	if st := srv.Stats(); st.Connections != 1 || st.Commands != 1 || st.BytesIn == 0 || st.BytesOut == 0 {
		t.Errorf("%+v", st)
	}
}

// TestExitStatus: errors are on stdout and the status says nothing.
func TestExitStatus(t *testing.T) {
	for mode, want := range map[routeros.ExitStatus][]int{
		"": {0, 1, 0}, routeros.ExitZero: {0, 0, 0}, routeros.ExitOne: {1, 1, 1},
	} {
		t.Run(string(mode), func(t *testing.T) {
			srv := started(t, routeros.Options{Settings: routeros.Settings{ExitStatus: mode}})
			c := dial(t, srv)
			for i, w := range want {
				out, status := c.run(`:put a; /disk/remove nobody`)
				if out != "a\r\nno such item\r\n" || status != w {
					t.Errorf("%d: %q, %d; want status %d", i, out, status, w)
				}
			}
			if out, _ := c.run(`/disk/foo`); out != "bad command name foo (line 1 column 7)\r\n" {
				t.Errorf("%q", out)
			}
		})
	}
}

func TestHostKeys(t *testing.T) {
	for _, kind := range []routeros.HostKeyType{routeros.RSA, routeros.Ed25519} {
		t.Run(string(kind), func(t *testing.T) {
			srv := started(t, routeros.Options{HostKeyType: kind})
			old := clientConfig(t, srv, "admin")
			dial(t, srv)
			if _, err := srv.RotateHostKey(); err != nil {
				t.Fatal(err)
			}
			if _, err := gossh.Dial("tcp", srv.Addr(), old); err == nil {
				t.Error("the old host key is still there")
			}
			dial(t, srv)
		})
	}
}

func TestUserKeys(t *testing.T) {
	srv := started(t, routeros.Options{})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		key  any
		ok   bool
	}{{"rsa", rsaKey, true}, {"ecdsa", ecKey, false}} {
		signer, err := gossh.NewSignerFromKey(tt.key)
		if err != nil {
			t.Fatal(err)
		}
		cfg := clientConfig(t, srv, "admin")
		cfg.Auth = []gossh.AuthMethod{gossh.PublicKeys(signer)}
		c, err := gossh.Dial("tcp", srv.Addr(), cfg)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
}

func TestLogin(t *testing.T) {
	key := newKey(t)
	srv := started(t, routeros.Options{Users: []routeros.User{
		{Name: "rw", Keys: []gossh.PublicKey{key.PublicKey()}, Policies: []string{"ssh", "read", "write"}},
		{Name: "ro", Password: "secret", AnyKey: true, Policies: []string{"ssh", "read"}},
		{Name: "api", AnyKey: true, Policies: []string{"read", "write"}},
	}})
	try := func(user string, auth gossh.AuthMethod) error {
		cfg := clientConfig(t, srv, user)
		cfg.Auth = []gossh.AuthMethod{auth}
		c, err := gossh.Dial("tcp", srv.Addr(), cfg)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	for _, tt := range []struct {
		name, user string
		auth       gossh.AuthMethod
		ok         bool
	}{
		{"right key", "rw", gossh.PublicKeys(key), true},
		{"wrong key", "rw", gossh.PublicKeys(newKey(t)), false},
		{"password", "ro", gossh.Password("secret"), true},
		{"wrong password", "ro", gossh.Password("no"), false},
		{"no password set", "rw", gossh.Password(""), false},
		{"no ssh policy", "api", gossh.PublicKeys(key), false},
		{"unknown user", "nobody", gossh.PublicKeys(key), false},
	} {
		if err := try(tt.user, tt.auth); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	srv.Configure(func(s *routeros.Settings) { s.RefuseLogins = true })
	if try("rw", gossh.PublicKeys(key)) == nil {
		t.Error("logged in although logins are refused")
	}
	srv.Configure(func(s *routeros.Settings) { s.RefuseLogins = false })
	c := dialAs(t, srv, "ro")
	if out, _ := c.run(`:put [:len [/disk/find]]`); out != "1\r\n" {
		t.Errorf("%q", out)
	}
	for _, script := range []string{`/disk/set raid10 comment=x`, `/file/remove [find name=nothing]`, `/disk/comment 0 comment=x`} {
		if out, _ := c.run(script); out != "not enough permissions (9)\r\n" {
			t.Errorf("%s: %q", script, out)
		}
	}
}

func TestMaxSessions(t *testing.T) {
	srv := started(t, routeros.Options{Settings: routeros.Settings{MaxSessions: 2}})
	first := dial(t, srv)
	dial(t, srv)
	if _, err := gossh.Dial("tcp", srv.Addr(), clientConfig(t, srv, "admin")); err == nil {
		t.Fatal("a third connection was accepted")
	}
	if srv.Stats().Refused != 1 {
		t.Errorf("%+v", srv.Stats())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, srv, func() bool { return srv.Stats().Active == 1 })
	dial(t, srv)
}

// TestUnbalancedInputHangs until the client gives up; others go on.
func TestUnbalancedInputHangs(t *testing.T) {
	srv := started(t, routeros.Options{})
	c := dial(t, srv)
	sess, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := sess.Start(`:put "abc`); err != nil {
		t.Fatal(err)
	}
	waitFor(t, srv, func() bool { cmd, ok := srv.LastCommand(); return ok && cmd.Outcome == routeros.Incomplete })
	if out, _ := c.run(`:put b`); out != "b\r\n" {
		t.Errorf("%q", out)
	}
	if srv.Stats().Running != 1 {
		t.Error("the first command does not hang")
	}
	if err := sess.Close(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := srv.WaitIdle(ctxOf(t)); err != nil {
		t.Error(err)
	}
}

func TestForcedTerminalHangs(t *testing.T) {
	srv := started(t, routeros.Options{})
	c := dial(t, srv)
	sess, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := sess.RequestPty("vt100", 25, 80, gossh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	if err := sess.Start(`/disk/set raid10 comment=x`); err != nil {
		t.Fatal(err)
	}
	waitFor(t, srv, func() bool { return srv.Stats().Running == 1 })
	if err := sess.Close(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := srv.WaitIdle(ctxOf(t)); err != nil {
		t.Error(err)
	}
	if cmd, _ := srv.LastCommand(); cmd.Outcome != routeros.NotRun || srv.Disks()[0].Comment != "" {
		t.Errorf("%+v", cmd)
	}
}

func TestKeepalive(t *testing.T) {
	for _, answered := range []bool{false, true} {
		t.Run(fmt.Sprint(answered), func(t *testing.T) {
			srv := started(t, routeros.Options{Settings: routeros.Settings{AnswerKeepalive: answered}})
			c := dial(t, srv)
			got := make(chan error, 1)
			go func() {
				_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
				got <- err
			}()
			if answered {
				if err := await(t, got); err != nil {
					t.Error(err)
				}
				return
			}
			// Commands are answered while the keepalive is not.
			if out, _ := c.run(`:put a`); out != "a\r\n" {
				t.Errorf("%q", out)
			}
			select {
			case err := <-got:
				t.Errorf("answered: %v", err)
			default:
			}
			_ = c.Close()
			if err := await(t, got); err == nil {
				t.Error("answered by a closed connection")
			}
		})
	}
}

// TestInterleaving: two scripts meet between their commands, never inside one.
func TestInterleaving(t *testing.T) {
	srv := started(t, routeros.Options{})
	addVolume(t, srv, "v")
	const swap = `:if ([/disk/get v comment] = "") do={ /disk/comment v comment=%s; :put [/disk/get v comment] }`
	in, err := srv.Inject(routeros.Fault{Kind: routeros.Pause, Pattern: "comment=one", Steps: 2})
	if err != nil {
		t.Fatal(err)
	}
	first := dial(t, srv).goRun(fmt.Sprintf(swap, "one"))
	await(t, in.Reached()) // has read the empty comment, has not written
	if out, _ := dial(t, srv).run(fmt.Sprintf(swap, "two")); out != "two\r\n" {
		t.Errorf("second script: %q", out)
	}
	in.Release()
	if out := await(t, first); out != "one\r\n" {
		t.Errorf("first script: %q", out)
	}
}

func TestGlobalsOutliveSessions(t *testing.T) {
	srv := started(t, routeros.Options{})
	dial(t, srv).run(`:global seen 7`)
	if out, _ := dial(t, srv).run(`:global seen; :put $seen`); out != "7\r\n" {
		t.Errorf("%q", out)
	}
	if out, _ := dial(t, srv).run(`:put $seen`); out != "\r\n" {
		t.Errorf("not declared: %q", out)
	}
}

func TestLogAndSteps(t *testing.T) {
	srv := started(t, routeros.Options{})
	addVolume(t, srv, "v")
	dial(t, srv).run(`{ :local id [/disk/find where slot="v"]; :if ([:len $id] = 1) do={ /disk/comment $id comment=x } }`)
	cmd, _ := srv.LastCommand()
	var names []string
	for i, s := range cmd.Steps {
		if s.Index != i {
			t.Errorf("step %d has index %d", i, s.Index)
		}
		name := s.Name
		if s.Mutates {
			name += "*"
		}
		names = append(names, name)
	}
	want := "/disk/find :local :len :if /disk/comment*"
	if got := strings.Join(names, " "); got != want || cmd.Outcome != routeros.Succeeded {
		t.Errorf("%s (%s), want %s", got, cmd.Outcome, want)
	}
}

// waitFor polls by asking the server itself to run a command each time, so it
// neither sleeps nor spins blindly.
func waitFor(t *testing.T, srv *routeros.Server, cond func() bool) {
	t.Helper()
	ctx := ctxOf(t)
	for !cond() {
		if _, err := srv.Run(ctx, `:delay 1ms`); err != nil {
			t.Fatal("waited too long")
		}
	}
}
