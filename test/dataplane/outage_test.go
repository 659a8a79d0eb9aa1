package dataplane

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/nvmet"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
)

// The array reboots under I/O. The pod waits, goes on by itself, and no write
// that was acknowledged is lost; whether the port comes up before or after the
// exports, and whether the namespaces keep an identity or never had one.
func TestArrayReboot(t *testing.T) {
	for name, test := range map[string]struct {
		portFirst bool
		identity  nvmet.Identity
	}{
		"exports_first": {false, nvmet.IdentityKept},
		"port_first":    {true, nvmet.IdentityKept},
		"no_identity":   {true, nvmet.IdentityNone},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			s.behave(nvmet.Behaviour{Identity: test.identity, Off: nvmet.OffUnlink})
			s.create(rwoBlock, 64*mib)
			s.attach(s.a)
			w := s.writer(s.a, s.target())
			w.awaitMore(50)
			s.must(s.array.PowerOff(s.ctx))
			s.a.awaitGone(t, s.nqn(s.a))
			s.wantHealth(s.a, reconnecting)
			s.powerOn(test.portFirst)
			w.awaitMore(50)
			s.wantHealth(s.a, well)
			w.stopAndVerify(s.a, s.target())
			s.detach(s.a)
			s.remove()
		})
	}
}

// powerOn brings the array back. With portFirst the host is refused a few times
// before the exports are there.
func (s *scenario) powerOn(portFirst bool) {
	s.Helper()
	mark := s.a.mark(s.T)
	s.must(s.array.PowerOn(s.ctx, portFirst, func() error {
		if portFirst {
			s.a.awaitKernelTimes(s.T, mark, "Failed reconnect attempt", 2)
		}
		return nil
	}))
}

// After the reboot the namespace has another identity: the kernel refuses it. The
// plugin says so, puts nothing in the place of what a pod has open, and the volume
// serves again after the pod has left.
func TestIdentityChanged(t *testing.T) {
	s := begin(t)
	s.create(rwoExt4, 64*mib)
	s.attach(s.a)
	sum := s.fillFile(s.a, 2)
	s.behave(nvmet.Behaviour{Identity: nvmet.IdentityRandom, Off: nvmet.OffUnlink})
	mark := s.a.mark(t)
	s.must(s.array.PowerOff(s.ctx))
	s.a.awaitGone(t, s.nqn(s.a))
	s.powerOn(false)
	s.a.awaitKernel(t, mark, "identifiers changed")
	s.wantDead(s.a, "DeviceGone")
	s.leave(s.a)
	s.enter(s.a)
	if got := s.sumFile(s.a); got != sum {
		t.Errorf("the file's sum is %s, and was %s", got, sum)
	}
	s.wantHealth(s.a, well)
	s.detach(s.a)
	s.remove()
}

// wantDead checks that the plugin calls a volume inaccessible, for whoever looks,
// and neither stages nor publishes it anew under the pods that still have it.
func (s *scenario) wantDead(n *Node, reason string) {
	s.Helper()
	s.wantHealth(n, "INACCESSIBLE "+reason)
	s.wantEvent(n, "VolumeInaccessible", reason)
	s.must(await(s.ctx, 20*time.Second, "the volume to be called dead", func(context.Context) error {
		if err := s.tryShow(n); err == nil || !strings.Contains(err.Error(), "FailedPrecondition") {
			return fmt.Errorf("publishing gave %w", err)
		}
		return nil
	}))
	wantCode(s.T, s.tryStage(n), codes.FailedPrecondition)
}

// outage is longer than every timeout but the one that counts, ctrl-loss-tmo.
const outage = time.Minute

// The cable to a node is out for a minute, with the kernel's own timeouts. A pod
// waits, is told why, and goes on by itself; no write that was acknowledged is lost.
func TestLinkCut(t *testing.T) {
	s := alone(t, 1)
	s.create(rwoExt4, 64*mib)
	s.volume.VolumeContext["keepAliveTmo"], s.volume.VolumeContext["reconnectDelay"] = "5", "10"
	s.attach(s.a)
	_, err := s.a.Shell(s.ctx, "truncate -s 1M "+s.target()+"/blocks")
	s.must(err)
	w := s.writer(s.a, s.target()+"/blocks")
	w.awaitMore(20)
	cut := time.Now()
	s.cut(s.a)
	s.wantHealth(s.a, reconnecting)
	before, err := w.acknowledged(s.ctx)
	s.must(err)
	s.must(await(s.ctx, 2*outage, "the outage's end", func(context.Context) error {
		if past := time.Since(cut); past < outage {
			return fmt.Errorf("%v have passed", past)
		}
		return nil
	}))
	s.wantHealth(s.a, reconnecting)
	s.wantEvent(s.a, "VolumeInaccessible", "Reconnecting")
	if after, err := w.acknowledged(s.ctx); err != nil || after != before {
		t.Errorf("%d writes were acknowledged when the cable was out, %d at the end (%v)", before, after, err)
	}
	s.mend(s.a)
	w.awaitMore(20)
	s.wantHealth(s.a, well)
	s.wantEvent(s.a, "VolumeHealthy", "well again")
	w.stopAndVerify(s.a, s.target()+"/blocks")
	s.detach(s.a)
	s.fsck(s.a, "e2fsck", "-fn")
	s.remove()
}

// A node is partitioned away with writes in its queue. Its attachment is forced
// off and the volume goes to another node: from then on the old one never gets in
// again, whatever it still tries, and its writes never land.
func TestFencedByTheLastUnpublish(t *testing.T) {
	for _, off := range []nvmet.Off{nvmet.OffUnlink, nvmet.OffDisable} {
		t.Run(string(off), func(t *testing.T) {
			s := begin(t)
			s.behave(nvmet.Behaviour{Identity: nvmet.IdentityKept, Off: off})
			s.create(rwxBlock, 64*mib)
			s.attach(s.a)
			s.must(s.a.write(s.ctx, s.target(), 1, 100))
			old := s.nqn(s.a)
			s.cut(s.a)
			queued, err := s.a.Start(s.ctx, wire.Command{Args: []string{"/agent", "write", "-path", s.podDevice(s.a), "-writer", "1", "-blocks", "100"}})
			s.must(err)
			s.a.awaitGone(t, old)
			s.unpublish(s.a) // forced: nobody could unstage it
			s.attach(s.b)
			t.Logf("%s had %s, %s has %s", s.a.Name, old, s.b.Name, s.nqn(s.b))
			s.must(s.b.write(s.ctx, s.target(), 2, 100))
			mark := s.a.mark(t)
			s.mend(s.a)
			s.a.awaitKernelTimes(t, mark, "Failed reconnect attempt", 3)
			if r, err := queued.Look(s.ctx); err != nil || !r.Running {
				t.Errorf("the queued write is not queued any more: %v, %s %s", err, r.ExitText(), r.Stderr)
			}
			s.wantBlocks(s.b, 2, 100)
			// The old node comes to its senses: its kubelet takes down what is left.
			s.leave(s.a)
			if states, err := s.a.states(s.ctx, old); err != nil || states != "" {
				t.Errorf("it still has connections: %q, %v", states, err)
			}
			if r, err := queued.Wait(s.ctx); err != nil || r.Code == 0 {
				t.Errorf("the queued write ended with %s, %v", r.ExitText(), err)
			}
			s.wantBlocks(s.b, 2, 100)
			s.detach(s.b)
			s.remove()
		})
	}
}

// podDevice is the volume's device as a container has it: a node of its own, made
// by the container's runtime, that no mount of kubelet's knows of.
func (s *scenario) podDevice(n *Node) string {
	s.Helper()
	path := "/run/container/" + s.id()
	_, err := n.Shell(s.ctx, fmt.Sprintf(`mkdir -p /run/container; rm -f %[1]s
set -- $(stat -L -c '%%t %%T' %[2]s); mknod %[1]s b $((0x$1)) $((0x$2))`, path, s.target()))
	s.must(err)
	return path
}

// Two volumes lose their connections behind the plugin's back and come back in
// the other order, so that each has the other's device name and number. Nothing
// may be shown under a name.
func TestDeviceRenumbered(t *testing.T) {
	s := begin(t)
	s.create(rwoBlock, 64*mib)
	other := s.another(rwoBlock, 64*mib)
	s.attach(s.a)
	other.attach(s.a)
	s.must(s.a.write(s.ctx, s.target(), 1, 50))
	s.must(s.a.write(s.ctx, other.target(), 2, 50))
	was, err := s.a.device(s.ctx, s.nqn(s.a))
	s.must(err)
	for _, v := range []*scenario{s, other} {
		s.must(s.a.disconnect(s.ctx, v.nqn(s.a)))
	}
	for _, v := range []*scenario{other, s} {
		_, err := s.a.reconnect(s.ctx, v.nqn(s.a))
		s.must(err)
	}
	if now, err := s.a.device(s.ctx, other.nqn(s.a)); err != nil || now != was {
		t.Fatalf("the other volume is %s (%v), and this one was %s: the test proves nothing", now, err, was)
	}
	for _, v := range []*scenario{s, other} {
		v.wantDead(s.a, "DeviceReplaced")
	}
	// The other's pod has this volume's device open now: it is not cut off under it.
	s.must(s.tryHide(s.a))
	wantCode(t, s.tryUnstage(s.a), codes.FailedPrecondition)
	s.must(other.tryHide(s.a))
	s.must(s.tryUnstage(s.a))
	s.must(other.tryUnstage(s.a))
	for i, v := range []*scenario{s, other} {
		v.enter(s.a)
		v.wantBlocks(s.a, uint64(i+1), 50)
		v.wantHealth(s.a, well)
	}
	for _, v := range []*scenario{other, s} {
		v.detach(s.a)
		v.remove()
	}
}

// The same with a filesystem, whose node has dirty pages that nobody will ever
// take: they are lost with the connection and never reach the next owner's filesystem.
// Unstaging succeeds once the kernel has given the device up, after ctrl-loss-tmo.
func TestFencedFilesystem(t *testing.T) {
	s := begin(t)
	s.create(rwoExt4, 64*mib)
	s.volume.VolumeContext["ctrlLossTmo"] = "10"
	s.attach(s.a)
	s.fillFile(s.a, 2)
	s.cut(s.a)
	_, err := s.a.Shell(s.ctx, "dd if=/dev/zero of="+s.target()+"/file bs=1M count=2 conv=notrunc 2>&1")
	s.must(err)
	s.a.awaitGone(t, s.nqn(s.a))
	s.unpublish(s.a)
	s.attach(s.b)
	sum := s.fillFile(s.b, 2)
	s.mend(s.a)
	s.must(s.tryHide(s.a))
	s.must(await(s.ctx, time.Minute, "the old node to let go", func(context.Context) error { return s.tryUnstage(s.a) }))
	if got := s.sumFile(s.b); got != sum {
		t.Errorf("the file's sum is %s, and was %s", got, sum)
	}
	s.detach(s.b)
	s.fsck(s.b, "e2fsck", "-fn")
	s.remove()
}
