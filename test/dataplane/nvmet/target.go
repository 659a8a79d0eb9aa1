package nvmet

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Root is where the array's files are, in the guest.
const Root = "/array"

// Target is the kernel's NVMe/TCP target, as this array uses it.
type Target struct {
	mu        sync.Mutex
	behaviour Behaviour
	exports   map[string]*export // by slot
	down      bool
}

// export is a file that hosts may connect to, or, switched off by
// OffDisable, the connections that were left.
type export struct {
	request Request
	device  *loop
	on      bool
}

// New gives a target that exports nothing and does not listen.
func New() *Target {
	return &Target{behaviour: Default(), exports: map[string]*export{}}
}

// Do carries a request out.
func (t *Target) Do(r Request) (Reply, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.do(r); err != nil {
		return Reply{}, fmt.Errorf("nvmet: %s %s%s: %w", r.Verb, r.Slot, r.File, err)
	}
	return Reply{}, nil
}

func (t *Target) do(r Request) error {
	switch r.Verb {
	case OpenPort:
		return openPort(r.Port)
	case Behave:
		t.behaviour = r.Behaviour
		return nil
	case Create:
		return createFile(r.File, r.Size)
	case Resize:
		return t.resize(r)
	case Copy:
		return copyFile(r.From, r.File)
	case Rename:
		return os.Rename(path(r.From), path(r.File))
	case Remove:
		return os.Remove(path(r.File))
	case ExportOn:
		return t.on(r)
	case ExportOff:
		return t.off(r.Slot)
	case Down:
		return t.powerOff()
	case Up:
		return t.powerOn()
	}
	return errors.New("no such verb")
}

// on opens an export. A slot that is exported already is closed first: then its
// NQN, its file or its allowed host has changed.
func (t *Target) on(r Request) error {
	if old := t.exports[r.Slot]; old != nil {
		if !old.on && old.request == r {
			return t.enable(old)
		}
		if err := t.remove(old); err != nil {
			return err
		}
	}
	e := &export{request: r}
	t.exports[r.Slot] = e
	if t.down {
		e.on = true // it opens with the power
		return nil
	}
	return t.open(e)
}

func (t *Target) open(e *export) error {
	device, err := attach(path(e.request.File))
	if err != nil {
		return err
	}
	e.device = device
	if err := makeSubsystem(e.request.NQN, e.request.AllowHost, device.path, t.identity(e)); err != nil {
		return err
	}
	e.on = true
	return link(e.request.NQN)
}

// enable opens the namespace of an export that OffDisable had closed.
func (t *Target) enable(e *export) error {
	device, err := attach(path(e.request.File))
	if err != nil {
		return err
	}
	e.device, e.on = device, true
	return enableNamespace(e.request.NQN, device.path, t.identity(e))
}

func (t *Target) off(slot string) error {
	e := t.exports[slot]
	if e == nil {
		return nil
	}
	if t.behaviour.Off == OffUnlink || t.down {
		return t.remove(e)
	}
	if err := disableNamespace(e.request.NQN); err != nil {
		return err
	}
	e.on = false
	return e.device.close()
}

func (t *Target) remove(e *export) error {
	delete(t.exports, e.request.Slot)
	if t.down {
		return nil
	}
	return e.shut()
}

func (e *export) shut() error {
	if err := removeSubsystem(e.request.NQN); err != nil {
		return err
	}
	if !e.on {
		return nil
	}
	return e.device.close()
}

func (t *Target) resize(r Request) error {
	if err := os.Truncate(path(r.File), r.Size); err != nil {
		return err
	}
	for _, e := range t.exports {
		if e.request.File == r.File && e.on && !t.down && !t.behaviour.GrowOnReopen {
			return e.device.grow()
		}
	}
	return nil
}

// powerOff ends the port and all exports, and remembers those that were on.
func (t *Target) powerOff() error {
	if err := closePort(); err != nil {
		return err
	}
	for slot, e := range t.exports {
		if err := e.shut(); err != nil {
			return err
		}
		if !e.on {
			delete(t.exports, slot)
		}
	}
	t.down = true
	return nil
}

func (t *Target) powerOn() error {
	t.down = false
	for _, slot := range slices.Sorted(maps.Keys(t.exports)) {
		if err := t.open(t.exports[slot]); err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) identity(e *export) identity {
	return identify(t.behaviour.Identity, e.request.File)
}

func path(file string) string { return filepath.Join(Root, file) }
