package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	// ErrDeadline means that the program did not end in time. It may still be running.
	ErrDeadline = errors.New("did not end in time")
	// ErrNotFound means that the program is not installed.
	ErrNotFound = errors.New("program not found")
)

// Command is one program to run.
type Command struct {
	Name    string
	Args    []string
	Timeout time.Duration // after which the child is killed
	// Limit is how many bytes of its output are kept; 0 stands for 64 KiB.
	Limit int
}

// String is the command as a person would type it.
func (c Command) String() string { return strings.Join(append([]string{c.Name}, c.Args...), " ") }

// ExitError is the error of a program that ended with another code than 0.
type ExitError struct {
	Command Command
	Code    int
	Output  string // both of its outputs, on one line
}

func (e *ExitError) Error() string {
	if e.Output == "" {
		return fmt.Sprintf("%s: exit code %d", e.Command, e.Code)
	}
	return fmt.Sprintf("%s: exit code %d: %s", e.Command, e.Code, e.Output)
}

// Runner runs programs. It returns what they print to their standard output; with
// an *ExitError if they fail, with ErrDeadline if they may still be running.
type Runner interface {
	Run(ctx context.Context, c Command) ([]byte, error)
}

// Processes are the children of this process, by whom they work for.
type Processes struct {
	mu      sync.Mutex
	running map[string][]string // tag → commands
	hung    int

	// kill is replaced in tests, to play a child that cannot be killed.
	kill func(*exec.Cmd) error
}

// New returns Processes without any.
func New() *Processes {
	return &Processes{running: map[string][]string{}, kill: killGroup}
}

// Running lists the commands of a tag that have not ended.
func (p *Processes) Running(tag string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.running[tag])
}

// Hung counts the children that were killed and have not ended.
func (p *Processes) Hung() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hung
}

func killGroup(c *exec.Cmd) error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }

// For returns a Runner whose children work for the tag.
func (p *Processes) For(tag string) Runner { return runner{p, tag} }

type runner struct {
	*Processes
	tag string
}

// killed is how long a child that was killed may take to be gone before it is
// left behind.
const killed = 2 * time.Second

// Run starts the program and waits for its end, for its deadline or for that of
// ctx. The end of ctx does not kill the child: a formatter killed because
// somebody stopped waiting would never finish. It stays listed as running.
func (r runner) Run(ctx context.Context, c Command) ([]byte, error) {
	if c.Timeout <= 0 {
		return nil, fmt.Errorf("%s: a command without a deadline", c)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stdout, stderr := &capped{limit: c.limit()}, &capped{limit: c.limit()}
	cmd := exec.Command(c.Name, c.Args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	// fsck and mkfs start programs of their own, which end with them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A grandchild that keeps the output open does not keep the caller.
	cmd.WaitDelay = killed
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s: %w", c.Name, ErrNotFound)
		}
		return nil, fmt.Errorf("start %s: %w", c, err)
	}
	ended := r.watch(cmd, c)
	select {
	case err := <-ended:
		if errors.Is(err, ErrDeadline) {
			return nil, err
		}
		return stdout.bytes(), outcome(c, err, stdout, stderr)
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w, and goes on (%w)", c, ErrDeadline, ctx.Err())
	}
}

func (c Command) limit() int {
	if c.Limit > 0 {
		return c.Limit
	}
	return 64 << 10
}

// watch keeps the child listed until it ends, and kills it at its deadline. The
// channel tells the end once, or ErrDeadline if killing it did not help.
func (r runner) watch(cmd *exec.Cmd, c Command) <-chan error {
	r.list(c.String())
	ended, done := make(chan error, 1), make(chan struct{})
	var waited error
	go func() {
		defer close(done)
		waited = cmd.Wait()
	}()
	go func() {
		defer r.unlist(c.String())
		deadline := time.NewTimer(c.Timeout)
		defer deadline.Stop()
		select {
		case <-done:
			ended <- waited
			return
		case <-deadline.C:
		}
		_ = r.kill(cmd) // it may just have ended
		late := time.NewTimer(killed)
		defer late.Stop()
		select {
		case <-done:
			ended <- fmt.Errorf("%s: %w (%s) and was killed", c, ErrDeadline, c.Timeout)
			return
		case <-late.C:
		}
		r.count(+1)
		defer r.count(-1)
		ended <- fmt.Errorf("%s: %w (%s), and cannot be killed: its disk does not answer", c, ErrDeadline, c.Timeout)
		<-done
	}()
	return ended
}

func (r runner) list(command string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[r.tag] = append(r.running[r.tag], command)
}

func (r runner) unlist(command string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.running[r.tag]
	if i := slices.Index(left, command); i >= 0 {
		left = slices.Delete(left, i, i+1)
	}
	if len(left) == 0 {
		delete(r.running, r.tag)
		return
	}
	r.running[r.tag] = left
}

func (r runner) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hung += n
}

// outcome turns the end of a program into an error that carries its words.
func outcome(c Command, err error, stdout, stderr *capped) error {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // the latter: it succeeded, a child of its own lives on
		return nil
	case errors.As(err, &exit):
		words := strings.Join(strings.Fields(string(stderr.bytes())+" "+printable(stdout.bytes())), " ")
		return &ExitError{Command: c, Code: exit.ExitCode(), Output: words}
	}
	return fmt.Errorf("%s: %w", c, err)
}

// printable is an output for an error message: text, and not too much of it.
func printable(b []byte) string {
	const most = 2048
	return strings.ToValidUTF8(strings.ReplaceAll(string(b[:min(len(b), most)]), "\x00", ""), "")
}

// capped keeps the beginning of an output.
type capped struct {
	mu    sync.Mutex
	b     bytes.Buffer
	limit int
}

func (w *capped) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b.Write(p[:min(len(p), max(0, w.limit-w.b.Len()))])
	return len(p), nil
}

func (w *capped) bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.b.Bytes())
}

// ExitCode returns the exit code of a program that ran and failed.
func ExitCode(err error) (int, bool) {
	var exit *ExitError
	if errors.As(err, &exit) {
		return exit.Code, true
	}
	return 0, false
}
