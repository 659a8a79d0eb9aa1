package node

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/mount"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Keys of the publish context and the volume context. The former has
// precedence: an NQN is new at every step from nobody to somebody.
const (
	contextNQN       = "nqn"
	contextAddresses = "nvmeAddresses"
	contextAddress   = "nvmeAddress"
	contextPort      = "nvmePort"
	// contextRDSAddress is what another plugin of the driver's name has beside
	// nvmeAddress: the array's address for SSH, which serves NVMe/TCP as well.
	contextRDSAddress = "rdsAddress"
	// contextSize is how many bytes the device must have at least.
	contextSize = "sizeBytes"
	contextNSID = "nsid"
)

const (
	defaultPort = "4420"
	// The array exports one disk in a subsystem, as namespace 1 [INF].
	defaultNSID = 1
)

// volume is the volume that a request speaks of.
type volume struct {
	handle string
	slot   string
}

func readVolume(id string) (volume, error) {
	if id == "" {
		return volume{}, invalid("volume_id is missing")
	}
	h, err := rds.ParseHandle(id)
	if err != nil {
		return volume{}, err
	}
	return volume{handle: id, slot: h.Slot}, nil
}

// readPath checks a path of a request.
func readPath(name, path string) (string, error) {
	switch {
	case path == "":
		return "", invalid("%s is missing", name)
	case !filepath.IsAbs(path), filepath.Clean(path) == "/", strings.ContainsRune(path, 0):
		return "", invalid("%s is %q; it is an absolute path below /", name, path)
	}
	return filepath.Clean(path), nil
}

// readMounted checks a path at which a volume is said to be already. At one that
// no volume can be at there is none.
func readMounted(name, path string) (string, error) {
	if path != "" && !filepath.IsAbs(path) {
		return "", fmt.Errorf("%w: nothing is mounted at %q, which is no absolute path", errNotHere, path)
	}
	return readPath(name, path)
}

// access is how a volume is to be used.
type access struct {
	block    bool
	fstype   string // empty: whatever there is
	options  []string
	readOnly bool
	// exclusive: one place on this node only.
	exclusive bool
}

// reservedOptions change what mount does, not how a filesystem is mounted.
var reservedOptions = []string{"bind", "rbind", "move", "remount", "loop", "offset", "sizelimit"}

func readAccess(c *spec.VolumeCapability) (access, error) {
	a := access{block: c.GetBlock() != nil, fstype: c.GetMount().GetFsType(), options: slices.Clone(c.GetMount().GetMountFlags())}
	switch mode := c.GetAccessMode().GetMode(); mode {
	case spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
	case spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER:
		a.exclusive = true
	case spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:
		a.readOnly = c.GetMount() != nil
	case spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:
		if c.GetMount() != nil {
			return a, invalid("a filesystem mounted on two nodes is destroyed; ReadWriteMany needs volumeMode Block")
		}
	default:
		if c == nil {
			return a, invalid("volume_capability is missing")
		}
		return a, invalid("access mode %s is not supported", mode)
	}
	if !a.block && c.GetMount() == nil {
		return a, invalid("volume_capability has neither block nor mount access")
	}
	if !mount.Supported(a.fstype) {
		return a, invalid("filesystem %q is not supported; known are %s and %s", a.fstype, mount.Ext4, mount.XFS)
	}
	for _, o := range a.options {
		name, _, _ := strings.Cut(o, "=")
		if slices.Contains(reservedOptions, name) || o == "" || strings.ContainsAny(o, ", \t\n\x00") {
			return a, invalid("mount option %q is not supported", o)
		}
		a.readOnly = a.readOnly || o == "ro"
	}
	if a.readOnly && !slices.Contains(a.options, "ro") {
		a.options = append(a.options, "ro")
	}
	return a, nil
}

// readTarget finds out where a volume is from its contexts.
func (s *Server) readTarget(ctx context.Context, v volume, publish, volume map[string]string) (nvme.Target, error) {
	either := func(key string) string { return cmp.Or(publish[key], volume[key]) }
	d := s.config.Options.Connection
	t := nvme.Target{NQN: either(contextNQN), NSID: defaultNSID, Queues: d.Queues, CtrlLoss: d.CtrlLoss, ReconnectDelay: d.ReconnectDelay, KeepAlive: d.KeepAlive}
	switch {
	case t.NQN == "":
		return t, invalid("neither publish_context nor volume_context has %s; is the volume attached to this node?", contextNQN)
	case len(t.NQN) > 223 || strings.ContainsFunc(t.NQN, func(r rune) bool { return r <= ' ' || r > '~' }):
		return t, invalid("%s is not an NVMe qualified name", contextNQN)
	case !nvme.Names(t.NQN, v.slot):
		return t, invalid("%s is %s, which is not an export of volume %s", contextNQN, t.NQN, v.handle)
	}
	for _, p := range []struct {
		key    string
		into   *int
		bounds rds.Bounds
	}{
		{contextNSID, &t.NSID, rds.Bounds{Min: 1, Max: 1 << 20}},
		{rds.ParamQueues, &t.Queues, rds.ConnectionBounds[rds.ParamQueues]},
		{rds.ParamCtrlLoss, &t.CtrlLoss, rds.ConnectionBounds[rds.ParamCtrlLoss]},
		{rds.ParamReconnectDelay, &t.ReconnectDelay, rds.ConnectionBounds[rds.ParamReconnectDelay]},
		{rds.ParamKeepAlive, &t.KeepAlive, rds.ConnectionBounds[rds.ParamKeepAlive]},
	} {
		value := either(p.key)
		if value == "" {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil || !p.bounds.Admit(n) {
			return t, invalid("%s is %q; it is a number from %d to %d", p.key, value, p.bounds.Min, p.bounds.Max)
		}
		*p.into = n
	}
	if size := either(contextSize); size != "" {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil || n < 0 {
			return t, invalid("%s is %q; it is a number of bytes", contextSize, size)
		}
		t.Size = n
	}
	var err error
	t.Portals, err = s.readPortals(ctx, cmp.Or(either(contextAddresses), either(contextAddress), volume[contextRDSAddress]), cmp.Or(either(contextPort), defaultPort))
	return t, err
}

// readPortals reads addresses parted by commas.
func (s *Server) readPortals(ctx context.Context, list, port string) ([]nvme.Portal, error) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return nil, invalid("%s is %q; it is a port number", contextPort, port)
	}
	port = strconv.FormatUint(number, 10) // as the kernel shows it
	var hosts []string
	for host := range strings.SplitSeq(list, ",") {
		if host = strings.TrimSpace(host); host != "" {
			hosts = append(hosts, host)
		}
	}
	portals, err := nvme.Portals(ctx, s.config.Lookup, hosts, port)
	if err != nil {
		return nil, err
	}
	if len(portals) == 0 || len(portals) > rds.MaxPortals {
		return nil, invalid("%s has %d addresses; it has 1 to %d, parted by commas", contextAddresses, len(portals), rds.MaxPortals)
	}
	return portals, nil
}
