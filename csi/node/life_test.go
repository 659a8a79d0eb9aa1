package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

const slot = "pvc-aaaaaaaaaaaaaaaaaaaaaaaaaa"

// bench is a host, a plugin on it, and one volume's requests.
type bench struct {
	*testing.T
	*host
	*Server
	state    string
	staging  string
	pods     string
	handle   string
	contexts map[string]string
	mode     spec.VolumeCapability_AccessMode_Mode
	block    bool
	fstype   string
	flags    []string
}

func nqnOf(generation int) string {
	return fmt.Sprintf("nqn.2000-02.com.mikrotik:%s.g%d", slot, generation)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{
		T: t, host: newHost(t), state: filepath.Join(dir, "state"), staging: filepath.Join(dir, "globalmount"), pods: filepath.Join(dir, "pods"),
		handle: slot, mode: spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	}
	b.export(1)
	b.Server = b.serve(b.state)
	return b
}

// export switches on a generation and off the others; the contents stay.
func (b *bench) export(generation int) {
	b.do(func() {
		e := &export{portals: []string{"192.0.2.1:4420"}, size: gib, identity: fmt.Sprintf("uuid.%d", generation), content: &content{}}
		for nqn, old := range b.exports {
			if strings.Contains(nqn, slot) {
				e.content, e.size = old.content, old.size
				delete(b.exports, nqn)
			}
		}
		b.exports[nqnOf(generation)] = e
	})
	b.contexts = map[string]string{"nqn": nqnOf(generation), "nvmeAddresses": "192.0.2.1", "nvmePort": "4420", "sizeBytes": fmt.Sprint(gib), "generation": fmt.Sprint(generation)}
}

func (b *bench) capability() *spec.VolumeCapability {
	c := &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{Mode: b.mode}}
	if b.block {
		c.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{FsType: b.fstype, MountFlags: b.flags}}
	}
	return c
}

func (b *bench) target(pod string) string { return filepath.Join(b.pods, pod) }

func (b *bench) stage() error {
	_, err := b.NodeStageVolume(b.Context(), &spec.NodeStageVolumeRequest{VolumeId: b.handle, StagingTargetPath: b.staging, VolumeCapability: b.capability(), PublishContext: b.contexts})
	return err
}

func (b *bench) unstage() error {
	_, err := b.NodeUnstageVolume(b.Context(), &spec.NodeUnstageVolumeRequest{VolumeId: b.handle, StagingTargetPath: b.staging})
	return err
}

func (b *bench) publish(pod string, readOnly bool) error {
	_, err := b.NodePublishVolume(b.Context(), &spec.NodePublishVolumeRequest{VolumeId: b.handle, StagingTargetPath: b.staging, TargetPath: b.target(pod), VolumeCapability: b.capability(), PublishContext: b.contexts, Readonly: readOnly})
	return err
}

func (b *bench) unpublish(pod string) error {
	_, err := b.NodeUnpublishVolume(b.Context(), &spec.NodeUnpublishVolumeRequest{VolumeId: b.handle, TargetPath: b.target(pod)})
	return err
}

// expand expands what is published for pod a.
func (b *bench) expand(size int64) (int64, error) {
	r, err := b.NodeExpandVolume(b.Context(), &spec.NodeExpandVolumeRequest{VolumeId: b.handle, VolumePath: b.target("a"), StagingTargetPath: b.staging, CapacityRange: &spec.CapacityRange{RequiredBytes: size}})
	return r.GetCapacityBytes(), err
}

// grow gives the export another size, which the controller tells with the next
// publication, and the host does not see by itself.
func (b *bench) grow(size int64) {
	b.do(func() { b.exports[nqnOf(1)].size = size })
	b.contexts["sizeBytes"] = fmt.Sprint(size)
}

func (b *bench) ok(errs ...error) {
	b.Helper()
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
}

func (b *bench) want(code codes.Code, err error) {
	b.Helper()
	if status.Code(err) != code {
		b.Fatalf("got %v, want code %s", err, code)
	}
}

// device is the only disk of the host.
func (b *bench) device() *disk {
	b.Helper()
	if len(b.disks) != 1 {
		b.Fatalf("%d disks, want 1", len(b.disks))
	}
	for _, d := range b.disks {
		return d
	}
	return nil
}

// clean makes sure that nothing of the volume is left.
func (b *bench) clean() {
	b.Helper()
	records, _, err := b.records.list()
	if len(b.controllers) != 0 || len(b.disks) != 0 || len(b.mounts) != 0 || len(records) != 0 || err != nil {
		b.Errorf("left: %d controllers, %d disks, mounts %+v, records %+v, %v", len(b.controllers), len(b.disks), b.mounts, records, err)
	}
}

func TestFilesystemLife(t *testing.T) {
	for _, fstype := range []string{"", "ext4", "xfs"} {
		t.Run("type "+fstype, func(t *testing.T) {
			b := newBench(t)
			b.fstype = fstype
			made := fstype
			if made == "" {
				made = "ext4"
			}
			b.ok(b.stage(), b.stage())
			if c := b.device().content; c.made != 1 || c.fstype != made {
				t.Errorf("formatted %d times, as %q", c.made, c.fstype)
			}
			b.ok(b.publish("a", false), b.publish("a", false), b.publish("b", true))
			if n := len(b.mounts); n != 3 {
				t.Errorf("%d mounts, want 3: %+v", n, b.mounts)
			}
			if !b.mounts[2].ro || b.mounts[1].ro {
				t.Errorf("read-only is wrong: %+v", b.mounts)
			}
			b.want(codes.AlreadyExists, b.publish("a", true))
			b.want(codes.FailedPrecondition, b.unstage())
			b.ok(b.unpublish("a"), b.unpublish("a"), b.unpublish("b"))
			b.ok(b.unstage(), b.unstage())
			b.clean()
			// A second life finds the filesystem.
			b.export(2)
			b.ok(b.stage(), b.unstage())
			if c := b.exports[nqnOf(2)].content; c.made != 1 {
				t.Errorf("formatted %d times", c.made)
			}
			b.clean()
		})
	}
}

func TestConnectArguments(t *testing.T) {
	b := newBench(t)
	for k, v := range map[string]string{"ctrlLossTmo": "600", "reconnectDelay": "2", "keepAliveTmo": "15", "nrIOQueues": "2"} {
		b.contexts[k] = v
	}
	b.ok(b.stage())
	host := nvme.HostOf("node-a")
	want := "nvme connect --transport=tcp --traddr=192.0.2.1 --trsvcid=4420 --nqn=" + nqnOf(1) + " --hostnqn=" + host.NQN + " --hostid=" + host.ID +
		" --nr-io-queues=2 --ctrl-loss-tmo=600 --reconnect-delay=2 --keep-alive-tmo=15"
	if got := b.commands("nvme connect"); len(got) != 1 || got[0] != want {
		t.Errorf("ran %q\nwant %q", got, want)
	}
}

func TestXFSIsMountedWithoutItsUUID(t *testing.T) {
	b := newBench(t)
	b.fstype, b.flags = "xfs", []string{"noatime"}
	b.ok(b.stage())
	if got := b.commands("mount -t xfs"); len(got) != 1 || !strings.Contains(got[0], "-o noatime,nouuid ") {
		t.Errorf("ran %q", got)
	}
}

func TestBlockLife(t *testing.T) {
	b := newBench(t)
	b.block, b.mode = true, spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	b.ok(b.stage(), b.stage(), b.publish("a", false), b.publish("a", false), b.publish("b", false), b.stage())
	if len(b.commands("mkfs")) != 0 || len(b.commands("blkid")) != 0 {
		t.Error("a block volume was looked into")
	}
	b.want(codes.FailedPrecondition, b.unstage())
	b.want(codes.InvalidArgument, b.publish("c", true))
	b.ok(b.unpublish("a"), b.unpublish("b"), b.unstage())
	b.clean()
	if _, err := os.Lstat(b.target("a")); err == nil {
		t.Error("the published file is left")
	}
}

func TestRestOfAnotherDeviceIsNotPublished(t *testing.T) {
	b := newBench(t)
	b.block = true
	b.ok(b.stage(), b.publish("a", false))
	// The device dies and comes back under its old name, as another device.
	b.do(func() {
		d := b.device()
		d.dev = "259:77"
	})
	b.want(codes.FailedPrecondition, b.publish("a", false))
	b.want(codes.FailedPrecondition, b.stage())
	b.ok(b.unpublish("a"), b.publish("a", false), b.unpublish("a"), b.unstage())
	b.clean()
}

func TestSecondPortal(t *testing.T) {
	b := newBench(t)
	b.contexts["nvmeAddresses"] = "192.0.2.1,192.0.2.2"
	b.ok(b.stage())
	if got := b.verdict(); !strings.Contains(got, reasonPathLost) {
		t.Errorf("one of two portals: %q", got)
	}
	b.do(func() { e := b.exports[nqnOf(1)]; e.portals = append(e.portals, "192.0.2.2:4420") })
	b.ok(b.unstage(), b.stage())
	if len(b.controllers) != 2 || len(b.disks) != 1 || b.verdict() != "" {
		t.Errorf("%d controllers, %d disks, %q", len(b.controllers), len(b.disks), b.verdict())
	}
	b.ok(b.unstage())
	b.clean()
}

func TestUnreachable(t *testing.T) {
	b := newBench(t)
	b.contexts["nvmeAddresses"] = "192.0.2.9"
	b.want(codes.Unavailable, b.stage())
	b.ok(b.unstage())
	b.clean()
}

// verdict is the volume's health in one line.
func (b *bench) verdict() string {
	b.Helper()
	problems, err := b.health(b.Context(), b.handle)
	b.ok(err)
	return summary(problems)
}

func TestDiskThatIsNotBlankIsNeverFormatted(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(b *bench)
		code    codes.Code
	}{
		"data without a filesystem": {code: codes.FailedPrecondition, prepare: func(b *bench) { b.exports[nqnOf(1)].content.dirty = true }},
		"partitions":                {code: codes.FailedPrecondition, prepare: func(b *bench) { b.exports[nqnOf(1)].content.fstype = "dos" }},
		"LVM":                       {code: codes.FailedPrecondition, prepare: func(b *bench) { b.exports[nqnOf(1)].content.fstype = "LVM2_member" }},
		"another filesystem": {code: codes.FailedPrecondition, prepare: func(b *bench) {
			b.fstype, b.exports[nqnOf(1)].content.fstype = "xfs", "ext4"
		}},
		"blkid fails": {code: codes.Internal, prepare: func(b *bench) {
			b.before = failing("blkid", &child.ExitError{Code: 4, Output: "error"})
		}},
		"blkid hangs":            {code: codes.DeadlineExceeded, prepare: func(b *bench) { b.before = failing("blkid", child.ErrDeadline) }},
		"blkid is not installed": {code: codes.Internal, prepare: func(b *bench) { b.before = failing("blkid", child.ErrNotFound) }},
		// blkid ends with the same code if it cannot read.
		"the device cannot be read": {code: codes.Internal, prepare: func(b *bench) {
			b.before = failing("dd", &child.ExitError{Code: 1, Output: "Input/output error"})
		}},
		"reading hangs": {code: codes.DeadlineExceeded, prepare: func(b *bench) { b.before = failing("dd", child.ErrDeadline) }},
		"read-only":     {code: codes.FailedPrecondition, prepare: func(b *bench) { b.mode = spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			c.prepare(b)
			b.want(c.code, b.stage())
			if got := b.commands("mkfs"); len(got) != 0 {
				t.Errorf("formatted: %q", got)
			}
			b.before = nil
			b.ok(b.unstage())
			b.clean()
		})
	}
}

func failing(program string, err error) func(child.Command) error {
	return func(c child.Command) error {
		if strings.HasPrefix(c.String(), program) {
			return err
		}
		return nil
	}
}

// A staging that failed for good leaves nothing: kubelet does not unstage.
func TestFailedStagingLeavesNothing(t *testing.T) {
	b := newBench(t)
	b.exports[nqnOf(1)].content.dirty = true
	b.want(codes.FailedPrecondition, b.stage())
	b.clean()
}

func TestTooSmall(t *testing.T) {
	b := newBench(t)
	b.contexts["sizeBytes"] = fmt.Sprint(2 * gib)
	b.want(codes.OutOfRange, b.stage())
	b.clean()
	// The array grew it while it was connected here: looking again is enough.
	b = newBench(t)
	b.ok(b.stage())
	b.do(func() { b.exports[nqnOf(1)].size = 2 * gib })
	b.do(func() { b.mounts = nil })
	b.contexts["sizeBytes"] = fmt.Sprint(2 * gib)
	b.ok(b.stage())
	if b.device().content.size != 2*gib {
		t.Error("the filesystem was not grown")
	}
}

func TestAccessModes(t *testing.T) {
	for mode, second := range map[spec.VolumeCapability_AccessMode_Mode]codes.Code{
		spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER: codes.FailedPrecondition,
		spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER:        codes.FailedPrecondition,
		spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:  codes.OK,
	} {
		b := newBench(t)
		b.mode = mode
		b.ok(b.stage(), b.publish("a", false), b.publish("a", false))
		b.want(second, b.publish("b", false))
		// A place that is gone no longer counts.
		b.ok(b.unpublish("a"), b.publish("b", false))
	}
}

func TestExpand(t *testing.T) {
	for _, block := range []bool{true, false} {
		b := newBench(t)
		b.block = block
		b.ok(b.stage(), b.publish("a", false))
		// The array did not grow it: the filesystem is left alone.
		_, err := b.expand(2 * gib)
		b.want(codes.Unavailable, err)
		if len(b.commands("resize2fs")) != 0 {
			t.Error("a filesystem was grown before its device")
		}
		b.do(func() { b.exports[nqnOf(1)].size = 2 * gib })
		size, err := b.expand(2 * gib)
		b.ok(err)
		if size != 2*gib || !block && b.device().content.size != 2*gib {
			t.Errorf("block %t: %d bytes, filesystem %d", block, size, b.device().content.size)
		}
		if got := len(b.commands("resize2fs")); got > 0 == block {
			t.Errorf("block %t: resize2fs ran %d times", block, got)
		}
	}
}

// The array grew a volume that pods use here, which the host has not seen yet. Staging
// it again for one more pod is no reason to call it dead, and expanding it looks.
func TestGrownWhileInUse(t *testing.T) {
	for name, block := range map[string]bool{"block": true, "filesystem": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.block = block
			b.ok(b.stage(), b.publish("a", false))
			b.grow(2 * gib)
			b.ok(b.stage(), b.publish("b", false))
			if got := b.verdict(); got != "" {
				t.Errorf("health is %q", got)
			}
			size, err := b.expand(2 * gib)
			b.ok(err)
			if size != 2*gib || !block && b.device().content.size != 2*gib {
				t.Errorf("%d bytes, filesystem %d", size, b.device().content.size)
			}
			// Nor is it for one whose record was lost.
			b.grow(3 * gib)
			b.ok(os.Remove(filepath.Join(b.state, slot+".json")), b.publish("c", false))
			if got := b.verdict(); got != "" {
				t.Errorf("health without a record is %q", got)
			}
		})
	}
}

// Expanding cures what only looks smaller than it was, and nothing else.
func TestExpandOfADeviceThatIsTooSmall(t *testing.T) {
	b := newBench(t)
	b.block = true
	b.ok(b.stage(), b.publish("a", false))
	b.grow(2 * gib)
	r, _ := b.records.load(b.handle)
	r.Size = 2 * gib // it had been seen
	b.ok(b.records.save(r))
	b.want(codes.FailedPrecondition, b.publish("b", false))
	_, err := b.expand(2 * gib)
	b.ok(err, b.publish("b", false))
	b.grow(gib)
	for _, size := range []int64{0, gib, 2 * gib} {
		_, err := b.expand(size)
		b.want(codes.Unavailable, err)
	}
	if got := b.verdict(); !strings.Contains(got, reasonTooSmall) {
		t.Errorf("health is %q", got)
	}
}

func TestStats(t *testing.T) {
	b := newBench(t)
	stats := func() (*spec.NodeGetVolumeStatsResponse, error) {
		return b.NodeGetVolumeStats(t.Context(), &spec.NodeGetVolumeStatsRequest{VolumeId: b.handle, VolumePath: b.target("a")})
	}
	_, err := stats()
	b.want(codes.NotFound, err)
	b.ok(b.stage(), b.publish("a", false))
	r, err := stats()
	b.ok(err)
	if len(r.GetUsage()) != 2 || r.GetUsage()[0].GetAvailable() != 60 || r.GetUsage()[1].GetUsed() != 4 {
		t.Errorf("got %v", r)
	}
	b = newBench(t)
	b.block = true
	b.ok(b.stage(), b.publish("a", false))
	r, err = stats()
	b.ok(err)
	if len(r.GetUsage()) != 1 || r.GetUsage()[0].GetTotal() != gib {
		t.Errorf("got %v", r)
	}
}
