package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
)

// programs are the background programs of this guest.
type programs struct {
	mu   sync.Mutex
	last int
	byID map[int]*program
}

type program struct {
	cmd            *exec.Cmd
	stdout, stderr buffer
	ended          chan struct{}
	failure        error // of Wait; read after ended
}

// buffer is written by a program while others look at it.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *buffer) copy() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.data.Bytes())
}

func start(c wire.Command) (*program, error) {
	if len(c.Args) == 0 {
		return nil, errors.New("no program named")
	}
	p := &program{cmd: exec.Command(c.Args[0], c.Args[1:]...), ended: make(chan struct{})}
	p.cmd.Stdin = bytes.NewReader(c.Stdin)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.Env = append(os.Environ(), c.Env...)
	// What it leaves behind may keep its output open; the program has ended then.
	p.cmd.WaitDelay = time.Second
	// A group of its own, so that a signal reaches what it started too.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.failure = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *programs) run(c wire.Command) (wire.Result, error) {
	started, err := start(c)
	if err != nil {
		return wire.Result{Failure: err.Error(), Code: 127}, nil
	}
	if !c.Background {
		<-started.ended
		return started.result(0), nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	p.byID[p.last] = started
	return started.result(p.last), nil
}

func (p *programs) find(id int) (*program, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.byID[id]; found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("no program %d", id)
}

func (p *programs) signal(s wire.Signal) (wire.Result, error) {
	found, err := p.find(s.ID)
	if err != nil {
		return wire.Result{}, err
	}
	err = syscall.Kill(-found.cmd.Process.Pid, syscall.Signal(s.Signal))
	if errors.Is(err, syscall.ESRCH) {
		err = nil // it has ended already
	}
	return found.result(s.ID), err
}

func (p *programs) wait(s wire.Signal) (wire.Result, error) {
	found, err := p.find(s.ID)
	if err != nil {
		return wire.Result{}, err
	}
	<-found.ended
	return found.result(s.ID), nil
}

func (p *programs) look(s wire.Signal) (wire.Result, error) {
	found, err := p.find(s.ID)
	if err != nil {
		return wire.Result{}, err
	}
	return found.result(s.ID), nil
}

func (p *program) result(id int) wire.Result {
	r := wire.Result{ID: id, Running: true, Stdout: p.stdout.copy(), Stderr: p.stderr.copy()}
	select {
	case <-p.ended:
	default:
		return r
	}
	r.Running = false
	r.Code = p.cmd.ProcessState.ExitCode()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		r.Code = 128 + int(status.Signal())
	}
	var exit *exec.ExitError
	if p.failure != nil && !errors.As(p.failure, &exit) && !errors.Is(p.failure, exec.ErrWaitDelay) {
		r.Failure = p.failure.Error()
	}
	return r
}
