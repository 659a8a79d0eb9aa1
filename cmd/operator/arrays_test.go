package main

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
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
