package lab

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/binaries"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pki"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pods"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/process"
)

// Process is one of the lab's programs.
type Process = process.Process

// Cluster is a running lab. Its methods may be called from several goroutines.
type Cluster struct {
	// Client is the tests' own, with all rights.
	Client client.WithWatch
	// Dir keeps all files: logs, kubeconfigs, certificates, the audit log.
	Dir string

	opts   Options
	ca     *pki.CA
	server string // the API server's address
	admin  *rest.Config
	scheme *runtime.Scheme
	mapper meta.RESTMapper

	// life ends with Close, or with the first crash as its cause.
	life    context.Context
	end     context.CancelCauseFunc
	players sync.WaitGroup // goroutines of kubelets, scheduler, handlers

	// What the players (kubelets, scheduler, handlers) have to say.
	playersLog  *log.Logger
	playersFile *os.File

	mu        sync.Mutex
	closed    bool
	bins      binaries.Set
	ports     []port
	processes []*Process // in the order of their start
	nodes     map[string]*Node
	added     int               // nodes ever
	handlers  *handler.Handlers // nil without KubeVirt

	pods *pods.Runtime // nil where kubelets play all pods
}

// ErrClosed is why a closed lab's context ended.
var ErrClosed = errors.New("the lab is closed")

// Start brings a cluster up. The context is for the start only.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	if opts.Progress == nil {
		opts.Progress = func(string, ...any) {}
	}
	c := &Cluster{opts: opts, nodes: map[string]*Node{}, bins: binaries.Set{}}
	c.life, c.end = context.WithCancelCause(context.Background())
	if err := c.start(ctx); err != nil {
		// A component's crash explains more than whoever waited for it.
		if cause := context.Cause(c.life); cause != nil {
			err = cause
		}
		return nil, errors.Join(fmt.Errorf("starting the lab: %w", err), c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	started := time.Now()
	bins, err := binaries.Ensure(ctx, c.opts.Progress, c.opts.modules()...)
	if err != nil {
		return err
	}
	c.addBinaries(bins)
	if err := c.makeDir(); err != nil {
		return err
	}
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	c.progress("API server ready after %s", since(started))
	if c.opts.Pods != nil {
		c.pods = pods.New(c.Dir, c.admin, *c.opts.Pods)
	}
	if c.opts.WithCDI {
		if err := c.startCDI(ctx); err != nil {
			return err
		}
	}
	rest, ctx := errgroup.WithContext(ctx)
	rest.Go(func() error { return c.startScheduler() })
	if !c.opts.WithoutControllers {
		rest.Go(func() error { return c.startControllerManager(ctx) })
	}
	if !c.opts.WithoutKubeVirt {
		rest.Go(func() error { return c.StartKubeVirt(ctx) })
	}
	if err := rest.Wait(); err != nil {
		return err
	}
	for _, name := range c.opts.Nodes {
		if _, err := c.AddNode(context.WithoutCancel(ctx), name); err != nil {
			return err
		}
	}
	c.progress("lab ready after %s", since(started))
	return nil
}

func since(t time.Time) time.Duration { return time.Since(t).Round(100 * time.Millisecond) }

func (c *Cluster) progress(format string, args ...any) { c.opts.Progress(format, args...) }

func (c *Cluster) makeDir() error {
	dir := c.opts.Dir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "rds-lab-"); err != nil {
			return err
		}
	}
	c.Dir = dir
	for _, sub := range []string{"logs", "pki", "kubeconfigs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	var err error
	c.playersFile, err = os.Create(filepath.Join(dir, "logs", "players.log"))
	c.playersLog = log.New(c.playersFile, "", log.Ltime|log.Lmicroseconds)
	return err
}

// Context lives as long as the cluster; its cause is the first crash of a
// component, or ErrClosed.
func (c *Cluster) Context() context.Context { return c.life }

// Err is the first crash of a component, or nil.
func (c *Cluster) Err() error {
	if cause := context.Cause(c.life); cause != nil && !errors.Is(cause, ErrClosed) {
		return cause
	}
	return nil
}

// Close ends everything the lab started and removes its files. It returns the
// first crash of a component, if there was one, and may be called again.
func (c *Cluster) Close() error {
	crash := c.Err()
	c.end(ErrClosed)
	// First the players, which would log that their server is gone.
	c.players.Wait()
	if c.pods != nil {
		c.pods.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return crash
	}
	c.closed = true
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].Kill()
	}
	for _, p := range c.ports {
		_ = p.hold.Close()
	}
	if c.playersFile != nil {
		_ = c.playersFile.Close()
	}
	if c.Dir == "" || c.opts.Dir != "" || c.opts.Keep {
		return crash
	}
	return errors.Join(crash, os.RemoveAll(c.Dir))
}

// port takes a free port for the cluster's life.
func (c *Cluster) port() (port, error) {
	p, err := freePort()
	if err != nil {
		return p, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ports = append(c.ports, p)
	return p, nil
}

// FreePort is a loopback port that nobody uses, kept for the caller as long as
// the cluster lives.
func (c *Cluster) FreePort() (int, error) {
	p, err := c.port()
	return p.number, err
}

// RunProcess runs a program as part of the lab: it logs into the lab's folder,
// ends with the lab, and its crash is the lab's crash.
func (c *Cluster) RunProcess(name, path string, args []string, env ...string) (*Process, error) {
	return c.run(process.Spec{Name: name, Path: path, Args: args, Env: env})
}

// RunRestarting is RunProcess for a program that a kubelet would restart.
func (c *Cluster) RunRestarting(name, path string, args []string, env ...string) (*Process, error) {
	return c.run(process.Spec{Name: name, Path: path, Args: args, Env: env, Restart: true})
}

func (c *Cluster) run(spec process.Spec) (*Process, error) {
	spec.Log = filepath.Join(c.Dir, "logs", spec.Name+".log")
	spec.Env = append([]string{"TMPDIR=" + c.Dir}, spec.Env...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	p, err := process.Start(spec, c.crashed)
	if err != nil {
		return nil, err
	}
	c.processes = append(c.processes, p)
	return p, nil
}

func (c *Cluster) addBinaries(set binaries.Set) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(c.bins, set)
}

func (c *Cluster) binary(name string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bins.Path(name)
}

// runBinary runs one of the lab's own binaries.
func (c *Cluster) runBinary(name string, args ...string) (*Process, error) {
	return c.runNamed(name, name, args...)
}

// runNamed is runBinary for one that runs several times.
func (c *Cluster) runNamed(name, binary string, args ...string) (*Process, error) {
	path, err := c.binary(binary)
	if err != nil {
		return nil, err
	}
	return c.RunProcess(name, path, args)
}

func (c *Cluster) crashed(err error) {
	c.end(err)
	c.progress("%v", err)
	if c.opts.OnCrash != nil {
		c.opts.OnCrash(err)
	}
}

// Process finds a running program by name, e.g. "virt-controller"; nil if
// there is none.
func (c *Cluster) Process(name string) *Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.processes {
		if p.Name() == name {
			return p
		}
	}
	return nil
}
