package node

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Options are the flags of node mode.
type Options struct {
	NodeName         string
	StateDir         string // empty: beside the socket
	MaxVolumes       int64
	Topology         topology
	ParallelConnects int
	// HealthInterval is how often the health of staged volumes is looked at, for log
	// and events. It costs some reads of sysfs.
	HealthInterval time.Duration
	// Connection is what applies where a volume's context says nothing.
	Connection Connection
}

// Connection are the parameters of NVMe/TCP connections. Times are in seconds.
type Connection struct {
	Queues         int
	CtrlLoss       int
	ReconnectDelay int // 0: the kernel's
	KeepAlive      int // 0: the kernel's
}

// The defaults of the flags.
const (
	DefaultMaxVolumes       = 64
	DefaultParallelConnects = 4
	DefaultHealthInterval   = 15 * time.Second
	// DefaultCtrlLoss lets an array reboot under running pods.
	DefaultCtrlLoss = 1800
	maxQueues       = 4
)

// defaultQueues is few: an array pays 284 KiB for each, for each volume and node.
func defaultQueues() int { return min(maxQueues, runtime.NumCPU()) }

// AddFlags declares the flags with their defaults.
func (o *Options) AddFlags(f *flag.FlagSet) {
	f.StringVar(&o.NodeName, "node-name", os.Getenv("NODE_NAME"), "node mode: name of this node; default: the environment's NODE_NAME")
	f.StringVar(&o.StateDir, "state-dir", "", "node mode: where to remember what is staged; it must survive restarts of the plugin; empty: `stages` beside the socket")
	f.Int64Var(&o.MaxVolumes, "max-volumes-per-node", DefaultMaxVolumes, "node mode: how many volumes this node can hold; 0: no limit")
	f.Var(&o.Topology, "topology", "node mode: where this node is, as key=value,…; empty: nothing is said")
	f.IntVar(&o.ParallelConnects, "max-parallel-connects", DefaultParallelConnects, "node mode: how many NVMe/TCP connections are made at once")
	f.DurationVar(&o.HealthInterval, "health-interval", DefaultHealthInterval, "node mode: how often the health of the volumes on this node is looked at, for log and events")
	f.IntVar(&o.Connection.Queues, "nr-io-queues", defaultQueues(), "node mode: I/O queues of a connection; a volume's nrIOQueues has precedence")
	f.IntVar(&o.Connection.CtrlLoss, "ctrl-loss-tmo", DefaultCtrlLoss, "node mode: seconds that the kernel tries to reconnect, -1: for ever; a volume's ctrlLossTmo has precedence")
	f.IntVar(&o.Connection.ReconnectDelay, "reconnect-delay", 0, "node mode: seconds between attempts to reconnect, 0: the kernel's; a volume's reconnectDelay has precedence")
	f.IntVar(&o.Connection.KeepAlive, "keep-alive-tmo", 0, "node mode: seconds after which a silent connection counts as lost, 0: the kernel's; a volume's keepAliveTmo has precedence")
}

// Validate reports everything that is wrong with the options at once.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(rds.ValidNode(o.NodeName), "--node-name is %q; it holds letters, digits, '.', '_', ':' and '-', at most 253 of them", o.NodeName)
	check(o.MaxVolumes >= 0, "--max-volumes-per-node is %d; it is not negative", o.MaxVolumes)
	check(o.ParallelConnects >= 1 && o.ParallelConnects <= 64, "--max-parallel-connects is %d; it is 1 to 64", o.ParallelConnects)
	check(o.HealthInterval > 0, "--health-interval is %s; it is positive", o.HealthInterval)
	for _, p := range []struct {
		flag  string
		value int
		param string
	}{
		{"nr-io-queues", o.Connection.Queues, rds.ParamQueues},
		{"ctrl-loss-tmo", o.Connection.CtrlLoss, rds.ParamCtrlLoss},
		{"reconnect-delay", o.Connection.ReconnectDelay, rds.ParamReconnectDelay},
		{"keep-alive-tmo", o.Connection.KeepAlive, rds.ParamKeepAlive},
	} {
		bounds := rds.ConnectionBounds[p.param]
		check(bounds.Admit(p.value), "--%s is %d; it is %d to %d", p.flag, p.value, bounds.Min, bounds.Max)
	}
	return errors.Join(errs...)
}

// topology is a set of labels, as a flag.
type topology map[string]string

func (t *topology) String() string {
	if t == nil {
		return ""
	}
	pairs := make([]string, 0, len(*t))
	for k, v := range *t {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

var (
	keyPattern   = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	valuePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
)

// Set reads key=value,….
func (t *topology) Set(s string) error {
	*t = topology{}
	if s == "" {
		return nil
	}
	for pair := range strings.SplitSeq(s, ",") {
		key, value, found := strings.Cut(pair, "=")
		if !found || !keyPattern.MatchString(key) || !valuePattern.MatchString(value) {
			return fmt.Errorf("%q is not a label like topology.kubernetes.io/zone=a", pair)
		}
		(*t)[key] = value
	}
	return nil
}
