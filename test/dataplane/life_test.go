package dataplane

import (
	"fmt"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/nvmet"
)

// A filesystem is made once, keeps its files from node to node, and is clean
// after every way of leaving.
func TestFilesystemLife(t *testing.T) {
	for _, test := range []struct {
		capability *spec.VolumeCapability
		size       int64
		check      []string
	}{
		{rwoExt4, 128 * mib, []string{"e2fsck", "-fn"}},
		{rwoXFS, 320 * mib, []string{"xfs_repair", "-n"}},
	} {
		t.Run(test.capability.GetMount().GetFsType(), func(t *testing.T) {
			s := begin(t)
			s.create(test.capability, test.size)
			s.attach(s.a)
			sum := s.fillFile(s.a, 8)
			s.must(s.tryStage(s.a)) // kubelet asks again after every doubt
			s.must(s.tryShow(s.a))
			stats, err := world.plugins[s.a].NodeGetVolumeStats(s.ctx, &spec.NodeGetVolumeStatsRequest{VolumeId: s.id(), VolumePath: s.target()})
			s.must(err)
			if used := stats.GetUsage()[0].GetUsed(); used < 8*mib {
				t.Errorf("%d bytes are used after writing 8 MiB", used)
			}
			first := s.nqn(s.a)
			s.detach(s.a)
			s.attach(s.b)
			if s.nqn(s.b) == first {
				t.Errorf("the next owner got the same NQN %s", first)
			}
			if got := s.sumFile(s.b); got != sum {
				t.Errorf("the file's sum is %s on the second node, %s on the first", got, sum)
			}
			s.detach(s.b)
			s.fsck(s.a, test.check...)
			s.remove()
		})
	}
}

// fillFile writes a file of so many MiB in the volume and gives its checksum.
func (s *scenario) fillFile(n *Node, size int) string {
	s.Helper()
	_, err := n.Shell(s.ctx, fmt.Sprintf("dd if=/dev/urandom of=%s/file bs=1M count=%d 2>&1; sync", s.target(), size))
	s.must(err)
	return s.sumFile(n)
}

func (s *scenario) sumFile(n *Node) string {
	s.Helper()
	out, err := n.Shell(s.ctx, "sha256sum < "+s.target()+"/file")
	s.must(err)
	return strings.Fields(out)[0]
}

// An old PV of the other plugin lives on here: its export was on from creation,
// has no generation and no ledger, and its name is never changed.
func TestVolumeOfTheOtherPlugin(t *testing.T) {
	t.Run("attached_anew", func(t *testing.T) {
		s, nqn := foreign(t)
		s.attach(s.a)
		sum := s.fillFile(s.a, 4)
		s.grow(s.a, 192*mib)
		s.detach(s.a)
		s.attach(s.b)
		if got := s.nqn(s.b); got != nqn {
			t.Errorf("its NQN is %s now", got)
		}
		if got := s.sumFile(s.b); got != sum {
			t.Errorf("the file's sum is %s on the second node, %s on the first", got, sum)
		}
		s.detach(s.b)
		s.remove()
	})
	// The other plugin was replaced under a running pod: what it had connected, in the
	// name of the node's /etc/nvme, and mounted is used on, and taken away in the end.
	t.Run("taken_over", func(t *testing.T) {
		s, nqn := foreign(t)
		s.controller.cluster.attach(s.id(), s.a.Name, true)
		device, err := s.a.connect(s.ctx, nqn)
		s.must(err)
		_, err = s.a.Shell(s.ctx, fmt.Sprintf("mkfs.ext4 -q %[1]s; mkdir -p %[2]s %[3]s; mount %[1]s %[2]s; mount --bind %[2]s %[3]s", device, s.staging(), s.target()))
		s.must(err)
		sum := s.fillFile(s.a, 4)
		s.publish(s.a) // csi-attacher asks again, and nothing changes for the pod
		if got := s.nqn(s.a); got != nqn {
			t.Errorf("its NQN is %s now", got)
		}
		s.enter(s.a) // so does kubelet
		s.wantHealth(s.a, well)
		s.grow(s.a, 192*mib)
		if got := s.sumFile(s.a); got != sum {
			t.Errorf("the file's sum is %s, and was %s", got, sum)
		}
		s.detach(s.a)
		if states, err := s.a.states(s.ctx, nqn); err != nil || states != "" {
			t.Errorf("connections are left: %q, %v", states, err)
		}
		s.fsck(s.b, "e2fsck", "-fn")
		s.remove()
	})
}

// foreign is a volume as the other plugin has made it, and the NQN of its export.
func foreign(t *testing.T) (*scenario, string) {
	t.Helper()
	s := begin(t)
	const handle = "pvc-7d1f8c52-9a0e-4b57-8c39-1f2e3d4c5b6a"
	nqn := "nqn.2000-02.com.mikrotik:" + handle
	file := basePath + "/" + handle + ".img"
	s.adopt(handle, nqn, file, 128*mib)
	s.volume = &spec.Volume{VolumeId: handle, CapacityBytes: 128 * mib, VolumeContext: map[string]string{
		"rdsAddress": ArrayAddress, "nvmeAddress": ArrayAddress, "nvmePort": "4420", "nqn": nqn, "volumePath": "/" + file,
	}}
	s.capability = rwoExt4
	return s, nqn
}

// Growing needs no restart of anything: a pod writes on meanwhile, and sees the
// space afterwards.
func TestOnlineGrowth(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		capability *spec.VolumeCapability
		from, to   int64
	}{
		"ext4":  {rwoExt4, 64 * mib, 160 * mib},
		"xfs":   {rwoXFS, 320 * mib, 448 * mib},
		"block": {rwoBlock, 64 * mib, 96 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			s := alone(t, 0)
			s.create(test.capability, test.from)
			s.attach(s.a)
			path := s.target()
			if test.capability.GetMount() != nil {
				path += "/blocks"
				_, err := s.a.Shell(s.ctx, "truncate -s 1M "+path)
				s.must(err)
			}
			w := s.writer(s.a, path)
			w.awaitMore(20)
			s.grow(s.a, test.to)
			w.awaitMore(20)
			w.stopAndVerify(s.a, path)
			s.detach(s.a)
			s.remove()
		})
	}
}

// On an array with an old kernel a connected host never sees the new size. The
// plugin says so, the pod is not disturbed, and the space is there once the export
// was opened anew: after the array's next reboot, or with the next pod.
func TestGrowthSeenOnReopening(t *testing.T) {
	s := begin(t)
	s.behave(nvmet.Behaviour{Identity: nvmet.IdentityKept, Off: nvmet.OffUnlink, GrowOnReopen: true})
	s.create(rwoExt4, 64*mib)
	s.attach(s.a)
	sum := s.fillFile(s.a, 4)
	s.growArray(96 * mib)
	_, err := s.growNode(s.a, 96*mib)
	wantCode(t, err, codes.Unavailable)
	s.wantHealth(s.a, well)
	s.must(s.array.PowerOff(s.ctx))
	s.a.awaitGone(t, s.nqn(s.a))
	s.powerOn(false)
	s.wantHealth(s.a, well)
	s.wantGrown(s.a, 96*mib) // kubelet asks again

	s.growArray(160 * mib)
	s.detach(s.a)
	s.attach(s.a)
	s.wantSpace(s.a, 160*mib)
	if got := s.sumFile(s.a); got != sum {
		t.Errorf("the file's sum is %s, and was %s", got, sum)
	}
	s.detach(s.a)
	s.fsck(s.b, "e2fsck", "-fn")
	s.remove()
}

// grow expands the volume on the array and on the node, and checks what a pod sees.
func (s *scenario) grow(n *Node, size int64) {
	s.Helper()
	s.growArray(size)
	s.wantGrown(n, size)
}

func (s *scenario) growArray(size int64) {
	s.Helper()
	ctx, cancel := s.rpc()
	defer cancel()
	r, err := s.controller.ControllerExpandVolume(ctx, &spec.ControllerExpandVolumeRequest{
		VolumeId: s.id(), CapacityRange: &spec.CapacityRange{RequiredBytes: size}, VolumeCapability: s.capability,
	})
	s.must(err)
	if r.GetCapacityBytes() != size || !r.GetNodeExpansionRequired() {
		s.Errorf("the array has %d bytes, node expansion %t", r.GetCapacityBytes(), r.GetNodeExpansionRequired())
	}
	s.volume.CapacityBytes = size
}

func (s *scenario) growNode(n *Node, size int64) (int64, error) {
	ctx, cancel := s.rpc()
	defer cancel()
	r, err := world.plugins[n].NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{
		VolumeId: s.id(), VolumePath: s.target(), StagingTargetPath: s.staging(),
		CapacityRange: &spec.CapacityRange{RequiredBytes: size}, VolumeCapability: s.capability,
	})
	return r.GetCapacityBytes(), err
}

func (s *scenario) wantGrown(n *Node, size int64) {
	s.Helper()
	got, err := s.growNode(n, size)
	s.must(err)
	if got != size {
		s.Errorf("the node has %d bytes, want %d", got, size)
	}
	s.wantSpace(n, size)
}

// wantSpace checks how large a pod sees the volume.
func (s *scenario) wantSpace(n *Node, size int64) {
	s.Helper()
	stats, err := world.plugins[n].NodeGetVolumeStats(s.ctx, &spec.NodeGetVolumeStatsRequest{VolumeId: s.id(), VolumePath: s.target()})
	s.must(err)
	// A filesystem keeps some of its device for itself.
	if total := stats.GetUsage()[0].GetTotal(); total < size*8/10 || total > size {
		s.Errorf("a pod sees %d bytes of %d", total, size)
	}
}

// adopt puts a disk on the array as the other plugin made it.
func (s *scenario) adopt(slot, nqn, file string, size int64) {
	s.Helper()
	s.must(s.bed.adopt(s.ctx, s.array, slot, nqn, file, size))
}
