package binaries

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKeyCoversPinsAndSources(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module m")
	write(t, filepath.Join(dir, "go.sum"), "")
	seen := map[string]bool{}
	for _, change := range []func(){
		func() {},
		func() { write(t, filepath.Join(dir, "go.mod"), "module n") },
		func() { write(t, filepath.Join(dir, "go.sum"), "x") },
		func() { write(t, filepath.Join(dir, "tool", "main.go"), "package main") },
	} {
		change()
		key, err := Module{}.key(dir)
		if err != nil {
			t.Fatal(err)
		}
		if seen[key] {
			t.Errorf("key %s does not change with what is built", key)
		}
		seen[key] = true
	}
}

func TestLDFlagsNameTheVersion(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module m\nrequire (\n\tk8s.io/kubernetes v1.37.2 // indirect\n)\n")
	flags, err := Kubernetes.ldflags(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"gitVersion=v1.37.2", "gitMajor=1", "gitMinor=37"} {
		if !strings.Contains(flags, want) {
			t.Errorf("%q lacks %q", flags, want)
		}
	}
	write(t, filepath.Join(dir, "go.mod"), "module m\n")
	if _, err := Kubernetes.ldflags(dir); err == nil {
		t.Error("no version, no error")
	}
}

func TestPruneKeepsTheCurrent(t *testing.T) {
	cache := t.TempDir()
	m := Module{Name: "m", Binaries: []string{"b"}}
	current, old, other := filepath.Join(cache, "m-1"), filepath.Join(cache, "m-0"), filepath.Join(cache, "n-0")
	for _, dir := range []string{current, old, other} {
		write(t, filepath.Join(dir, "b"), "")
	}
	if err := m.prune(cache, current); err != nil {
		t.Fatal(err)
	}
	if !m.complete(current) || m.complete(old) || !m.complete(other) {
		t.Errorf("kept: current %v, old %v, other %v", m.complete(current), m.complete(old), m.complete(other))
	}
}

func TestLockIsExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, func() { t.Error("waited for nobody") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := lock(ctx, path, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("a second lock: %v", err)
	}
	unlock()
	again, err := lock(t.Context(), path, func() {})
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestEveryModuleHasAFolder(t *testing.T) {
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range All() {
		source := filepath.Join(root, "test", "tools", m.Name)
		if _, err := m.ldflags(source); err != nil {
			t.Error(err)
		}
		if _, err := m.key(source); err != nil {
			t.Error(err)
		}
	}
}
