package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	gossh "golang.org/x/crypto/ssh"
)

func parse(t *testing.T, args ...string) *options {
	t.Helper()
	f := flag.NewFlagSet("routeros-sim", flag.ContinueOnError)
	o := newOptions(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

// start runs the command until the test ends and returns its first line.
func start(t *testing.T, args ...string) ready {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, parse(t, args...), w)
		_ = w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	raw, err := bufio.NewReader(r).ReadBytes('\n')
	if err != nil {
		t.Fatal(err, <-done)
	}
	var line ready
	if err := json.Unmarshal(raw, &line); err != nil {
		t.Fatal(err)
	}
	return line
}

func TestRun(t *testing.T) {
	keyFile := filepath.Join(t.TempDir(), "host-key")
	args := []string{
		"--pool", "raid10=10T", "--pool", "bt=1T:btrfs", "--dir", "bt/volumes", "--host-key-file", keyFile,
		"--host-key-type", "ed25519", "--user", "csi", "--user", "viewer=ssh,read",
	}
	first := start(t, args...)
	key, _, _, _, err := gossh.ParseAuthorizedKey([]byte(first.HostKey))
	if err != nil {
		t.Fatal(err)
	}
	_, err = gossh.Dial("tcp", first.SSH, &gossh.ClientConfig{User: "csi", HostKeyCallback: gossh.FixedHostKey(key)})
	if err == nil {
		t.Error("logged in without a key")
	}
	res, err := http.Get(first.Control + "/state")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var state struct{ Disks, Files []any }
	if err := json.NewDecoder(res.Body).Decode(&state); err != nil {
		t.Fatal(err)
	}
	if len(state.Disks) != 2 || len(state.Files) != 3 {
		t.Errorf("%+v", state)
	}
	if again := start(t, args...); again.HostKey != first.HostKey {
		t.Error("the host key was not kept")
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{
		{"--pool", "x"}, {"--pool", "x=1T:ext4"}, {"--pool", "x=99999999P"}, {"--dir", "nowhere/x"},
		{"--authorized-key-file", "/nonexistent"}, {"--host-key-type", "dsa"}, {"--pool", "x=1T", "--pool", "x=1T"},
	} {
		if srv, err := parse(t, args...).server(); err == nil {
			t.Errorf("%v is accepted", args)
			_ = srv.Close()
		}
	}
}
