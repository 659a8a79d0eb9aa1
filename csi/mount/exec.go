package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	utilexec "k8s.io/utils/exec"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
)

// executor lets mount-utils run programs as children with a deadline. It
// remembers the last error, since mount-utils keeps only its text.
type executor struct {
	ctx     context.Context // lives for one call of mount-utils, whose interface has none
	run     child.Runner
	timeout time.Duration
	failed  error
}

var _ utilexec.Interface = &executor{}

func (e *executor) Command(name string, args ...string) utilexec.Cmd {
	return &command{executor: e, ctx: e.ctx, name: name, args: args}
}

func (e *executor) CommandContext(ctx context.Context, name string, args ...string) utilexec.Cmd {
	return &command{executor: e, ctx: ctx, name: name, args: args}
}

// LookPath finds everything: a program that is not there is found missing when
// it is to be run.
func (e *executor) LookPath(file string) (string, error) { return file, nil }

// command is the part of utilexec.Cmd that mount-utils uses here.
type command struct {
	*executor
	ctx  context.Context // as in os/exec
	name string
	args []string
}

var errUnused = errors.New("not used by mount-utils")

func (c *command) CombinedOutput() ([]byte, error) { return c.Output() }
func (c *command) Run() error                      { _, err := c.Output(); return err }

func (c *command) Output() ([]byte, error) {
	out, err := c.run.Run(c.ctx, child.Command{Name: c.name, Args: c.args, Timeout: c.timeout})
	c.failed = err
	if code, ok := child.ExitCode(err); ok {
		return out, exitError{err, code}
	}
	if errors.Is(err, child.ErrNotFound) {
		return out, fmt.Errorf("%w: %w", utilexec.ErrExecutableNotFound, err)
	}
	return out, err
}

func (c *command) SetDir(string)                      {}
func (c *command) SetStdin(io.Reader)                 {}
func (c *command) SetStdout(io.Writer)                {}
func (c *command) SetStderr(io.Writer)                {}
func (c *command) SetEnv([]string)                    {}
func (c *command) StdoutPipe() (io.ReadCloser, error) { return nil, errUnused }
func (c *command) StderrPipe() (io.ReadCloser, error) { return nil, errUnused }
func (c *command) Start() error                       { return errUnused }
func (c *command) Wait() error                        { return errUnused }
func (c *command) Stop()                              {}

// exitError is a child's exit code in the words of mount-utils.
type exitError struct {
	error
	code int
}

var _ utilexec.ExitError = exitError{}

func (e exitError) String() string  { return "exit status " + strconv.Itoa(e.code) }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return e.code }
func (e exitError) Unwrap() error   { return e.error }
