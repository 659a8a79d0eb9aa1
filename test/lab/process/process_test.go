package process

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func shell(t *testing.T, script string, restart bool, onFailed func(error)) *Process {
	t.Helper()
	p, err := Start(Spec{
		Name: "sh", Path: "/bin/sh", Args: []string{"-c", script},
		Log: filepath.Join(t.TempDir(), "sh.log"), Restart: restart,
	}, onFailed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestAnUnaskedEndIsAFailureWithTheLastLines(t *testing.T) {
	failed := make(chan error, 1)
	p := shell(t, "echo the reason; exit 3", false, func(err error) { failed <- err })
	err := <-failed
	for _, want := range []string{"sh ended", "exit status 3", "the reason", p.LogFile()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not tell %q", err, want)
		}
	}
	<-p.Failed()
	if p.Err() == nil || p.Running() {
		t.Errorf("Err() = %v, Running() = %v", p.Err(), p.Running())
	}
}

func TestStopIsNoFailureAndRunStartsAgain(t *testing.T) {
	p := shell(t, "sleep 600", false, nil)
	if err := p.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p.Err() != nil || p.Running() {
		t.Fatalf("after Stop: Err() = %v, Running() = %v", p.Err(), p.Running())
	}
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	if !p.Running() || p.Starts() != 2 {
		t.Errorf("after Run: Running() = %v, Starts() = %d", p.Running(), p.Starts())
	}
	if p.Run() == nil {
		t.Error("Run of a running program succeeded")
	}
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	p := shell(t, "trap '' TERM; echo up; while :; do sleep 0.01; done", false, nil)
	eventually(t, func() bool { return strings.Contains(Tail(p.LogFile(), 1), "up") })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx); err == nil || p.Running() {
		t.Errorf("Stop() = %v, Running() = %v", err, p.Running())
	}
}

func TestAFrozenProgramCanBeStopped(t *testing.T) {
	p := shell(t, "sleep 600", false, nil)
	p.Freeze()
	if err := p.Stop(context.Background()); err != nil || p.Running() {
		t.Errorf("Stop() = %v, Running() = %v", err, p.Running())
	}
}

func TestRestart(t *testing.T) {
	p := shell(t, "sleep 600", true, func(err error) { t.Error(err) })
	p.Crash()
	eventually(t, func() bool { return p.Starts() == 2 && p.Running() })
	p.Kill()
	if p.Running() {
		t.Error("still running after Kill")
	}
}

func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Tail(file, 2); got != "two\nthree" {
		t.Errorf("Tail = %q", got)
	}
	if got := TailNaming(file, "o", 5); got != "one\ntwo" {
		t.Errorf("TailNaming = %q", got)
	}
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatal("not within 10 s")
		case <-ticks.C:
		}
	}
}
