package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"k8s.io/utils/clock"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/identity"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/mount"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

// Processes starts the children that work for a volume, and knows those that
// have not ended.
type Processes interface {
	For(tag string) child.Runner
	Running(tag string) []string
	Hung() int
}

// Config is what a Server is made of. Zero values of the second half stand for
// the real host.
type Config struct {
	DriverName string
	Version    string
	Options    Options
	StateDir   string // where the records are; survives a restart of the plugin
	// Announce tells people that the health of a volume has changed. An error means
	// that it did not, and is to be asked again. May be nil.
	Announce func(context.Context, HealthChange) error

	Processes    Processes
	Sys          fs.FS                             // the root of sysfs
	MountTable   string                            // like /proc/self/mountinfo
	BootID       string                            // changes at every boot of the node
	DeviceNumber func(path string) (string, error) // major:minor of a device node; errNoNode if it is none
	Statfs       func(path string) (Usage, error)
	Lookup       nvme.Lookup
	Clock        clock.Clock
}

// Usage is how full a filesystem is.
type Usage struct {
	Total, Used, Available         int64 // bytes
	Inodes, InodesUsed, InodesFree int64
}

// Server implements the Node service. It is safe for concurrent
// use; requests for different volumes never wait for one another, but for one of
// the places in which connections are made.
type Server struct {
	spec.UnimplementedNodeServer

	config  Config
	connect *nvme.Connector
	records records
	pending operations
	patient patience
}

// New makes a Server, or says what is wrong with its configuration.
func New(config Config) (*Server, error) {
	if config.DriverName == "" || config.StateDir == "" {
		return nil, errors.New("a Node service needs a driver name and a state directory")
	}
	if err := config.Options.Validate(); err != nil {
		return nil, err
	}
	if err := config.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	records := records{dir: config.StateDir}
	if err := records.tidy(); err != nil {
		return nil, err
	}
	host := nvme.HostOf(config.Options.NodeName)
	return &Server{
		config:  config,
		connect: nvme.NewConnector(config.Sys, host, config.Options.ParallelConnects, config.Clock, config.DeviceNumber),
		records: records,
		pending: operations{processes: config.Processes},
		patient: patience{clock: config.Clock},
	}, nil
}

// complete fills in the real host.
func (c *Config) complete() error {
	if c.Processes == nil {
		c.Processes = child.New()
	}
	if c.Sys == nil {
		c.Sys = os.DirFS("/sys")
	}
	if c.MountTable == "" {
		c.MountTable = "/proc/self/mountinfo"
	}
	if c.BootID == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return fmt.Errorf("read the boot id: %w", err)
		}
		c.BootID = strings.TrimSpace(string(id))
	}
	if c.DeviceNumber == nil {
		c.DeviceNumber = DeviceNumber
	}
	if c.Statfs == nil {
		c.Statfs = statfs
	}
	if c.Lookup == nil {
		c.Lookup = nvme.LookupHere
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	return nil
}

// Register adds both services to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	identity.Service{Driver: s.config.DriverName, Version: s.config.Version}.Register(r)
	spec.RegisterNodeServer(r, s)
}

func (s *Server) mounter(v volume) *mount.Mounter {
	return mount.New(s.run(v), s.config.MountTable)
}

func (s *Server) run(v volume) child.Runner { return s.config.Processes.For(v.slot) }

// errNoNode: the path is not a block device's node.
var errNoNode = errors.New("not a block device")

// DeviceNumber reads the major:minor of a device node; anything else is an error.
func DeviceNumber(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%s: %w", path, errNoNode)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

func statfs(path string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Usage{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	size := st.Frsize
	if size == 0 {
		size = st.Bsize
	}
	return Usage{
		Total: int64(st.Blocks) * size, Used: int64(st.Blocks-st.Bfree) * size, Available: int64(st.Bavail) * size,
		Inodes: int64(st.Files), InodesUsed: int64(st.Files - st.Ffree), InodesFree: int64(st.Ffree),
	}, nil
}
