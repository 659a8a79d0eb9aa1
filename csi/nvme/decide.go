package nvme

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

var (
	// ErrNoDevice means that no block device of the volume is here.
	ErrNoDevice = errors.New("no block device")
	// ErrAmbiguous means that several devices answer the description, and guessing is how
	// data is lost.
	ErrAmbiguous = errors.New("more than one device")
	// ErrTooSmall means that the device is smaller than the volume.
	ErrTooSmall = errors.New("device smaller than the volume")
	// ErrInUse means that something on this host uses the device.
	ErrInUse = errors.New("device in use on this node")
	// ErrForeign means that it is not a connection that this driver may touch.
	ErrForeign = errors.New("not a connection of this driver")
)

// Device is a volume's block device, with the connections that carry it.
type Device struct {
	Namespace
	Controllers []Controller
}

// Path is where the device node is.
func (d Device) Path() string { return "/dev/" + d.Name }

// Live counts the connections that carry I/O now.
func (d Device) Live() int { return Subsystem{Controllers: d.Controllers}.Live() }

// Find picks the device of a subsystem by its NQN and namespace id. It never
// looks at the numbers in names.
func Find(subsystems []Subsystem, nqn string, nsid int) (Device, error) {
	var found []Device
	var others []string
	var states []string
	for _, s := range ByNQN(subsystems, nqn) {
		for _, n := range s.Namespaces {
			if n.ID == nsid {
				found = append(found, Device{Namespace: n, Controllers: s.Controllers})
			} else {
				others = append(others, fmt.Sprint(n.ID))
			}
		}
		for _, c := range s.Controllers {
			states = append(states, c.Name+" "+c.State)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		names := make([]string, len(found))
		for i, d := range found {
			names[i] = d.Name
		}
		return Device{}, fmt.Errorf("%w shows namespace %d of %s: %s (several paths need the kernel's nvme_core.multipath=Y)", ErrAmbiguous, nsid, nqn, strings.Join(names, ", "))
	case len(others) > 0:
		return Device{}, fmt.Errorf("%w for namespace %d of %s; it has namespace %s", ErrNoDevice, nsid, nqn, strings.Join(others, ", "))
	case len(states) > 0:
		return Device{}, fmt.Errorf("%w for namespace %d of %s; its connections: %s", ErrNoDevice, nsid, nqn, strings.Join(states, ", "))
	}
	return Device{}, fmt.Errorf("%w for namespace %d of %s: not connected", ErrNoDevice, nsid, nqn)
}

// ByNQN picks the subsystems of an NQN. There may be two for a moment, while the
// kernel takes down an old one.
func ByNQN(subsystems []Subsystem, nqn string) []Subsystem {
	return slices.DeleteFunc(slices.Clone(subsystems), func(s Subsystem) bool { return s.NQN != nqn })
}

// BySlot picks the subsystems whose NQN can be that of a volume's export.
func BySlot(subsystems []Subsystem, slot string) []Subsystem {
	return slices.DeleteFunc(slices.Clone(subsystems), func(s Subsystem) bool { return !Names(s.NQN, slot) })
}

// ByDev finds the subsystem and device of a major:minor.
func ByDev(subsystems []Subsystem, dev string) (Subsystem, Device, bool) {
	for _, s := range subsystems {
		for _, n := range s.Namespaces {
			if n.Dev == dev {
				return s, Device{Namespace: n, Controllers: s.Controllers}, true
			}
		}
	}
	return Subsystem{}, Device{}, false
}

// Verify checks a device against what is known of the volume. A size of 0 is not
// known.
func (d Device) Verify(size int64) error {
	switch {
	case d.Size <= 0:
		return fmt.Errorf("%w: %s has no size yet", ErrNoDevice, d.Name)
	case d.Size < size:
		return fmt.Errorf("%w: %s has %d bytes, the volume %d", ErrTooSmall, d.Name, d.Size, size)
	}
	return nil
}

// Portal is an address at which a target listens.
type Portal struct {
	Address netip.Addr
	Port    string
}

func (p Portal) String() string { return p.Address.String() + " port " + p.Port }

// Missing lists the portals to which there is no connection, not even one that is
// on its way back: the kernel reconnects those by itself, and refuses a second.
func Missing(subsystems []Subsystem, nqn string, portals []Portal) []Portal {
	return slices.DeleteFunc(slices.Clone(portals), func(p Portal) bool {
		for _, s := range ByNQN(subsystems, nqn) {
			if slices.ContainsFunc(s.Controllers, func(c Controller) bool { return c.at(p) && !c.Leaving() }) {
				return true
			}
		}
		return false
	})
}

// at reports whether the controller is connected to the portal, however its
// address is written.
func (c Controller) at(p Portal) bool {
	address, err := netip.ParseAddr(c.Address)
	return err == nil && address.Unmap() == p.Address.Unmap() && c.Port == p.Port
}

// Usage is what this host does with a volume's devices.
type Usage struct {
	Slot string // of the volume
	Host Host   // this node
	// Mounts are the places where one of the devices is mounted or published, by
	// major:minor.
	Mounts map[string][]string
	// Filesystems are the kernel's live filesystems by device name. One that is
	// mounted nowhere here is mounted in another mount namespace.
	Filesystems map[string]string
	// StagedBy names another volume that is staged here with the same NQN.
	StagedBy map[string]string
}

// MayDisconnect decides whether a subsystem's connections may be cut: only those
// of a volume of ours that nothing on this host uses. It returns why not.
func MayDisconnect(s Subsystem, u Usage) error {
	if !Names(s.NQN, u.Slot) {
		return fmt.Errorf("%w: %s is not an export of %s", ErrForeign, s.NQN, u.Slot)
	}
	for _, c := range s.Controllers {
		switch {
		case c.Transport != "tcp":
			return fmt.Errorf("%w: %s of %s is connected by %s", ErrForeign, c.Name, s.NQN, c.Transport)
		// Another plugin connects its volumes, which have no generation, in the name
		// that the node has in /etc/nvme.
		case c.HostNQN != "" && c.HostNQN != u.Host.NQN && rds.MadeHere(s.NQN, u.Slot):
			return fmt.Errorf("%w: %s of %s was connected as host %s", ErrForeign, c.Name, s.NQN, c.HostNQN)
		}
	}
	if other := u.StagedBy[s.NQN]; other != "" {
		return fmt.Errorf("%w for this volume: %s is staged as volume %s", ErrForeign, s.NQN, other)
	}
	for _, n := range s.Namespaces {
		if len(n.Users) > 0 {
			return fmt.Errorf("%w: %s (%s) is used by %s", ErrInUse, n.Name, s.NQN, strings.Join(n.Users, ", "))
		}
		for _, d := range append([]Disk{n.Disk}, n.Partitions...) {
			if err := d.unused(u); err != nil {
				return fmt.Errorf("%w (%s)", err, s.NQN)
			}
		}
	}
	return nil
}

func (d Disk) unused(u Usage) error {
	switch {
	case len(u.Mounts[d.Dev]) > 0:
		return fmt.Errorf("%w: %s is mounted at %s", ErrInUse, d.Name, strings.Join(u.Mounts[d.Dev], ", "))
	case u.Filesystems[d.Name] != "":
		return fmt.Errorf("%w: the %s filesystem on %s is still mounted in another mount namespace, where a container holds a copy of the mount", ErrInUse, u.Filesystems[d.Name], d.Name)
	}
	return nil
}
