package pods

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/process"
)

const (
	// lookEvery is how often a container is looked at; its probes have periods of
	// their own.
	lookEvery = 100 * time.Millisecond
	// A container that ends is started again after a pause that doubles.
	firstPause, lastPause = 200 * time.Millisecond, 10 * time.Second
	// steadyAfter is how long it must have run for the pause to be the first again.
	steadyAfter = time.Minute
)

// container runs one container until its pod is stopped.
type container struct {
	name, image string
	spec        process.Spec
	grace       time.Duration
	life        context.Context // of the lab: when it ends there is no grace
	changed     func()

	startup, readiness, liveness *probe

	mu       sync.Mutex
	state    corev1.ContainerState
	last     corev1.ContainerState
	started  bool
	ready    bool
	restarts int32
}

// run starts the program, again when it ends, until ctx does.
func (c *container) run(ctx context.Context) {
	pause := firstPause
	for {
		began := time.Now()
		end := c.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steadyAfter {
			pause = firstPause
		}
		c.set(func() {
			c.last.Terminated = end
			c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: end.Message}}
			c.started, c.ready = false, false
			c.restarts++
		})
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// once runs the program until it ends, its liveness probe fails, or ctx ends.
func (c *container) once(ctx context.Context) *corev1.ContainerStateTerminated {
	now := time.Now()
	start := seconds(now)
	ended := func(code int, reason, message string) *corev1.ContainerStateTerminated {
		return &corev1.ContainerStateTerminated{ExitCode: int32(code), Reason: reason, Message: message, StartedAt: start, FinishedAt: seconds(time.Now())}
	}
	p, err := process.Start(c.spec, nil)
	if err != nil {
		return ended(128, "StartError", err.Error())
	}
	for _, probe := range []*probe{c.startup, c.readiness, c.liveness} {
		probe.start(now)
	}
	c.set(func() {
		c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: start}}
	})
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		if failed := c.look(ctx); failed != nil {
			c.stop(p)
			return ended(p.ExitCode(), "Error", fmt.Sprintf("a probe failed %d times: %v", failed.failures, failed.last))
		}
		select {
		case <-ctx.Done():
			c.stop(p)
			return nil
		case <-p.Failed():
			return ended(p.ExitCode(), "Error", p.Err().Error())
		case <-ticks.C:
		}
	}
}

// look probes, and returns the probe for whose sake the container must be ended.
func (c *container) look(ctx context.Context) (failed *probe) {
	now := time.Now()
	c.mu.Lock()
	started, ready := c.started, c.ready
	c.mu.Unlock()
	if !started {
		c.startup.look(ctx, now)
		if c.startup.failed() {
			return c.startup
		}
		started = c.startup.passed(false)
	}
	if started {
		c.readiness.look(ctx, now)
		c.liveness.look(ctx, now)
		ready = c.readiness.passed(ready)
	}
	if ctx.Err() == nil {
		c.set(func() { c.started, c.ready = started, ready })
	}
	if c.liveness.failed() {
		return c.liveness
	}
	return nil
}

// stop ends the program, with its grace unless the lab is ending.
func (c *container) stop(p *process.Process) {
	ctx, cancel := context.WithTimeout(c.life, c.grace)
	defer cancel()
	_ = p.Stop(ctx) // it is gone then in any case
}

// set changes what the container's status says, and tells if it did.
func (c *container) set(change func()) {
	c.mu.Lock()
	before := c.statusLocked()
	change()
	after := c.statusLocked()
	c.mu.Unlock()
	if !same(before, after) {
		c.changed()
	}
}

func (c *container) status() corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.statusLocked()
}

func (c *container) statusLocked() corev1.ContainerStatus {
	started := c.started
	return corev1.ContainerStatus{
		Name: c.name, Image: c.image, ImageID: "lab", ContainerID: "lab://" + c.spec.Name,
		State: c.state, LastTerminationState: c.last, Ready: c.ready, Started: &started, RestartCount: c.restarts,
	}
}

// seconds is a time as the API keeps it.
func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }
