package routeros_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// patience bounds every wait; it is never waited for in a passing test.
const patience = 20 * time.Second

func ctxOf(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newServer is an array with one pool, "raid10", of 10 TiB.
func newServer(t *testing.T, opts routeros.Options) *routeros.Server {
	t.Helper()
	if opts.HostKeyType == "" {
		opts.HostKeyType = routeros.Ed25519 // quick to make
	}
	srv, err := routeros.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := srv.AddPool(routeros.Pool{Name: "raid10", Size: 10 << 40}); err != nil {
		t.Fatal(err)
	}
	return srv
}

func started(t *testing.T, opts routeros.Options) *routeros.Server {
	t.Helper()
	srv := newServer(t, opts)
	if err := srv.Start(""); err != nil {
		t.Fatal(err)
	}
	return srv
}

// must runs a script without SSH and returns its output with plain line ends.
func must(t *testing.T, srv *routeros.Server, script string) string {
	t.Helper()
	out, err := srv.Run(ctxOf(t), script)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.ReplaceAll(out, "\r\n", "\n")
}

// addVolume makes an exported volume of 1 GiB.
func addVolume(t *testing.T, srv *routeros.Server, slot string) {
	t.Helper()
	must(t, srv, `/disk/add type=file slot="`+slot+`" file-path="/raid10/`+slot+
		`.img" file-size=1G mount-filesystem=no nvme-tcp-export=yes`)
}

func newKey(t *testing.T) gossh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := gossh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func clientConfig(t *testing.T, srv *routeros.Server, user string) *gossh.ClientConfig {
	return &gossh.ClientConfig{
		User: user, Auth: []gossh.AuthMethod{gossh.PublicKeys(newKey(t))},
		HostKeyCallback: gossh.FixedHostKey(srv.HostKey()), Timeout: patience,
	}
}

type client struct {
	t *testing.T
	*gossh.Client
}

func dial(t *testing.T, srv *routeros.Server) client { return dialAs(t, srv, "admin") }

func dialAs(t *testing.T, srv *routeros.Server, user string) client {
	t.Helper()
	c, err := gossh.Dial("tcp", srv.Addr(), clientConfig(t, srv, user))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Log(err)
		}
	})
	return client{t, c}
}

// run executes one command. status is -1 when there was no answer.
func (c client) run(command string) (out string, status int) {
	c.t.Helper()
	sess, err := c.NewSession()
	if err != nil {
		return "", -1
	}
	var buf bytes.Buffer
	sess.Stdout = &buf
	err = sess.Run(command)
	var exit *gossh.ExitError
	switch {
	case err == nil:
		return buf.String(), 0
	case errors.As(err, &exit):
		return buf.String(), exit.ExitStatus()
	}
	return buf.String(), -1
}

// goRun starts a command in the background and answers when it is over.
func (c client) goRun(command string) <-chan string {
	done := make(chan string, 1)
	go func() {
		out, _ := c.run(command)
		done <- out
	}()
	return done
}

func await[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("waited too long")
		panic("unreachable")
	}
}

// recorder is a Backend that keeps what it was told.
type recorder struct {
	mu     sync.Mutex
	events []routeros.Event
	refuse error
}

func (r *recorder) Apply(e routeros.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil {
		return r.refuse
	}
	r.events = append(r.events, e)
	return nil
}

func (r *recorder) kinds() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.events {
		out = append(out, string(e.Kind))
	}
	r.events = nil
	return strings.Join(out, " ")
}
