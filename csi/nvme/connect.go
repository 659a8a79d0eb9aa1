package nvme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
)

var (
	// ErrUnreachable means that no connection to the target came about.
	ErrUnreachable = errors.New("no connection to the array")
	// ErrStillConnected means that a connection could not be cut.
	ErrStillConnected = errors.New("still connected")
	// ErrNotGrown means that the device has not got the size that the array gave it.
	ErrNotGrown = errors.New("the new size is not seen")
)

const (
	defaultDeviceTimeout = 30 * time.Second
	// A host that was told to look again sees a new size at once, or not at all.
	defaultGrowTimeout = 10 * time.Second
	commandTimeout     = 60 * time.Second
	pollInterval       = 200 * time.Millisecond
)

// Target is what to connect to, and how.
type Target struct {
	NQN     string
	NSID    int
	Size    int64 // bytes that the device must have at least; 0: unknown
	Portals []Portal
	// Queues is how many I/O queues a connection gets: each costs the array memory.
	Queues int
	// CtrlLoss is how many seconds the kernel tries to reconnect before it gives the
	// device up; -1: for ever. I/O waits as long.
	CtrlLoss int
	// ReconnectDelay and KeepAlive, in seconds, are the kernel's where 0.
	ReconnectDelay int
	KeepAlive      int
}

// Connector connects and disconnects. It is safe for concurrent use; what
// belongs to one volume is for its caller to keep in order.
type Connector struct {
	sys     fs.FS
	host    Host
	clock   clock.Clock
	slots   chan struct{}
	timeout time.Duration // for a device to come or go
	growth  time.Duration // for a new size to be seen
	number  func(path string) (string, error)
}

// NewConnector returns a Connector that makes at most parallel connections at
// once. sys is the root of sysfs; number tells the major:minor of a device node.
func NewConnector(sys fs.FS, host Host, parallel int, c clock.Clock, number func(path string) (string, error)) *Connector {
	return &Connector{sys: sys, host: host, clock: c, slots: make(chan struct{}, parallel), timeout: defaultDeviceTimeout, growth: defaultGrowTimeout, number: number}
}

// Host is how the Connector introduces this node.
func (c *Connector) Host() Host { return c.host }

// Subsystems reads what is connected.
func (c *Connector) Subsystems() ([]Subsystem, error) { return Read(c.sys) }

// Device finds the device of a target that is connected already.
func (c *Connector) Device(nqn string, nsid int) (Device, error) {
	subsystems, err := Read(c.sys)
	if err != nil {
		return Device{}, err
	}
	return Find(subsystems, nqn, nsid)
}

// Connect makes the connections to the target that are missing, and waits for a
// device that can be used: found by NQN and namespace id, large enough, with a
// live connection. One portal of several is enough; partial says what is wrong
// with the others.
func (c *Connector) Connect(ctx context.Context, run child.Runner, t Target) (d Device, partial, err error) {
	subsystems, err := Read(c.sys)
	if err != nil {
		return Device{}, nil, err
	}
	var failed []error
	if missing := Missing(subsystems, t.NQN, t.Portals); len(missing) > 0 {
		if failed, err = c.connectAll(ctx, run, t, missing); err != nil {
			return Device{}, nil, err
		}
	}
	partial = errors.Join(failed...)
	if len(failed) == len(t.Portals) {
		return Device{}, partial, fmt.Errorf("%w: %w", ErrUnreachable, partial)
	}
	d, err = c.await(ctx, run, t)
	if err != nil && partial != nil {
		err = fmt.Errorf("%w (%w)", err, partial)
	}
	return d, partial, err
}

// connectAll connects to the portals, one after the other, in one of the slots.
func (c *Connector) connectAll(ctx context.Context, run child.Runner, t Target, portals []Portal) (failed []error, err error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for other connections of this node: %w", ctx.Err())
	}
	unloaded := c.load(ctx, run)
	for _, p := range portals {
		_, err := run.Run(ctx, child.Command{Name: "nvme", Args: c.connectArgs(t, p), Timeout: commandTimeout})
		switch {
		case err == nil, alreadyConnected(err):
		case ctx.Err() != nil:
			return nil, fmt.Errorf("connect to %s: %w", p, err)
		default:
			if unloaded != nil {
				err = fmt.Errorf("%w (%w)", err, unloaded)
			}
			failed = append(failed, fmt.Errorf("connect to %s: %w", p, err))
		}
	}
	return failed, nil
}

// load loads the kernel's NVMe/TCP. That it cannot be loaded is told only if it
// turns out to be missed.
func (c *Connector) load(ctx context.Context, run child.Runner) error {
	if _, err := fs.Stat(c.sys, "module/nvme_tcp"); err == nil {
		return nil
	}
	_, err := run.Run(ctx, child.Command{Name: "modprobe", Args: []string{"nvme-tcp"}, Timeout: commandTimeout})
	return err
}

func (c *Connector) connectArgs(t Target, p Portal) []string {
	args := []string{
		"connect", "--transport=tcp", "--traddr=" + p.Address.String(), "--trsvcid=" + p.Port, "--nqn=" + t.NQN,
		"--hostnqn=" + c.host.NQN, "--hostid=" + c.host.ID,
		"--nr-io-queues=" + strconv.Itoa(t.Queues), "--ctrl-loss-tmo=" + strconv.Itoa(t.CtrlLoss),
	}
	if t.ReconnectDelay > 0 {
		args = append(args, "--reconnect-delay="+strconv.Itoa(t.ReconnectDelay))
	}
	if t.KeepAlive > 0 {
		args = append(args, "--keep-alive-tmo="+strconv.Itoa(t.KeepAlive))
	}
	return args
}

// alreadyConnected recognizes the kernel's EALREADY: an earlier attempt, cut off
// in flight, succeeded meanwhile. What is connected is read from sysfs anyway.
func alreadyConnected(err error) bool {
	var exit *child.ExitError
	return errors.As(err, &exit) && (strings.Contains(exit.Output, "already connected") || strings.Contains(exit.Output, "Operation already in progress"))
}

// await waits until the device can be used. A device that is too small is looked
// at anew once: the array may have grown it while it was connected here.
func (c *Connector) await(ctx context.Context, run child.Runner, t Target) (Device, error) {
	rescanned := false
	var d Device
	err := c.poll(ctx, c.timeout, func() error {
		var err error
		if d, err = c.Device(t.NQN, t.NSID); err != nil {
			return err
		}
		if d.Live() == 0 {
			return fmt.Errorf("%w now: %s of %s waits for it to come back", ErrUnreachable, connections(d.Controllers), t.NQN)
		}
		err = d.Verify(t.Size)
		if errors.Is(err, ErrTooSmall) && !rescanned {
			rescanned = true
			if failed := c.Rescan(ctx, run, d); failed != nil {
				return failed
			}
		}
		if err != nil {
			return err
		}
		return c.node(d)
	})
	return d, err
}

// node makes sure that the device's node is that of the device: nodes are made a
// moment later, and one of the same name may be left from another device.
func (c *Connector) node(d Device) error {
	number, err := c.number(d.Path())
	switch {
	case err != nil:
		return fmt.Errorf("%w node: %w", ErrNoDevice, err)
	case number != d.Dev:
		return fmt.Errorf("%w node: %s is %s, and the device is %s", ErrNoDevice, d.Path(), number, d.Dev)
	}
	return nil
}

// Rescan makes the kernel look at a device's namespaces again, by every live
// connection.
func (c *Connector) Rescan(ctx context.Context, run child.Runner, d Device) error {
	if d.Live() == 0 {
		return fmt.Errorf("%w now: %s of %s waits for it to come back", ErrUnreachable, connections(d.Controllers), d.Name)
	}
	for _, controller := range d.Controllers {
		if controller.State != StateLive {
			continue
		}
		_, err := run.Run(ctx, child.Command{Name: "nvme", Args: []string{"ns-rescan", "/dev/" + controller.Name}, Timeout: commandTimeout})
		if err != nil {
			return fmt.Errorf("look at the size of %s again: %w", d.Name, err)
		}
	}
	return nil
}

// AwaitSize waits until a device that was rescanned has at least the size.
func (c *Connector) AwaitSize(ctx context.Context, nqn string, nsid int, size int64) (Device, error) {
	var d Device
	err := c.poll(ctx, c.growth, func() error {
		var err error
		if d, err = c.Device(nqn, nsid); err != nil {
			return err
		}
		return d.Verify(size)
	})
	if errors.Is(err, ErrTooSmall) {
		// The array's kernel may be too old to tell a connected host [INF].
		return d, fmt.Errorf("%w: %w; if it stays so, the host sees it after all pods that use the volume on this node have stopped once", ErrNotGrown, err)
	}
	return d, err
}

// AwaitLost waits until a target's device is gone, or no connection carries its I/O.
func (c *Connector) AwaitLost(ctx context.Context, nqn string, nsid int) error {
	return c.poll(ctx, c.timeout, func() error {
		d, err := c.Device(nqn, nsid)
		switch {
		case errors.Is(err, ErrNoDevice):
			return nil
		case err != nil:
			return err
		case d.Live() > 0:
			return fmt.Errorf("%w to %s: %s", ErrStillConnected, nqn, connections(d.Controllers))
		}
		return nil
	})
}

// Disconnect cuts all connections of a subsystem and makes sure that they are
// gone. The caller has asked MayDisconnect.
func (c *Connector) Disconnect(ctx context.Context, run child.Runner, s Subsystem) error {
	var failed []error
	for _, controller := range s.Controllers {
		if controller.Leaving() {
			continue
		}
		_, err := run.Run(ctx, child.Command{Name: "nvme", Args: []string{"disconnect", "--device=" + controller.Name}, Timeout: commandTimeout})
		if err != nil {
			failed = append(failed, err)
		}
	}
	// What counts is what the kernel says, not how the program ended.
	err := c.poll(ctx, c.timeout, func() error {
		subsystems, err := Read(c.sys)
		if err != nil {
			return err
		}
		for _, left := range ByNQN(subsystems, s.NQN) {
			if len(left.Controllers) > 0 {
				return fmt.Errorf("%w to %s: %s", ErrStillConnected, s.NQN, connections(left.Controllers))
			}
			if len(left.Namespaces) > 0 {
				return fmt.Errorf("%w: %s of %s is still there", ErrStillConnected, left.Namespaces[0].Name, s.NQN)
			}
		}
		return nil
	}, stopIf(len(failed) > 0))
	if err != nil {
		return errors.Join(append([]error{err}, failed...)...)
	}
	return nil
}

// connections lists controllers for people.
func connections(controllers []Controller) string {
	if len(controllers) == 0 {
		return "no connection"
	}
	words := make([]string, len(controllers))
	for i, c := range controllers {
		words[i] = c.Name + " (" + c.State + ")"
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// stopIf ends a poll after its first try.
type stopIf bool

// poll tries until it succeeds, and returns the last error when the time is up.
func (c *Connector) poll(ctx context.Context, limit time.Duration, try func() error, stop ...stopIf) error {
	end := c.clock.After(limit)
	for {
		err := try()
		if err == nil || slices.Contains(stop, true) {
			return err
		}
		select {
		case <-c.clock.After(pollInterval):
		case <-end:
			return fmt.Errorf("%w after %s", err, limit)
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}
