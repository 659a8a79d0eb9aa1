package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube/kubetest"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/guest"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/nvmet"
)

// The network between the guests. The array's address is the same for both
// nodes, whichever cable it is reached by.
const (
	ArrayAddress  = "10.9.0.1"
	SecondAddress = "10.9.0.2" // a second portal of the array
	ArrayPort     = 4420
)

// Where the nodes reach what runs in the test's process: the API server, and the
// array's console.
const (
	apiAddress     = "10.0.2.100:6443"
	consoleAddress = "10.0.2.101:22"
)

// Memory of the guests in MiB. A node's file system lives in it, too.
const (
	arrayMemory = 448
	nodeMemory  = 512
)

var (
	arrayModules = []string{"virtio_pci", "virtio_net", "configfs", "loop", "nvmet", "nvmet_tcp"}
	nodeModules  = []string{"virtio_pci", "virtio_net", "loop", "nvme_tcp", "ext4", "xfs"}
	// nodePrograms are what the node plugin's image holds.
	nodePrograms = []string{
		"nvme", "blkid", "blockdev", "lsblk", "mount", "umount", "findmnt", "mkfs.ext4", "mke2fs", "e2fsck", "fsck.ext4", "fsck",
		"resize2fs", "dumpe2fs", "tune2fs", "mkfs.xfs", "xfs_repair", "xfs_db", "xfs_growfs", "xfs_io", "fsfreeze", "dd", "stat", "timeout", "sync",
	}
)

// Node is a guest in which volumes are used.
type Node struct {
	*guest.Guest
	// card is the array's end of the cable to this node.
	card string
}

// Bed is the array and two nodes, wired up.
type Bed struct {
	Array *guest.Guest
	Nodes [2]*Node
	// API stands in for the cluster that the nodes are of: it has the volumes, and
	// takes events.
	API     *kubetest.Server
	stopAPI func()
	console string // where the array's is, on loopback
	folder  string
}

// Start builds what runs in the guests and boots them. progress is told what
// takes time.
func Start(ctx context.Context, progress func(string, ...any)) (_ *Bed, err error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	// Sockets have short paths only, so the folder is not below the checkout.
	folder, err := os.MkdirTemp("", "dp-")
	if err != nil {
		return nil, err
	}
	b := &Bed{folder: folder}
	b.API, b.stopAPI = kubetest.Start()
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	// The nodes are told of it before the array starts.
	if b.console, err = guest.FreeAddress(); err != nil {
		return nil, err
	}
	if err := b.build(ctx, root); err != nil {
		return nil, err
	}
	progress("built the guests' programs")
	if err := b.images(root); err != nil {
		return nil, err
	}
	progress("made the guests' images")
	if err := b.boot(ctx, root); err != nil {
		return nil, err
	}
	progress("booted three guests")
	if err := b.wire(ctx); err != nil {
		return nil, err
	}
	progress("wired them up")
	return b, nil
}

// repository is the checkout that the test runs in.
func repository() (string, error) {
	at, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; at != "/"; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
	}
	return "", errors.New("not inside the repository")
}

func kernelFolder(root string) string { return filepath.Join(root, ".cache/dataplane/kernel") }

// Missing says what the bed lacks on this machine, or nothing.
func Missing() (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	var lacks []string
	if _, err := os.Stat(filepath.Join(kernelFolder(root), "version")); err != nil {
		lacks = append(lacks, "the guests' kernel in .cache/dataplane")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		lacks = append(lacks, "qemu-system-x86_64")
	}
	for _, name := range append([]string{"busybox"}, nodePrograms...) {
		if _, err := guest.Find(name); err != nil {
			lacks = append(lacks, name)
		}
	}
	if len(lacks) == 0 {
		return "", nil
	}
	return "missing: " + strings.Join(lacks, ", ") + "; run test/dataplane/prerequisites.sh", nil
}

// build compiles what runs in the guests, statically.
func (b *Bed) build(ctx context.Context, root string) error {
	for name, path := range map[string]string{"agent": "./test/dataplane/agent", "csi-plugin": "./cmd/csi-plugin"} {
		build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", b.path(name), path)
		build.Dir = root
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS=linux")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", path, err, out)
		}
	}
	return nil
}

func (b *Bed) path(name string) string { return filepath.Join(b.folder, name) }

func (b *Bed) images(root string) error {
	busybox, err := guest.Find("busybox")
	if err != nil {
		return err
	}
	array := guest.Image{
		Kernel: kernelFolder(root), Busybox: busybox, Modules: arrayModules,
		Files: map[string]string{"/agent": b.path("agent")},
	}
	node := array
	node.Modules, node.Programs = nodeModules, nodePrograms
	node.Files = map[string]string{"/agent": b.path("agent"), pluginPath: b.path("csi-plugin"), "/etc/mke2fs.conf": "/etc/mke2fs.conf"}
	if err := array.Write(b.path("array.img")); err != nil {
		return err
	}
	return node.Write(b.path("node.img"))
}

func (b *Bed) boot(ctx context.Context, root string) error {
	release, err := guest.Image{Kernel: kernelFolder(root)}.Release()
	if err != nil {
		return err
	}
	busybox, err := guest.Find("busybox")
	if err != nil {
		return err
	}
	spec := guest.Spec{
		Folder: b.folder, Busybox: busybox, Kernel: filepath.Join(kernelFolder(root), "boot/vmlinuz-"+release),
		Accel: os.Getenv("DATAPLANE_ACCEL"),
	}
	array := spec
	array.Name, array.Initrd, array.Memory = "array", b.path("array.img"), arrayMemory
	array.Cards = []guest.Card{
		{Name: "n1", Socket: b.path("n1.sock"), Listen: true, MAC: "52:54:00:09:01:01"},
		{Name: "n2", Socket: b.path("n2.sock"), Listen: true, MAC: "52:54:00:09:02:01"},
	}
	if b.Array, err = guest.Boot(ctx, array); err != nil {
		return err
	}
	var both errgroup.Group
	for i, name := range []string{"node-a", "node-b"} {
		both.Go(func() error {
			node := spec
			node.Name, node.Initrd, node.Memory = name, b.path("node.img"), nodeMemory
			node.Reach = map[string]string{apiAddress: strings.TrimPrefix(b.API.URL, "http://"), consoleAddress: b.console}
			card := fmt.Sprintf("n%d", i+1)
			node.Cards = []guest.Card{{Name: card, Socket: b.path(card + ".sock"), MAC: fmt.Sprintf("52:54:00:09:0%d:02", i+1)}}
			g, err := guest.Boot(ctx, node)
			if err != nil {
				return err
			}
			b.Nodes[i] = &Node{Guest: g, card: card}
			return nil
		})
	}
	return both.Wait()
}

// wire gives the guests their addresses and opens the array's port.
func (b *Bed) wire(ctx context.Context) error {
	script := "ip addr add " + ArrayAddress + "/32 dev lo; ip addr add " + SecondAddress + "/32 dev lo; echo 1 > /proc/sys/net/ipv4/ip_forward\n"
	for i := range b.Nodes {
		script += fmt.Sprintf("ip addr add 10.9.%[1]d.1/24 dev eth%[1]d; ip link set eth%[1]d up\n", i+1)
	}
	if _, err := b.Array.Shell(ctx, script); err != nil {
		return err
	}
	for i, n := range b.Nodes {
		script := fmt.Sprintf(`ip addr add 10.9.%[1]d.2/24 dev eth1; ip link set eth1 up
ip route add 10.9.0.0/24 via 10.9.%[1]d.1`, i+1)
		if _, err := n.Shell(ctx, script); err != nil {
			return err
		}
	}
	return b.Do(ctx, nvmet.Request{Verb: nvmet.OpenPort, Port: ArrayPort})
}

// Do has the array's kernel do something.
func (b *Bed) Do(ctx context.Context, r nvmet.Request) error {
	_, err := guest.Post[nvmet.Reply](ctx, b.Array, "/nvmet", r)
	return err
}

// Cut unplugs the cable between the array and a node: neither hears more than silence.
func (b *Bed) Cut(n *Node) error { return b.Array.SetLink(n.card, false) }

// Mend plugs it in again.
func (b *Bed) Mend(n *Node) error { return b.Array.SetLink(n.card, true) }

// Close ends the guests. DATAPLANE_KEEP names a folder for their consoles.
func (b *Bed) Close() {
	for _, n := range b.Nodes {
		if n != nil {
			n.Kill()
		}
	}
	if b.Array != nil {
		b.Array.Kill()
	}
	if keep := os.Getenv("DATAPLANE_KEEP"); keep != "" {
		logs, _ := filepath.Glob(b.path("*.log"))
		for _, log := range logs {
			if content, err := os.ReadFile(log); err == nil {
				_ = os.WriteFile(filepath.Join(keep, filepath.Base(log)), content, 0o644)
			}
		}
	}
	b.stopAPI()
	_ = os.RemoveAll(b.folder)
}

// await asks until a condition holds; the error says what the last answer was.
func await(ctx context.Context, limit time.Duration, what string, holds func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := holds(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %v for %s: %w", limit, what, err)
		case <-tick.C:
		}
	}
}
