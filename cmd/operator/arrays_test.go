package main

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/poll"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// configured is a configuration that can be opened, and is never dialled here.
func configured(t *testing.T, name string) routeros.Config {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return routeros.Config{Name: name, Address: "127.0.0.1", User: "csi", Key: pem.EncodeToMemory(block), BasePath: "raid10/k8s",
		HostKey: routeros.HostKeys{"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}
}

// TestOneBadArray: one that cannot be set up keeps no other from being observed, and
// stays as it was.
func TestOneBadArray(t *testing.T) {
	a := newArrays(time.Minute, logr.Discard(), prometheus.NewRegistry())
	names := func() []string { return slices.Sorted(maps.Keys(a.running)) }
	main, far, near := configured(t, "main"), configured(t, "far"), configured(t, "near")
	if err := a.set([]routeros.Config{main, far}); err != nil || !slices.Equal(names(), []string{"far", "main"}) {
		t.Fatalf("%v, %v", names(), err)
	}
	was := a.running["main"]

	if err := a.set([]routeros.Config{far, near}, "main", "far", "near"); err != nil || !slices.Equal(names(), []string{"far", "main", "near"}) || a.running["main"] != was {
		t.Errorf("without a key for main: %v, %v", names(), err)
	}
	bad := main
	bad.Key = []byte("no key at all")
	err := a.set([]routeros.Config{bad, far}, "main", "far")
	if !errors.Is(err, rds.ErrInvalid) || !slices.Equal(names(), []string{"far", "main"}) || a.running["main"] != was {
		t.Errorf("with a bad key for main: %v, %v", names(), err)
	}
	if err := a.set([]routeros.Config{far}); err != nil || !slices.Equal(names(), []string{"far"}) {
		t.Errorf("main is not wanted any more: %v, %v", names(), err)
	}
	if err := a.set(nil); err != nil || len(a.running) != 0 {
		t.Errorf("none is wanted any more: %v, %v", names(), err)
	}
}

// failing is an array that is not there, for the reason that is set.
type failing struct {
	rds.Array
	err error
}

func (f *failing) View(context.Context) (rds.View, error) { return rds.View{}, f.err }

// TestForward: each new reason why an array does not answer is logged, and told.
func TestForward(t *testing.T) {
	var logged []string
	log := funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{})
	a := newArrays(time.Minute, log, prometheus.NewRegistry())
	told := make(chan struct{})
	a.changed = func() { told <- struct{}{} }
	array := &failing{}
	o := &observedArray{config: routeros.Config{Name: "main"}, poller: poll.New(array, time.Minute)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	seen := o.poller.Subscribe()
	go func() { defer close(ended); a.forward(ctx, o, seen) }()
	for i, tc := range []struct {
		err  error
		want string
	}{
		{&rds.Error{Kind: rds.ErrUnreachable, Words: "refused"}, "refused"},
		{&rds.Error{Kind: rds.ErrDenied, Words: "another host key"}, "another host key"},
		{nil, "answers again"},
	} {
		array.err = tc.err
		_, _ = o.poller.Poll(ctx)
		<-told
		if len(logged) != i+1 || !strings.Contains(logged[i], tc.want) {
			t.Errorf("%d: logged %q, want %q", i, logged, tc.want)
		}
	}
	cancel()
	<-ended
}
