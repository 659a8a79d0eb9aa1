package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Spec says what to run.
type Spec struct {
	Name string // also names the log file
	Path string
	Args []string
	Env  []string // added to this process's environment
	Log  string   // file, appended to
	// OnlyEnv leaves this process's environment out.
	OnlyEnv bool

	// Restart starts the program again when it ends unasked, as a kubelet
	// does with a container; then such an end is no failure.
	Restart bool
}

// restartPause keeps a program that cannot start from spinning.
const restartPause = 200 * time.Millisecond

// Process is a running program. All its methods may be called at any time and
// from several goroutines.
type Process struct {
	spec Spec

	mu       sync.Mutex
	cmd      *exec.Cmd
	running  chan struct{} // closed when the current run has ended
	wanted   bool          // false: an end is what we asked for
	starts   int
	failure  error
	failed   chan struct{} // closed with the first failure
	onFailed func(error)
}

// Start runs a program. onFailed, if not nil, is called once, from another
// goroutine, when the program ends without having been asked to.
func Start(spec Spec, onFailed func(error)) (*Process, error) {
	p := &Process{spec: spec, failed: make(chan struct{}), onFailed: onFailed}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p, p.start()
}

// start runs the program once more; p.mu is held.
func (p *Process) start() error {
	log, err := os.OpenFile(p.spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("%s: %w", p.spec.Name, err)
	}
	defer log.Close() // the child has its own copy
	cmd := exec.Command(p.spec.Path, p.spec.Args...)
	cmd.Env = append(os.Environ(), p.spec.Env...)
	if p.spec.OnlyEnv {
		cmd.Env = p.spec.Env
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	if err := spawn(cmd); err != nil {
		return fmt.Errorf("%s: %w", p.spec.Name, err)
	}
	p.cmd, p.running, p.wanted = cmd, make(chan struct{}), true
	p.starts++
	go p.watch(cmd, p.running)
	return nil
}

// watch waits for the end of one run and judges it.
func (p *Process) watch(cmd *exec.Cmd, running chan struct{}) {
	err := cmd.Wait()
	p.mu.Lock()
	unasked := p.wanted
	close(running)
	p.mu.Unlock()
	if !unasked {
		return
	}
	if p.spec.Restart {
		<-time.After(restartPause)
		p.mu.Lock()
		if p.wanted && p.running == running {
			err = p.start()
		} else {
			err = nil // stopped or started meanwhile
		}
		p.mu.Unlock()
		if err == nil {
			return
		}
	}
	p.fail(fmt.Errorf("%s ended by itself (%v); the end of its log %s:\n%s",
		p.spec.Name, describe(err), p.spec.Log, Tail(p.spec.Log, 15)))
}

func describe(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

func (p *Process) fail(err error) {
	p.mu.Lock()
	if p.failure != nil {
		p.mu.Unlock()
		return
	}
	p.failure = err
	close(p.failed)
	p.mu.Unlock()
	if p.onFailed != nil {
		p.onFailed(err)
	}
}

// Name is the name it was given.
func (p *Process) Name() string { return p.spec.Name }

// LogFile is where it logs to.
func (p *Process) LogFile() string { return p.spec.Log }

// Starts is how often it was started.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// PID is the current run's process id.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Err is why the program ended unasked, or nil.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// Failed is closed when the program has ended unasked.
func (p *Process) Failed() <-chan struct{} { return p.failed }

// ExitCode is how the last run ended: -1 while it runs, or if a signal ended it.
func (p *Process) ExitCode() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.running:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

// Running tells whether the program runs now.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.running:
		return false
	default:
		return true
	}
}

// Stop asks the program to end (SIGTERM), and kills it if ctx ends first.
func (p *Process) Stop(ctx context.Context) error {
	running := p.signal(syscall.SIGTERM, true)
	// A stopped (SIGSTOP) program would never see it.
	p.signal(syscall.SIGCONT, true)
	select {
	case <-running:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s had to be killed: %w", p.spec.Name, ctx.Err())
	}
}

// Kill ends the program at once, as a crash would (SIGKILL), and waits for it.
// It stays ended, even with Spec.Restart, until Run.
func (p *Process) Kill() { <-p.signal(syscall.SIGKILL, true) }

// Crash ends the program at once and leaves what follows to Spec.Restart.
func (p *Process) Crash() { <-p.signal(syscall.SIGKILL, !p.spec.Restart) }

// Freeze stops the program from doing anything (SIGSTOP) until Thaw.
func (p *Process) Freeze() { p.signal(syscall.SIGSTOP, false) }

// Thaw lets a frozen program go on.
func (p *Process) Thaw() { p.signal(syscall.SIGCONT, false) }

// Run starts the program again after Stop or Kill, with the same arguments.
func (p *Process) Run() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.running:
		return p.start()
	default:
		return errors.New(p.spec.Name + " is running already")
	}
}

// signal sends a signal, unless the program has ended, and returns a channel
// that is closed when the current run is over. With end, that end is asked for.
func (p *Process) signal(s syscall.Signal, end bool) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if end {
		p.wanted = false
	}
	// The group, so that a program's own children get it too. A run that is
	// over has been waited for, so the kernel may have reused its id.
	select {
	case <-p.running:
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, s)
	}
	return p.running
}
