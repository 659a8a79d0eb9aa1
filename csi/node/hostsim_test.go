package node

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"k8s.io/utils/clock"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
)

// host plays a node and the arrays that it reaches: a kernel with its sysfs and
// its table of mounts, and the programs that change them. It survives a crash of
// the plugin.
type host struct {
	t  *testing.T
	mu sync.Mutex

	exports     map[string]*export // by NQN
	subsystems  map[string]string  // their folders by NQN
	controllers map[string]*controller
	disks       map[string]*disk // by device name
	mounts      []mounted
	other       map[string]string // filesystems mounted in other mount namespaces: device → type
	next        int               // numbers that the kernel hands out
	// nodes are the numbers of device nodes that were bind-mounted somewhere: they
	// stay what they are when the device is gone.
	nodes map[string]string

	table   string
	log     []string                    // commands that were run
	before  func(c child.Command) error // an error fails the command; a panic is kill -9
	after   func(c child.Command)       // a panic is kill -9
	running map[string][]string         // children left behind, by tag
	statfs  func(path string) (Usage, error)
	onLook  func()          // called when sysfs is read while a filesystem lives elsewhere
	missing map[string]bool // device nodes that are not made yet
}

// export is a subsystem of an array.
type export struct {
	portals  []string // address:port
	size     int64
	identity string
	content  *content
}

// content is what is on a disk.
type content struct {
	fstype string // blkid's word
	dirty  bool   // not zero, whatever blkid says
	made   int    // how often mkfs was run
	size   int64  // of the filesystem
}

type controller struct{ nqn, state, address, port, hostNQN, transport string }

type disk struct {
	nqn, dev, identity string
	size               int64
	content            *content
}

type mounted struct {
	dev, root, point, fstype string
	ro, superRO              bool
}

const gib = int64(1) << 30

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{
		t: t, exports: map[string]*export{}, subsystems: map[string]string{}, controllers: map[string]*controller{}, disks: map[string]*disk{}, other: map[string]string{},
		table: filepath.Join(t.TempDir(), "mountinfo"), running: map[string][]string{}, nodes: map[string]string{}, missing: map[string]bool{},
	}
	h.statfs = func(string) (Usage, error) {
		return Usage{Total: 100, Used: 40, Available: 60, Inodes: 10, InodesUsed: 4, InodesFree: 6}, nil
	}
	h.writeTable()
	return h
}

// serve starts a plugin on the host.
func (h *host) serve(state string) *Server {
	h.t.Helper()
	s, err := New(Config{
		DriverName: "rds.csi.srvlab.io", Version: "test", StateDir: state,
		Options:   Options{NodeName: "node-a", MaxVolumes: 64, ParallelConnects: 2, HealthInterval: DefaultHealthInterval, Connection: Connection{Queues: 4, CtrlLoss: 1800}},
		Processes: h, Sys: h, MountTable: h.table, BootID: "boot-1", DeviceNumber: h.number, Clock: &tickClock{},
		Statfs: func(path string) (Usage, error) { return h.statfs(path) },
		Lookup: func(context.Context, string) ([]netip.Addr, error) { return nil, fmt.Errorf("no such host") },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// Processes.

func (h *host) For(tag string) child.Runner { return runnerOf{h, tag} }
func (h *host) Hung() int                   { return 0 }
func (h *host) Running(tag string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.running[tag])
}

type runnerOf struct {
	*host
	tag string
}

func (r runnerOf) Run(ctx context.Context, c child.Command) ([]byte, error) {
	if c.Timeout <= 0 {
		r.t.Errorf("%s has no deadline", c)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.log = append(r.log, c.String())
	before, after := r.before, r.after
	r.mu.Unlock()
	if before != nil {
		if err := before(c); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	out, code, words := r.exec(c)
	r.writeTable()
	r.mu.Unlock()
	if after != nil {
		after(c)
	}
	if code != 0 {
		return out, &child.ExitError{Command: c, Code: code, Output: words}
	}
	return out, nil
}

// exec is what the programs do.
func (h *host) exec(c child.Command) (out []byte, code int, words string) {
	last := c.Args[len(c.Args)-1]
	switch {
	case c.Name == "nvme" && c.Args[0] == "connect":
		return h.connectTo(c.Args)
	case c.Name == "nvme" && c.Args[0] == "disconnect":
		h.drop(option(c.Args, "--device"))
	case c.Name == "nvme" && c.Args[0] == "ns-rescan":
		h.rescan(strings.TrimPrefix(last, "/dev/"))
	case c.Name == "blkid":
		switch d := h.disks[filepath.Base(last)]; {
		case d == nil:
			return nil, 2, "no such device" // as blkid does
		case d.content.fstype != "":
			return []byte("TYPE=" + d.content.fstype + "\n"), 0, ""
		}
		return nil, 2, ""
	case c.Name == "dd":
		d := h.disks[filepath.Base(strings.TrimPrefix(c.Args[0], "if="))]
		if d == nil {
			return nil, 1, "no such device"
		}
		count, _ := strconv.ParseInt(strings.TrimPrefix(c.Args[2], "count="), 10, 64)
		skip, _ := strconv.ParseInt(strings.TrimPrefix(c.Args[3], "skip="), 10, 64)
		out = make([]byte, min(count<<20, d.size-skip))
		if d.content.dirty && len(out) > 0 {
			out[len(out)/2] = 1
		}
		return out, 0, ""
	case strings.HasPrefix(c.Name, "mkfs."):
		d := h.disks[filepath.Base(last)]
		d.content.fstype, d.content.dirty, d.content.size = strings.TrimPrefix(c.Name, "mkfs."), true, d.size
		d.content.made++
	case c.Name == "fsck":
	case c.Name == "resize2fs", c.Name == "xfs_growfs":
		for _, d := range h.disks {
			d.content.size = d.size
		}
	case c.Name == "mount":
		return h.mount(c.Args)
	case c.Name == "umount":
		for i := len(h.mounts) - 1; i >= 0; i-- {
			if h.mounts[i].point == last {
				h.mounts = slices.Delete(h.mounts, i, i+1)
				return nil, 0, ""
			}
		}
		return nil, 32, "not mounted"
	default:
		h.t.Errorf("unknown program: %s", c)
	}
	return nil, 0, ""
}

func option(args []string, name string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			return v
		}
		if a == name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

func (h *host) connectTo(args []string) ([]byte, int, string) {
	nqn, address, port := option(args, "--nqn"), option(args, "--traddr"), option(args, "--trsvcid")
	e := h.exports[nqn]
	if e == nil || !slices.Contains(e.portals, address+":"+port) {
		return nil, 1, "Failed to write to /dev/nvme-fabrics: Input/output error"
	}
	for _, c := range h.controllers {
		if c.nqn == nqn && c.address == address {
			return nil, 114, "Failed to write to /dev/nvme-fabrics: Operation already in progress"
		}
	}
	h.controllers[fmt.Sprintf("nvme%d", h.next)] = &controller{nqn: nqn, state: "live", address: address, port: port, hostNQN: option(args, "--hostnqn"), transport: "tcp"}
	h.appear(nqn)
	h.next++
	return nil, 0, ""
}

// appear makes the disk of an NQN, unless it is there.
func (h *host) appear(nqn string) {
	for _, d := range h.disks {
		if d.nqn == nqn {
			return
		}
	}
	e := h.exports[nqn]
	h.disks[fmt.Sprintf("nvme%dn1", h.next)] = &disk{nqn: nqn, dev: fmt.Sprintf("259:%d", h.next), identity: e.identity, size: e.size, content: e.content}
}

// drop is the end of a controller, and with the last one of its disk.
func (h *host) drop(name string) {
	c := h.controllers[name]
	if c == nil {
		return
	}
	delete(h.controllers, name)
	for _, other := range h.controllers {
		if other.nqn == c.nqn {
			return
		}
	}
	for name, d := range h.disks {
		if d.nqn == c.nqn {
			delete(h.disks, name)
		}
	}
}

func (h *host) rescan(name string) {
	for _, d := range h.disks {
		if c := h.controllers[name]; c != nil && d.nqn == c.nqn {
			d.size = h.exports[d.nqn].size
		}
	}
}

func (h *host) mount(args []string) ([]byte, int, string) {
	source, target := args[len(args)-2], args[len(args)-1]
	options := strings.Split(option(args, "-o"), ",")
	ro := slices.Contains(options, "ro")
	if slices.Contains(options, "remount") {
		for i := range h.mounts {
			if h.mounts[i].point == target {
				h.mounts[i].ro = ro
			}
		}
		return nil, 0, ""
	}
	if _, err := os.Stat(target); err != nil {
		return nil, 32, "mount point does not exist"
	}
	name := filepath.Base(source)
	d := h.disks[name]
	switch {
	case !slices.Contains(options, "bind"):
		if d == nil || d.content.fstype != option(args, "-t") {
			return nil, 32, "wrong fs type"
		}
		h.mounts = append(h.mounts, mounted{dev: d.dev, root: "/", point: target, fstype: d.content.fstype, ro: ro, superRO: ro})
	case d != nil:
		h.mounts = append(h.mounts, mounted{dev: "0:6", root: "/" + name, point: target, fstype: "devtmpfs"})
		h.nodes[target] = d.dev
	default:
		m := mounted{dev: "8:1", root: source, fstype: "ext4"}
		for _, o := range h.mounts {
			if o.point == source {
				m = o
			}
		}
		m.point, m.ro = target, false
		h.mounts = append(h.mounts, m)
	}
	return nil, 0, ""
}

// number is stat.
func (h *host) number(path string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.disks[filepath.Base(path)]; d != nil && filepath.Dir(path) == "/dev" && !h.missing[filepath.Base(path)] {
		return d.dev, nil
	}
	if dev := h.nodes[path]; dev != "" && slices.ContainsFunc(h.mounts, func(m mounted) bool { return m.point == path }) {
		return dev, nil
	}
	return "", &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
}

func (h *host) writeTable() {
	flag := map[bool]string{true: "ro", false: "rw"}
	var b strings.Builder
	b.WriteString("1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n")
	for i, m := range h.mounts {
		fmt.Fprintf(&b, "%d 1 %s %s %s %s,relatime shared:2 - %s src %s\n", i+2, m.dev, m.root, m.point, flag[m.ro], m.fstype, flag[m.superRO])
	}
	if err := os.WriteFile(h.table, []byte(b.String()), 0o600); err != nil {
		h.t.Error(err)
	}
}

// Open makes the host a sysfs, as it is at that moment.
func (h *host) Open(name string) (fs.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.onLook != nil && len(h.other) > 0 {
		h.onLook()
	}
	files := fstest.MapFS{"module/nvme_tcp": &fstest.MapFile{Mode: fs.ModeDir}}
	put := func(path, value string) { files[path] = &fstest.MapFile{Data: []byte(value + "\n")} }
	dir := func(nqn string) string {
		if h.subsystems[nqn] == "" {
			h.subsystems[nqn] = fmt.Sprintf("class/nvme-subsystem/nvme-subsys%d", len(h.subsystems))
		}
		put(h.subsystems[nqn]+"/subsysnqn", nqn)
		return h.subsystems[nqn]
	}
	for name, c := range h.controllers {
		at := dir(c.nqn) + "/" + name
		put(at+"/state", c.state)
		put(at+"/transport", c.transport)
		put(at+"/address", "traddr="+c.address+",trsvcid="+c.port+",src_addr=192.0.2.99")
		put(at+"/hostnqn", c.hostNQN)
	}
	for name, d := range h.disks {
		at := dir(d.nqn) + "/" + name
		put(at+"/nsid", "1")
		put(at+"/size", strconv.FormatInt(d.size/512, 10))
		put(at+"/dev", d.dev)
		put(at+"/wwid", d.identity)
		put(at+"/ro", "0")
		for _, m := range h.mounts {
			if m.dev == d.dev {
				put("fs/"+m.fstype+"/"+name+"/x", "")
			}
		}
		if kind := h.other[name]; kind != "" {
			put("fs/"+kind+"/"+name+"/x", "")
		}
	}
	return files.Open(name)
}

// What tests do behind the plugin's back.

func (h *host) do(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.writeTable()
}

// commands are those that were run with a prefix, since the last call.
func (h *host) commands(prefix string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []string
	for _, c := range h.log {
		if strings.HasPrefix(c, prefix) {
			found = append(found, c)
		}
	}
	return found
}

// reboot loses everything but the disks' contents and the files.
func (h *host) reboot() {
	h.do(func() {
		h.controllers, h.disks, h.mounts = map[string]*controller{}, map[string]*disk{}, nil
	})
}

// tickClock advances by the short waits of polls; long ones end when these have
// added up. Nobody sleeps.
type tickClock struct {
	clock.RealClock
	mu      sync.Mutex
	now     time.Duration
	waiting []waiter
}

type waiter struct {
	at time.Duration
	c  chan time.Time
}

func (c *tickClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := waiter{c.now + d, make(chan time.Time, 1)}
	c.waiting = append(c.waiting, w)
	if d <= time.Second {
		c.now += d
		c.waiting = slices.DeleteFunc(c.waiting, func(w waiter) bool {
			due := w.at <= c.now
			if due {
				w.c <- time.Time{}
			}
			return due
		})
	}
	return w.c
}
