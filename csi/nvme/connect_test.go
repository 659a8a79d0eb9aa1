package nvme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"k8s.io/utils/clock"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
)

// kernel is a sysfs that commands change.
type kernel struct {
	mu  sync.Mutex
	sys fstest.MapFS
	on  func(k *kernel, c child.Command) error
	ran []string
}

func (k *kernel) Open(name string) (fs.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sys.Open(name)
}

func (k *kernel) Run(_ context.Context, c child.Command) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ran = append(k.ran, c.String())
	return nil, k.on(k, c)
}

func (k *kernel) put(path, value string) {
	k.sys["class/nvme-subsystem/nvme-subsys0/"+path] = &fstest.MapFile{Data: []byte(value)}
}

// clear takes everything away.
func (k *kernel) clear() {
	for path := range k.sys {
		if strings.HasPrefix(path, "class/") {
			delete(k.sys, path)
		}
	}
}

// controller and disk put one into the sysfs.
func (k *kernel) controller(state string) {
	k.put("subsysnqn", volumeNQN)
	k.put("nvme0/state", state)
	k.put("nvme0/transport", "tcp")
	k.put("nvme0/address", "traddr=192.0.2.1,trsvcid=4420")
}

func (k *kernel) disk(bytes int64) {
	k.put("nvme0n1/nsid", "1")
	k.put("nvme0n1/size", fmt.Sprint(bytes/512))
	k.put("nvme0n1/dev", "259:3")
}

// ticks is a clock whose short waits are over at once, and whose long ones end
// when these have added up.
type ticks struct {
	clock.RealClock
	mu   sync.Mutex
	now  time.Duration
	long []func(now time.Duration) bool
	tick func()
}

func (c *ticks) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	fired := make(chan time.Time, 1)
	if d <= time.Second {
		c.now += d
		fired <- time.Time{}
		if c.tick != nil {
			c.tick()
		}
		for _, l := range c.long {
			l(c.now)
		}
		return fired
	}
	end, once := c.now+d, sync.Once{}
	c.long = append(c.long, func(now time.Duration) bool {
		if now >= end {
			once.Do(func() { fired <- time.Time{} })
		}
		return now >= end
	})
	return fired
}

var portal = Portal{netip.MustParseAddr("192.0.2.1"), "4420"}

func target() Target {
	return Target{NQN: volumeNQN, NSID: 1, Portals: []Portal{portal}, Queues: 4, CtrlLoss: 1800, Size: 1 << 30}
}

func newKernel(on func(k *kernel, c child.Command) error) *kernel {
	return &kernel{sys: fstest.MapFS{"module/nvme_tcp": &fstest.MapFile{Mode: fs.ModeDir}}, on: on}
}

func connector(k *kernel, c clock.Clock) *Connector {
	return NewConnector(k, HostOf("node-a"), 1, c, func(string) (string, error) { return "259:3", nil })
}

func TestConnectWaitsForTheDevice(t *testing.T) {
	k := newKernel(func(k *kernel, c child.Command) error { k.controller(StateLive); return nil })
	waited := 0
	time := &ticks{tick: func() {
		if waited++; waited == 3 {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.disk(1 << 30)
		}
	}}
	d, partial, err := connector(k, time).Connect(t.Context(), k, target())
	if err != nil || partial != nil || d.Name != "nvme0n1" || waited != 3 {
		t.Errorf("got %+v, %v, %v after %d waits", d, partial, err, waited)
	}
}

func TestConnect(t *testing.T) {
	refused := &child.ExitError{Code: 1, Output: "Connection refused"}
	for name, c := range map[string]struct {
		before func(k *kernel)
		on     func(k *kernel, c child.Command) error
		err    error
		ran    int
	}{
		"connected already": {before: func(k *kernel) { k.controller(StateLive); k.disk(1 << 30) }},
		"an earlier attempt succeeded late": {ran: 1, on: func(k *kernel, _ child.Command) error {
			k.controller(StateLive)
			k.disk(1 << 30)
			return &child.ExitError{Code: 114, Output: "Operation already in progress"}
		}},
		"refused":            {ran: 1, err: ErrUnreachable, on: func(*kernel, child.Command) error { return refused }},
		"hangs":              {ran: 1, err: child.ErrDeadline, on: func(*kernel, child.Command) error { return child.ErrDeadline }},
		"no namespace":       {ran: 1, err: ErrNoDevice, on: func(k *kernel, _ child.Command) error { k.controller(StateLive); return nil }},
		"does not reconnect": {err: ErrUnreachable, before: func(k *kernel) { k.controller(StateConnecting); k.disk(1 << 30) }},
		"too small": {ran: 2, err: ErrTooSmall, on: func(k *kernel, _ child.Command) error {
			k.controller(StateLive)
			k.disk(1 << 20)
			return nil
		}},
		"grown meanwhile": {ran: 1, before: func(k *kernel) { k.controller(StateLive); k.disk(1 << 20) }, on: func(k *kernel, c child.Command) error {
			if c.String() != "nvme ns-rescan /dev/nvme0" {
				return fmt.Errorf("ran %s", c)
			}
			k.disk(1 << 30)
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(c.on)
			if c.before != nil {
				c.before(k)
			}
			_, _, err := connector(k, &ticks{}).Connect(t.Context(), k, target())
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || len(k.ran) != c.ran {
				t.Errorf("got %v, ran %q", err, k.ran)
			}
		})
	}
}

// A node of the device's name that is another device's is not the device.
func TestDeviceNodeOfAnotherDevice(t *testing.T) {
	k := newKernel(nil)
	k.controller(StateLive)
	k.disk(1 << 30)
	c := NewConnector(k, HostOf("node-a"), 1, &ticks{}, func(string) (string, error) { return "259:1", nil })
	if _, _, err := c.Connect(t.Context(), k, target()); !errors.Is(err, ErrNoDevice) {
		t.Errorf("got %v", err)
	}
}

// A kernel without NVMe/TCP gets it; that this fails is told with what fails for it.
func TestConnectLoadsTheModule(t *testing.T) {
	broken := &child.ExitError{Code: 1, Output: "Module nvme-tcp not found"}
	k := newKernel(func(k *kernel, c child.Command) error {
		if c.Name == "modprobe" {
			return broken
		}
		return &child.ExitError{Code: 1, Output: "Failed to open /dev/nvme-fabrics"}
	})
	delete(k.sys, "module/nvme_tcp")
	_, _, err := connector(k, &ticks{}).Connect(t.Context(), k, target())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), broken.Output) || len(k.ran) != 2 || k.ran[0] != "modprobe nvme-tcp" {
		t.Errorf("got %v, ran %q", err, k.ran)
	}
}

// Connections are made one at a time here, and one that waits gives up with its request.
func TestParallelConnectsAreBounded(t *testing.T) {
	k := newKernel(func(k *kernel, _ child.Command) error { return errors.New("not to be run") })
	c := connector(k, &ticks{})
	c.slots <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.Connect(ctx, k, target()); !errors.Is(err, context.Canceled) || len(k.ran) != 0 {
		t.Errorf("got %v, ran %q", err, k.ran)
	}
}

func TestDisconnect(t *testing.T) {
	failed := &child.ExitError{Code: 1, Output: "Failed to disconnect"}
	for name, c := range map[string]struct {
		state string
		on    func(k *kernel, c child.Command) error
		err   error
		ran   int
	}{
		"succeeds":                      {ran: 1, state: StateLive, on: func(k *kernel, _ child.Command) error { k.clear(); return nil }},
		"succeeds, says otherwise":      {ran: 1, state: StateLive, on: func(k *kernel, _ child.Command) error { k.clear(); return failed }},
		"fails":                         {ran: 1, state: StateLive, err: ErrStillConnected, on: func(*kernel, child.Command) error { return failed }},
		"fails, says otherwise":         {ran: 1, state: StateLive, err: ErrStillConnected, on: func(*kernel, child.Command) error { return nil }},
		"hangs":                         {ran: 1, state: StateConnecting, err: child.ErrDeadline, on: func(*kernel, child.Command) error { return child.ErrDeadline }},
		"on its way out, never arrives": {state: StateDeleting, err: ErrStillConnected},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(c.on)
			k.controller(c.state)
			k.disk(1 << 30)
			cn := connector(k, &ticks{})
			subsystems, err := cn.Subsystems()
			if err != nil {
				t.Fatal(err)
			}
			err = cn.Disconnect(t.Context(), k, subsystems[0])
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || len(k.ran) != c.ran {
				t.Errorf("got %v, ran %q", err, k.ran)
			}
			for _, command := range k.ran {
				if !strings.HasSuffix(command, "--device=nvme0") {
					t.Errorf("ran %q, which may cut others off", command)
				}
			}
		})
	}
}

func TestAwaitSize(t *testing.T) {
	k := newKernel(nil)
	k.controller(StateLive)
	k.disk(1 << 30)
	if _, err := connector(k, &ticks{}).AwaitSize(t.Context(), volumeNQN, 1, 2<<30); !errors.Is(err, ErrNotGrown) {
		t.Errorf("got %v", err)
	}
	if d, err := connector(k, &ticks{}).AwaitSize(t.Context(), volumeNQN, 1, 1<<30); err != nil || d.Size != 1<<30 {
		t.Errorf("got %d, %v", d.Size, err)
	}
}

func TestAwaitLost(t *testing.T) {
	for name, c := range map[string]struct {
		after func(k *kernel) // a moment
		err   error
	}{
		"lives on":      {func(*kernel) {}, ErrStillConnected},
		"reconnecting":  {func(k *kernel) { k.controller(StateConnecting) }, nil},
		"disconnected":  {func(k *kernel) { k.clear() }, nil},
		"device is out": {func(k *kernel) { k.clear(); k.controller(StateLive) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(nil)
			k.controller(StateLive)
			k.disk(1 << 30)
			later := &ticks{tick: func() {
				k.mu.Lock()
				defer k.mu.Unlock()
				c.after(k)
			}}
			if err := connector(k, later).AwaitLost(t.Context(), volumeNQN, 1); !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
		})
	}
}
