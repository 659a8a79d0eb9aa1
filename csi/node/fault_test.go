package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

func TestOlderGeneration(t *testing.T) {
	t.Run("unused is retired", func(t *testing.T) {
		b := newBench(t)
		b.block = true
		b.ok(b.stage())
		b.export(2)
		b.ok(b.stage())
		if d := b.device(); d.nqn != nqnOf(2) {
			t.Errorf("connected to %s", d.nqn)
		}
		b.ok(b.unstage())
		b.clean()
	})
	t.Run("in use is not", func(t *testing.T) {
		for _, block := range []bool{true, false} {
			b := newBench(t)
			b.block = block
			b.ok(b.stage(), b.publish("a", false))
			b.export(2)
			b.want(codes.FailedPrecondition, b.stage())
			b.want(codes.FailedPrecondition, b.publish("b", false))
			if d := b.device(); d.nqn != nqnOf(1) {
				t.Errorf("block %t: connected to %s", block, d.nqn)
			}
			b.ok(b.unpublish("a"), b.unstage(), b.stage(), b.unstage())
			b.clean()
		}
	})
}

// The kernel gave up the device under a mount: it is never replaced silently.
func TestDeadDevice(t *testing.T) {
	for _, block := range []bool{true, false} {
		t.Run(fmt.Sprint("block ", block), func(t *testing.T) {
			b := newBench(t)
			b.block = block
			b.ok(b.stage(), b.publish("a", false))
			b.do(func() { b.controllers, b.disks = map[string]*controller{}, map[string]*disk{} })
			if got := b.verdict(); !strings.Contains(got, "INACCESSIBLE "+reasonGone) {
				t.Errorf("health is %q", got)
			}
			b.want(codes.FailedPrecondition, b.stage())
			b.want(codes.FailedPrecondition, b.publish("b", false))
			if got := b.commands("nvme connect"); len(got) != 1 {
				t.Errorf("connected again: %q", got)
			}
			// Even if something else connects it again.
			b.do(func() {
				b.connectTo([]string{"--nqn=" + nqnOf(1), "--traddr=192.0.2.1", "--trsvcid=4420", "--hostnqn=" + nvme.HostOf("node-a").NQN})
			})
			if got := b.verdict(); !strings.Contains(got, "INACCESSIBLE "+reasonReplaced) {
				t.Errorf("health is %q", got)
			}
			b.want(codes.FailedPrecondition, b.publish("b", false))
			b.ok(b.unpublish("a"), b.unstage(), b.stage(), b.publish("a", false), b.unpublish("a"), b.unstage())
			b.clean()
		})
	}
}

func TestReconnecting(t *testing.T) {
	b := newBench(t)
	b.ok(b.stage())
	b.do(func() {
		for _, c := range b.controllers {
			c.state = nvme.StateConnecting
		}
	})
	if got := b.verdict(); !strings.Contains(got, "INACCESSIBLE "+reasonReconnecting) {
		t.Errorf("health is %q", got)
	}
	b.want(codes.Unavailable, b.stage())
	b.want(codes.Unavailable, b.publish("a", false))
	b.do(func() {
		for _, c := range b.controllers {
			c.state = nvme.StateLive
		}
	})
	b.ok(b.stage(), b.publish("a", false))
	if got := b.verdict(); got != "" {
		t.Errorf("health is %q", got)
	}
}

func TestUnstageFailsIfDisconnectFailed(t *testing.T) {
	b := newBench(t)
	b.ok(b.stage())
	b.before = failing("nvme disconnect", &child.ExitError{Code: 1, Output: "Failed to disconnect"})
	b.want(codes.Internal, b.unstage())
	b.before = nil
	b.ok(b.unstage())
	b.clean()
}

func TestUnmountThatHangs(t *testing.T) {
	b := newBench(t)
	b.ok(b.stage())
	b.before = failing("umount", child.ErrDeadline)
	b.want(codes.DeadlineExceeded, b.unstage())
	if got := b.commands("nvme disconnect"); len(got) != 0 {
		t.Errorf("disconnected under a mount: %q", got)
	}
	// While the child still hangs nothing else begins.
	b.before = nil
	b.do(func() { b.running[slot] = []string{"umount " + b.staging} })
	b.want(codes.Aborted, b.unstage())
	b.want(codes.Aborted, b.stage())
	b.want(codes.Aborted, b.publish("a", false))
	b.do(func() { delete(b.running, slot) })
	b.ok(b.unstage())
	b.clean()
}

func TestMountedInAnotherNamespace(t *testing.T) {
	b := newBench(t)
	b.ok(b.stage())
	for name := range b.disks {
		b.other[name] = "ext4"
	}
	b.want(codes.FailedPrecondition, b.unstage())
	if len(b.controllers) != 1 {
		t.Error("disconnected under a filesystem that is still mounted")
	}
	clear(b.other)
	b.ok(b.unstage())
	b.clean()
}

// A container that ends just now keeps the filesystem for a moment.
func TestFilesystemThatLingers(t *testing.T) {
	b := newBench(t)
	b.ok(b.stage())
	b.after = func(c child.Command) {
		if c.Name == "umount" {
			b.do(func() {
				for name := range b.disks {
					b.other[name] = "ext4"
				}
			})
		}
	}
	looks := 0
	b.onLook = func() {
		if looks++; looks == 40 {
			clear(b.other)
		}
	}
	b.ok(b.unstage())
	b.clean()
}

// Nodes boot from NVMe/TCP, and other software connects its own.
func TestOthersConnectionsAreLeftAlone(t *testing.T) {
	b := newBench(t)
	foreign := map[string]*controller{
		"nvme90": {nqn: "nqn.2000-02.com.mikrotik:boot-node-a", state: "live", transport: "tcp", hostNQN: nvme.HostOf("node-a").NQN},
		"nvme91": {nqn: nqnOf(9), state: "live", transport: "pcie"},
		"nvme92": {nqn: nqnOf(8), state: "live", transport: "tcp", hostNQN: "nqn.2014-08.org.nvmexpress:uuid:somebody"},
		"nvme93": {nqn: strings.Replace(nqnOf(1), slot, slot+"b", 1), state: "live", transport: "tcp", hostNQN: nvme.HostOf("node-a").NQN},
	}
	b.do(func() {
		for name, c := range foreign {
			b.controllers[name] = c
		}
	})
	b.ok(b.stage(), b.unstage())
	if len(b.controllers) != len(foreign) {
		t.Errorf("left are %v", b.controllers)
	}
}

func TestUnstageWithoutRecord(t *testing.T) {
	b := newBench(t)
	b.ok(b.stage(), os.WriteFile(filepath.Join(b.state, slot+".json"), []byte("{"), 0o600))
	b.want(codes.Internal, b.stage())
	b.ok(b.unstage())
	b.clean()
	b.ok(b.stage(), os.Remove(filepath.Join(b.state, slot+".json")))
	b.ok(b.stage(), b.publish("a", false), os.Remove(filepath.Join(b.state, slot+".json")))
	b.ok(b.publish("b", false))
	b.want(codes.FailedPrecondition, b.unstage())
	b.ok(b.unpublish("a"), b.unpublish("b"), b.unstage())
	b.clean()
}

func TestReboot(t *testing.T) {
	b := newBench(t)
	b.ok(b.stage(), b.publish("a", false))
	b.reboot()
	b.Server = b.serve(b.state)
	b.config.BootID = "boot-2"
	b.want(codes.FailedPrecondition, b.publish("a", false))
	b.ok(b.unpublish("a"))
	b.ok(b.stage(), b.publish("a", false), b.unpublish("a"), b.unstage())
	b.clean()
}

// The other plugin of the driver's name: its contexts, its NQN, its host name.
func TestVolumesOfAnotherPlugin(t *testing.T) {
	const handle = "pvc-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
	b := newBench(t)
	b.handle = handle
	nqn := "nqn.2000-02.com.mikrotik:" + handle
	b.exports[nqn] = &export{portals: []string{"192.0.2.1:4420"}, size: gib, identity: "uuid.x", content: &content{fstype: "ext4", dirty: true}}
	volume := map[string]string{"rdsAddress": "192.0.2.7", "nvmeAddress": "192.0.2.1", "nvmePort": "4420", "nqn": nqn, "volumePath": "/pool/x.img"}
	stage := func() error {
		_, err := b.NodeStageVolume(t.Context(), &spec.NodeStageVolumeRequest{VolumeId: handle, StagingTargetPath: b.staging, VolumeCapability: b.capability(), VolumeContext: volume})
		return err
	}
	b.ok(stage(), b.unstage())
	b.clean()
	// Staged by the other plugin, before it was replaced by this one.
	b.do(func() {
		b.connectTo([]string{"--nqn=" + nqn, "--traddr=192.0.2.1", "--trsvcid=4420", "--hostnqn=nqn.2014-08.org.nvmexpress:uuid:of-the-machine"})
	})
	b.ok(os.MkdirAll(b.staging, 0o750))
	b.do(func() { b.mount([]string{"-t", "ext4", "/dev/" + slices.Sorted(keys(b.disks))[0], b.staging}) })
	b.contexts = volume
	b.ok(b.publish("a", false))
	b.want(codes.FailedPrecondition, b.unstage())
	b.ok(b.unpublish("a"), b.unstage())
	b.clean()
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
