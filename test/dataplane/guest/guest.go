package guest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/process"
)

// Spec says what machine to boot.
type Spec struct {
	Name   string
	Folder string // for its console, its sockets; a short path
	// Busybox of this machine carries what Reach says.
	Busybox string
	Kernel  string // vmlinuz
	Initrd  string
	Memory  int    // MiB
	Cards   []Card // after the one for the agent: eth1, eth2, …
	// Reach maps an address in QEMU's own network (10.0.2.0/24), host:port, to one of
	// this machine's that the guest reaches by it. It reaches no other.
	Reach map[string]string
	// Accel is QEMU's accelerator: "tcg", plain emulation, unless told otherwise.
	Accel string
}

// Card is a network card, wired to that of another guest by a Unix socket; one
// of the two listens, and must be booted first.
type Card struct {
	Name   string
	Socket string
	Listen bool
	MAC    string
}

// Guest is a running machine.
type Guest struct {
	Name    string
	spec    Spec
	process *process.Process
	agent   string // host:port on loopback
	http    *http.Client
}

// clocks makes the guest keep time by the HPET, whose frequency it is told. That of
// the TSC and of the APIC's timer it would have to measure while it boots, and on a
// busy machine gets wrong by factors: a minute of such a guest passed in ten seconds.
const clocks = "clocksource=hpet tsc=unstable nolapic_timer"

// bootPause is how often a booting guest is asked whether it is ready.
const bootPause = 50 * time.Millisecond

// Boot starts a machine and waits until its agent answers.
func Boot(ctx context.Context, s Spec) (*Guest, error) {
	agent, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	g := &Guest{Name: s.Name, spec: s, agent: agent, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	g.process, err = process.Start(process.Spec{
		Name: "qemu " + s.Name, Path: "qemu-system-x86_64", Args: g.arguments(),
		Log: filepath.Join(s.Folder, s.Name+".qemu.log"),
	}, nil)
	if err != nil {
		return nil, err
	}
	if err := g.waitReady(ctx); err != nil {
		g.Kill()
		return nil, fmt.Errorf("boot %s: %w; the end of its console:\n%s", s.Name, err, process.Tail(g.Console(), 20))
	}
	return g, nil
}

// FreeAddress is one on loopback that nobody listens at. Somebody else could take it
// before QEMU does; then QEMU ends and says so.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (g *Guest) arguments() []string {
	s := g.spec
	accel := s.Accel
	if accel == "" {
		accel = "tcg"
	}
	network := fmt.Sprintf("user,id=agent,restrict=on,hostfwd=tcp:%s-10.0.2.15:%d", g.agent, wire.Port)
	for inside, outside := range s.Reach {
		host, port, _ := strings.Cut(outside, ":")
		network += fmt.Sprintf(",guestfwd=tcp:%s-cmd:%s nc %s %s", inside, s.Busybox, host, port)
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "q35", "-accel", accel, "-cpu", "max", "-smp", "1", "-m", strconv.Itoa(s.Memory),
		"-kernel", s.Kernel, "-initrd", s.Initrd,
		"-append", "console=ttyS0 quiet loglevel=6 panic=-1 mitigations=off random.trust_cpu=on " + clocks,
		"-serial", "file:" + g.Console(),
		"-qmp", "unix:" + g.monitor() + ",server=on,wait=off",
		"-netdev", network,
		"-device", "virtio-net-pci,netdev=agent,romfile=",
	}
	for _, c := range s.Cards {
		mode := "server=off"
		if c.Listen {
			mode = "server=on"
		}
		args = append(args,
			"-netdev", fmt.Sprintf("stream,id=%s,%s,addr.type=unix,addr.path=%s", c.Name, mode, c.Socket),
			"-device", fmt.Sprintf("virtio-net-pci,id=card-%s,netdev=%s,mac=%s,romfile=", c.Name, c.Name, c.MAC))
	}
	return args
}

func (g *Guest) waitReady(ctx context.Context) error {
	tick := time.NewTicker(bootPause)
	defer tick.Stop()
	for {
		// Until the agent listens QEMU accepts and says nothing, so each try is short.
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := g.get(try, "/ready")
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-g.process.Failed():
			return g.process.Err()
		case <-ctx.Done():
			return fmt.Errorf("its agent did not answer: %w", err)
		case <-tick.C:
		}
	}
}

// Console is the file with what the guest's kernel said.
func (g *Guest) Console() string { return filepath.Join(g.spec.Folder, g.Name+".console.log") }

func (g *Guest) monitor() string { return filepath.Join(g.spec.Folder, g.Name+".qmp") }

// SetLink plugs or unplugs the named card's cable at this end; the other end
// notices nothing but silence.
func (g *Guest) SetLink(card string, up bool) error {
	return qmp(g.monitor(), "set_link", map[string]any{"name": "card-" + card, "up": up})
}

// Kill ends the machine at once.
func (g *Guest) Kill() {
	g.process.Kill()
	g.http.CloseIdleConnections()
	_ = os.Remove(g.monitor())
}
