package nvme

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Subsystem is an NVMe subsystem that this host knows.
type Subsystem struct {
	Name        string // nvme-subsys0
	NQN         string
	Controllers []Controller
	Namespaces  []Namespace
}

// Controller is one connection to a subsystem.
type Controller struct {
	Name      string // nvme0
	Transport string // tcp, pcie, …
	State     string // live, connecting, …
	Address   string // of the target, where the transport has addresses
	Port      string
	HostNQN   string // empty where the kernel does not tell
}

// Disk is a block device.
type Disk struct {
	Name string // nvme0n1
	Dev  string // major:minor
}

// Namespace is a block device through which the namespace is used.
type Namespace struct {
	Disk
	Partitions []Disk // somebody may have made them in a block volume
	ID         int
	Size       int64 // bytes
	// Identity is what the target says identifies the namespace: wwid. It is the
	// same for as long as it is the same namespace.
	Identity string
	ReadOnly bool
	Users    []string // what the kernel has put on top of it or its partitions
}

// The kernel's states of a controller.
const (
	StateLive         = "live"
	StateNew          = "new"
	StateResetting    = "resetting"
	StateConnecting   = "connecting"
	StateDeleting     = "deleting"
	StateDeletingNoIO = "deleting (no IO)"
	StateDead         = "dead"
)

// Leaving reports whether the controller is on its way out. Any other state but
// live means that it is on its way back.
func (c Controller) Leaving() bool {
	return c.State == StateDeleting || c.State == StateDeletingNoIO || c.State == StateDead
}

// Live reports how many connections of the subsystem carry I/O.
func (s Subsystem) Live() int {
	live := 0
	for _, c := range s.Controllers {
		if c.State == StateLive {
			live++
		}
	}
	return live
}

var (
	subsystemPattern  = regexp.MustCompile(`^nvme-subsys[0-9]+$`)
	controllerPattern = regexp.MustCompile(`^nvme[0-9]+$`)
	// Never nvme0c1n1: that is one path of a namespace.
	namespacePattern = regexp.MustCompile(`^nvme[0-9]+n[0-9]+$`)
	partitionPattern = regexp.MustCompile(`^nvme[0-9]+n[0-9]+p[0-9]+$`)
)

// Read lists the subsystems of a sysfs. What vanishes while it is read is left
// out; anything else that cannot be read is an error.
func Read(sys fs.FS) ([]Subsystem, error) {
	const class = "class/nvme-subsystem"
	entries, err := fs.ReadDir(sys, class)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the kernel's NVMe support is not loaded
	}
	if err != nil {
		return nil, fmt.Errorf("list NVMe subsystems: %w", err)
	}
	var subsystems []Subsystem
	for _, e := range entries {
		if !subsystemPattern.MatchString(e.Name()) {
			continue
		}
		s, err := readSubsystem(sys, path.Join(class, e.Name()))
		switch {
		case gone(err):
			continue
		case err != nil:
			return nil, fmt.Errorf("read NVMe subsystem %s: %w", e.Name(), err)
		}
		subsystems = append(subsystems, s)
	}
	return subsystems, nil
}

func readSubsystem(sys fs.FS, dir string) (Subsystem, error) {
	s := Subsystem{Name: path.Base(dir)}
	var err error
	if s.NQN, err = attribute(sys, dir, "subsysnqn"); err != nil {
		return s, err
	}
	entries, err := fs.ReadDir(sys, dir)
	if err != nil {
		return s, err
	}
	for _, e := range entries {
		at := path.Join(dir, e.Name())
		switch {
		case namespacePattern.MatchString(e.Name()):
			err = s.addNamespace(sys, at)
		case controllerPattern.MatchString(e.Name()):
			err = s.addController(sys, at)
		default:
			continue
		}
		if err != nil && !gone(err) {
			return s, err
		}
	}
	return s, nil
}

// addController reads a controller and, where the kernel does without multipath,
// the namespaces below it.
func (s *Subsystem) addController(sys fs.FS, dir string) error {
	c := Controller{Name: path.Base(dir)}
	var err error
	if c.State, err = attribute(sys, dir, "state"); err != nil {
		return err
	}
	if c.Transport, err = attribute(sys, dir, "transport"); err != nil {
		return err
	}
	address, err := optional(sys, dir, "address")
	if err != nil {
		return err
	}
	c.Address, c.Port = parseAddress(address)
	if c.HostNQN, err = optional(sys, dir, "hostnqn"); err != nil {
		return err
	}
	s.Controllers = append(s.Controllers, c)
	entries, err := fs.ReadDir(sys, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !namespacePattern.MatchString(e.Name()) {
			continue
		}
		if err := s.addNamespace(sys, path.Join(dir, e.Name())); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

func (s *Subsystem) addNamespace(sys fs.FS, dir string) error {
	n := Namespace{Disk: Disk{Name: path.Base(dir)}}
	id, err := number(sys, dir, "nsid")
	if err != nil {
		return err
	}
	n.ID = int(id)
	// The kernel counts in 512 bytes whatever the device's own block size is.
	sectors, err := number(sys, dir, "size")
	if err != nil {
		return err
	}
	n.Size = sectors * 512
	if n.Dev, err = attribute(sys, dir, "dev"); err != nil {
		return err
	}
	if n.Identity, err = optional(sys, dir, "wwid"); err != nil {
		return err
	}
	readOnly, err := optional(sys, dir, "ro")
	if err != nil {
		return err
	}
	n.ReadOnly = readOnly == "1"
	if err := n.readUsers(sys, dir); err != nil {
		return err
	}
	s.Namespaces = append(s.Namespaces, n)
	return nil
}

// readUsers finds what stands on a disk: its partitions, and device mapper and
// RAID devices on it or on one of them.
func (n *Namespace) readUsers(sys fs.FS, dir string) error {
	entries, err := fs.ReadDir(sys, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		at := path.Join(dir, e.Name())
		switch {
		case e.Name() == "holders":
		case partitionPattern.MatchString(e.Name()):
			dev, err := attribute(sys, at, "dev")
			if gone(err) {
				continue
			}
			if err != nil {
				return err
			}
			n.Partitions = append(n.Partitions, Disk{Name: e.Name(), Dev: dev})
			at = path.Join(at, "holders")
		default:
			continue
		}
		holders, err := fs.ReadDir(sys, at)
		if err != nil && !gone(err) {
			return err
		}
		for _, h := range holders {
			n.Users = append(n.Users, h.Name())
		}
	}
	slices.Sort(n.Users)
	n.Users = slices.Compact(n.Users)
	return nil
}

// parseAddress reads `traddr=192.0.2.1,trsvcid=4420,src_addr=192.0.2.9`.
func parseAddress(s string) (address, port string) {
	for part := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch strings.TrimSpace(key) {
		case "traddr":
			address = value
		case "trsvcid":
			port = value
		}
	}
	return address, port
}

func attribute(sys fs.FS, dir, name string) (string, error) {
	b, err := fs.ReadFile(sys, path.Join(dir, name))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// optional reads an attribute that older kernels, or some devices, do not have.
func optional(sys fs.FS, dir, name string) (string, error) {
	value, err := attribute(sys, dir, name)
	if gone(err) {
		return "", nil
	}
	return value, err
}

func number(sys fs.FS, dir, name string) (int64, error) {
	s, err := attribute(sys, dir, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path.Join(dir, name), err)
	}
	return n, nil
}
