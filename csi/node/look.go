package node

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/mount"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

// sight is what the kernel says at one moment.
type sight struct {
	subsystems []nvme.Subsystem
	table      mount.Table
	// nodes are the devices of the device nodes that are mounted somewhere: the
	// published block volumes, by path.
	nodes map[string]string
	// filesystems are the live ones by device name, wherever they are mounted.
	filesystems map[string]string
}

// look asks the kernel. It touches no device.
func (s *Server) look() (sight, error) {
	var now sight
	var err error
	if now.table, err = mount.ReadTable(s.config.MountTable); err != nil {
		return now, err
	}
	if now.subsystems, err = s.connect.Subsystems(); err != nil {
		return now, err
	}
	now.nodes = map[string]string{}
	for _, e := range now.table {
		if !e.IsDeviceNode() {
			continue
		}
		number, err := s.config.DeviceNumber(e.Point)
		switch {
		case err == nil:
			now.nodes[e.Point] = number
		case errors.Is(err, errNoNode), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR): // covered, or just gone
		default:
			return now, fmt.Errorf("look at the device node at %s: %w", e.Point, err)
		}
	}
	now.filesystems, err = liveFilesystems(s.config.Sys)
	return now, err
}

// liveFilesystems are the kernel's own lists; a mount in another mount namespace
// is in no table that can be read here.
func liveFilesystems(sys fs.FS) (map[string]string, error) {
	live := map[string]string{}
	for _, kind := range []string{mount.Ext4, mount.XFS} {
		entries, err := fs.ReadDir(sys, "fs/"+kind)
		if errors.Is(err, fs.ErrNotExist) {
			continue // none was ever mounted
		}
		if err != nil {
			return nil, fmt.Errorf("list the %s filesystems: %w", kind, err)
		}
		for _, e := range entries {
			live[e.Name()] = kind
		}
	}
	return live, nil
}

// places lists where a device is mounted or published, but for one path.
func (now sight) places(dev, but string) []string {
	var places []string
	for _, e := range now.table {
		if (e.Dev == dev || now.nodes[e.Point] == dev) && e.Point != but {
			places = append(places, e.Point)
		}
	}
	return places
}

// usage is what decides about disconnecting a volume.
func (s *Server) usage(v volume, now sight) (nvme.Usage, error) {
	u := nvme.Usage{Slot: v.slot, Host: s.connect.Host(), Mounts: map[string][]string{}, Filesystems: now.filesystems, StagedBy: map[string]string{}}
	for _, e := range now.table {
		u.Mounts[e.Dev] = append(u.Mounts[e.Dev], e.Point)
		if dev := now.nodes[e.Point]; dev != "" {
			u.Mounts[dev] = append(u.Mounts[dev], e.Point)
		}
	}
	// A record that cannot be read is of a volume whose slot is its file's name, not
	// this one's, and so is its NQN.
	others, _, err := s.records.list()
	if err != nil {
		return u, err
	}
	for _, r := range others {
		if r.Volume != v.handle && r.BootID == s.config.BootID && r.Step == stepStaged {
			u.StagedBy[r.NQN] = r.Volume
		}
	}
	return u, nil
}

// load reads a volume's record, as far as it still holds: another boot has left
// nothing of what it says, but what was on its way to the device.
func (s *Server) load(v volume) (record, error) {
	r, err := s.records.load(v.handle)
	if err != nil || r.BootID == s.config.BootID {
		return r, err
	}
	return record{FormatBegun: r.FormatBegun}, nil
}

// shows is the device that a path shows: of the filesystem mounted there, or of
// the device node.
func (now sight) shows(path string) (dev string, node, ok bool) {
	e, ok := now.table.Top(path)
	if !ok {
		return "", false, false
	}
	if dev := now.nodes[e.Point]; dev != "" {
		return dev, true, true
	}
	return e.Dev, false, true
}
