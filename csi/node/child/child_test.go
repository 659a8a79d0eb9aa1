package child

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunOutput(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		stdout string
		code   int
		words  string
	}{
		"success":          {script: "echo out; echo err >&2", stdout: "out\n"},
		"failure":          {script: "echo out; echo err >&2; exit 3", stdout: "out\n", code: 3, words: "err out"},
		"failure in quiet": {script: "exit 2", code: 2},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := New().For("v").Run(t.Context(), Command{Name: "sh", Args: []string{"-c", c.script}, Timeout: time.Minute})
			if string(out) != c.stdout {
				t.Errorf("stdout is %q, want %q", out, c.stdout)
			}
			if code, failed := ExitCode(err); code != c.code || failed != (c.code != 0) {
				t.Errorf("exit code %d of %v, want %d", code, err, c.code)
			}
			var exit *ExitError
			if errors.As(err, &exit) && exit.Output != c.words {
				t.Errorf("words are %q, want %q", exit.Output, c.words)
			}
		})
	}
}

func TestRunRefuses(t *testing.T) {
	p := New()
	if _, err := p.For("v").Run(t.Context(), Command{Name: "rds-no-such-program", Timeout: time.Minute}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing program: %v", err)
	}
	if _, err := p.For("v").Run(t.Context(), Command{Name: "true"}); err == nil {
		t.Error("a command without a deadline ran")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.For("v").Run(ended, Command{Name: "true", Timeout: time.Minute}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended request: %v", err)
	}
}

func TestOutputIsLimited(t *testing.T) {
	out, err := New().For("v").Run(t.Context(), Command{Name: "sh", Args: []string{"-c", "echo 0123456789"}, Timeout: time.Minute, Limit: 4})
	if err != nil || string(out) != "0123" {
		t.Errorf("got %q, %v", out, err)
	}
}

// fifo is a pipe from which a child reads, and so waits for the test.
func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func release(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never: " + what)
		}
	}
}

func TestDeadlineKills(t *testing.T) {
	p := New()
	_, err := p.For("v").Run(t.Context(), Command{Name: "cat", Args: []string{fifo(t)}, Timeout: time.Millisecond})
	if !errors.Is(err, ErrDeadline) {
		t.Errorf("got %v", err)
	}
	waitFor(t, "the killed child is not listed", func() bool { return len(p.Running("v")) == 0 })
}

// A child that hangs in the kernel is left behind, and known.
func TestUnkillableChild(t *testing.T) {
	p := New()
	p.kill = func(*exec.Cmd) error { return nil }
	pipe := fifo(t)
	_, err := p.For("v").Run(t.Context(), Command{Name: "cat", Args: []string{pipe}, Timeout: time.Millisecond})
	if !errors.Is(err, ErrDeadline) {
		t.Fatalf("got %v", err)
	}
	if running := p.Running("v"); len(running) != 1 || !strings.HasPrefix(running[0], "cat ") || p.Hung() != 1 {
		t.Errorf("running %q, hung %d", running, p.Hung())
	}
	if other := p.Running("w"); len(other) != 0 {
		t.Errorf("another volume is said to be waiting for %q", other)
	}
	release(t, pipe)
	waitFor(t, "the child that woke up is not listed", func() bool { return len(p.Running("v")) == 0 && p.Hung() == 0 })
}

// A caller that gives up does not kill the child.
func TestEndOfRequestLeavesChild(t *testing.T) {
	p := New()
	pipe := fifo(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := p.For("v").Run(ctx, Command{Name: "cat", Args: []string{pipe}, Timeout: time.Minute})
		failed <- err
	}()
	waitFor(t, "the child is listed", func() bool { return len(p.Running("v")) == 1 })
	cancel()
	if err := <-failed; !errors.Is(err, ErrDeadline) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(p.Running("v")) != 1 {
		t.Error("the child is not listed any more")
	}
	release(t, pipe)
	waitFor(t, "the child is not listed any more", func() bool { return len(p.Running("v")) == 0 })
}
