package csi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/identity"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// DefaultDriverName is the name under which Kubernetes knows this plugin.
const DefaultDriverName = "rds.csi.srvlab.io"

// Backend is one array with what hosts need to reach its exports.
type Backend struct {
	Name      string // as handles and the StorageClass parameter `array` have it
	Array     rds.Array
	Addresses []string // of NVMe/TCP, for hosts; at least one
	Port      int      // of NVMe/TCP exports that are created
	NQNPrefix string   // of new NQNs; empty for rds.DefaultNQNPrefix
	Reserve   int64    // bytes of the pool that are never offered
}

// Config is what a Server is made of. The first backend is the default one: its
// volumes' handles carry no array name.
type Config struct {
	DriverName string
	Version    string
	Backends   []Backend
	Cluster    Cluster
	Guard      Guard            // nil: no second node, ever
	Ready      func() error     // nil: always; why this process must not serve now
	Now        func() time.Time // nil: time.Now
}

// Server implements the Controller service. It is safe for
// concurrent use; requests for different volumes never wait for one another.
type Server struct {
	spec.UnimplementedControllerServer

	config   Config
	backends map[string]*Backend
	pending  operations
	creates  unresolved
}

// New makes a Server, or says what is wrong with its configuration.
func New(config Config) (*Server, error) {
	if config.DriverName == "" || config.Cluster == nil || len(config.Backends) == 0 {
		return nil, errors.New("a CSI server needs a driver name, a cluster and at least one array")
	}
	s := &Server{config: config, backends: map[string]*Backend{}}
	if s.config.Guard == nil {
		s.config.Guard = RefuseSecond{}
	}
	if s.config.Ready == nil {
		s.config.Ready = func() error { return nil }
	}
	if s.config.Now == nil {
		s.config.Now = time.Now
	}
	s.config.Backends = slices.Clone(config.Backends)
	for i := range s.config.Backends {
		b := &s.config.Backends[i]
		if b.Array == nil || b.Name == "" || len(b.Addresses) == 0 || b.Port <= 0 {
			return nil, fmt.Errorf("array %q needs a name, NVMe/TCP addresses and a port", b.Name)
		}
		if s.backends[b.Name] != nil {
			return nil, fmt.Errorf("two arrays are named %q", b.Name)
		}
		if b.NQNPrefix == "" {
			b.NQNPrefix = rds.DefaultNQNPrefix
		}
		s.backends[b.Name] = b
	}
	return s, nil
}

// Register adds both services to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	identity.Service{Driver: s.config.DriverName, Version: s.config.Version, Ready: s.config.Ready}.Register(r)
	spec.RegisterControllerServer(r, s)
}

// backend finds an array by the name in a handle or parameter; the empty name
// is the default one's.
func (s *Server) backend(name string) (*Backend, error) {
	if name == "" {
		return &s.config.Backends[0], nil
	}
	if b := s.backends[name]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("%w: array %q is not configured; known are %s", errNoArray, name, strings.Join(s.backendNames(), ", "))
}

func (s *Server) backendNames() []string {
	names := make([]string, 0, len(s.config.Backends))
	for _, b := range s.config.Backends {
		names = append(names, b.Name)
	}
	return names
}

// volume is one volume that a request speaks of.
type volume struct {
	*Backend
	slot   string
	handle string // canonical: without the name of the default array
	also   string // the other spelling, with it; empty for other arrays
}

// spellings are the handles under which PersistentVolumes may know the volume:
// one made while another array was the default names its array.
func (v volume) spellings() []string {
	if v.also == "" {
		return []string{v.handle}
	}
	return []string{v.handle, v.also}
}

// locate finds the array and the slot of a volume handle.
func (s *Server) locate(id string) (volume, error) {
	if id == "" {
		return volume{}, invalid("volume_id is missing")
	}
	h, err := rds.ParseHandle(id)
	if err != nil {
		return volume{}, err
	}
	b, err := s.backend(h.Array)
	if err != nil {
		return volume{}, fmt.Errorf("volume %s: %w", id, err)
	}
	return s.volumeOf(b, h.Slot), nil
}

func (s *Server) volumeOf(b *Backend, slot string) volume {
	short, long := rds.Handle{Slot: slot}.String(), rds.Handle{Slot: slot, Array: b.Name}.String()
	if b == &s.config.Backends[0] {
		return volume{Backend: b, slot: slot, handle: short, also: long}
	}
	return volume{Backend: b, slot: slot, handle: long}
}

// attached asks the cluster, live, on which nodes the volume is attached.
func (s *Server) attached(ctx context.Context, vol volume) ([]string, error) {
	nodes, _, err := s.config.Cluster.AttachedNodes(ctx, vol.spellings()...)
	if err != nil {
		return nil, clusterError("ask which nodes volume "+vol.handle+" is attached to", err)
	}
	for _, node := range nodes {
		if !rds.ValidNode(node) {
			// Written into the ledger such a name would make it unreadable.
			return nil, &rds.Error{Kind: rds.ErrLedger, Op: "rebuild the ledger", Slot: vol.slot,
				Err:  fmt.Errorf("a VolumeAttachment names node %q, which no ledger can hold", node),
				Hint: "detach the volume there first"}
		}
	}
	return nodes, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{rds.ErrInvalid}, args...)...)
}
