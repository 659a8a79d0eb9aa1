package node

import (
	"context"
	"errors"
	"flag"
	"io"
	"maps"
	"net/netip"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

func TestReadTarget(t *testing.T) {
	const nqn = "nqn.2000-02.com.mikrotik:" + slot
	at := func(addresses ...string) []nvme.Portal {
		var portals []nvme.Portal
		for _, a := range addresses {
			portals = append(portals, nvme.Portal{Address: netip.MustParseAddr(a), Port: "4420"})
		}
		return portals
	}
	type contexts = map[string]string
	for name, c := range map[string]struct {
		publish, volume contexts
		want            nvme.Target
		code            codes.Code
	}{
		"what the controller says": {
			publish: contexts{"nqn": nqn + ".g2", "nvmeAddresses": "192.0.2.1,192.0.2.2", "nvmePort": "4420", "generation": "2", "sizeBytes": "1024"},
			volume:  contexts{"nvmeAddress": "192.0.2.9", "nvmeAddresses": "192.0.2.9", "nvmePort": "1", "accessMode": "ReadWriteOnce"},
			want:    nvme.Target{NQN: nqn + ".g2", NSID: 1, Size: 1024, Portals: at("192.0.2.1", "192.0.2.2"), Queues: 4, CtrlLoss: 1800},
		},
		"another plugin's volume": {
			volume: contexts{"rdsAddress": "192.0.2.7", "nvmeAddress": "192.0.2.1", "nvmePort": "4420", "nqn": nqn, "volumePath": "/pool/x.img"},
			want:   nvme.Target{NQN: nqn, NSID: 1, Portals: at("192.0.2.1"), Queues: 4, CtrlLoss: 1800},
		},
		"another plugin's, one address, no port": {
			volume: contexts{"rdsAddress": "192.0.2.7", "nqn": nqn},
			want:   nvme.Target{NQN: nqn, NSID: 1, Portals: at("192.0.2.7"), Queues: 4, CtrlLoss: 1800},
		},
		"connection": {
			publish: contexts{"nqn": nqn, "nvmeAddresses": "fd00::1"},
			volume:  contexts{"ctrlLossTmo": "-1", "reconnectDelay": "2", "keepAliveTmo": "7", "nrIOQueues": "1", "nsid": "3"},
			want:    nvme.Target{NQN: nqn, NSID: 3, Portals: at("fd00::1"), Queues: 1, CtrlLoss: -1, ReconnectDelay: 2, KeepAlive: 7},
		},
		"addresses twice, with blanks": {
			publish: contexts{"nqn": nqn, "nvmeAddresses": " 192.0.2.1, 192.0.2.1,, ::ffff:192.0.2.1"},
			want:    nvme.Target{NQN: nqn, NSID: 1, Portals: at("192.0.2.1"), Queues: 4, CtrlLoss: 1800},
		},
		"a name":            {publish: contexts{"nqn": nqn, "nvmeAddresses": "rds.example.org"}, want: nvme.Target{NQN: nqn, NSID: 1, Portals: at("192.0.2.5"), Queues: 4, CtrlLoss: 1800}},
		"an unknown name":   {publish: contexts{"nqn": nqn, "nvmeAddresses": "unknown.example.org"}, code: codes.Unavailable},
		"no NQN":            {publish: contexts{"nvmeAddresses": "192.0.2.1"}, code: codes.InvalidArgument},
		"another's NQN":     {publish: contexts{"nqn": "nqn.2000-02.com.mikrotik:boot", "nvmeAddresses": "192.0.2.1"}, code: codes.InvalidArgument},
		"an option for NQN": {publish: contexts{"nqn": nqn + " --hostnqn=x:" + slot, "nvmeAddresses": "192.0.2.1"}, code: codes.InvalidArgument},
		"no address":        {publish: contexts{"nqn": nqn}, code: codes.InvalidArgument},
		"too many":          {publish: contexts{"nqn": nqn, "nvmeAddresses": "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5,10.0.0.6,10.0.0.7,10.0.0.8,10.0.0.9"}, code: codes.InvalidArgument},
		"an option":         {publish: contexts{"nqn": nqn, "nvmeAddresses": "--config=/etc/passwd"}, code: codes.InvalidArgument},
		"no such port":      {publish: contexts{"nqn": nqn, "nvmeAddresses": "192.0.2.1", "nvmePort": "65536"}, code: codes.InvalidArgument},
		"port 0":            {publish: contexts{"nqn": nqn, "nvmeAddresses": "192.0.2.1", "nvmePort": "0"}, code: codes.InvalidArgument},
		"size":              {publish: contexts{"nqn": nqn, "nvmeAddresses": "192.0.2.1", "sizeBytes": "1G"}, code: codes.InvalidArgument},
		"ctrl-loss":         {publish: contexts{"nqn": nqn, "nvmeAddresses": "192.0.2.1", "ctrlLossTmo": "-2"}, code: codes.InvalidArgument},
		"queues":            {publish: contexts{"nqn": nqn, "nvmeAddresses": "192.0.2.1", "nrIOQueues": "0"}, code: codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.config.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
				if host != "rds.example.org" {
					return nil, nil
				}
				return []netip.Addr{netip.MustParseAddr("fd00::5"), netip.MustParseAddr("192.0.2.5")}, nil
			}
			got, err := b.readTarget(t.Context(), volume{handle: slot, slot: slot}, c.publish, c.volume)
			if status.Code(fail(err, "test")) != c.code {
				t.Fatalf("got %v, want code %s", err, c.code)
			}
			if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err == nil && diff != "" {
				t.Error("(-want +got):\n" + diff)
			}
		})
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	block := &spec.VolumeCapability{AccessType: &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}, AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER}}
	mount := func(mode spec.VolumeCapability_AccessMode_Mode, fstype string, flags ...string) *spec.VolumeCapability {
		return &spec.VolumeCapability{AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{FsType: fstype, MountFlags: flags}}, AccessMode: &spec.VolumeCapability_AccessMode{Mode: mode}}
	}
	single := spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	b := newBench(t)
	for name, r := range map[string]*spec.NodeStageVolumeRequest{
		"no volume":          {StagingTargetPath: "/s", VolumeCapability: block},
		"a path as a volume": {VolumeId: "../../etc", StagingTargetPath: "/s", VolumeCapability: block},
		"no path":            {VolumeId: slot, VolumeCapability: block},
		"a relative path":    {VolumeId: slot, StagingTargetPath: "s", VolumeCapability: block},
		"the root":           {VolumeId: slot, StagingTargetPath: "/s/..", VolumeCapability: block},
		"no capability":      {VolumeId: slot, StagingTargetPath: "/s"},
		"no access type":     {VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: &spec.VolumeCapability{AccessMode: block.GetAccessMode()}},
		"no access mode":     {VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: mount(0, "")},
		"shared filesystem":  {VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: mount(spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, "")},
		"many readers":       {VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: mount(spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY, "")},
		"filesystem":         {VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: mount(single, "btrfs")},
		"filesystem, a path": {VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: mount(single, "../ext4")},
		"bind":               {VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: mount(single, "", "bind")},
		"remount":            {VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: mount(single, "", "remount")},
		"loop":               {VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: mount(single, "", "loop=/dev/loop0")},
		"two options in one": {VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: mount(single, "", "noatime,bind")},
	} {
		r.PublishContext = b.contexts
		if _, err := b.NodeStageVolume(t.Context(), r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if len(b.log) != 0 {
		t.Errorf("ran %q", b.log)
	}
}

func TestOtherRequestsThatMakeNoSense(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	errs := map[string]error{}
	_, errs["unstage, no volume"] = b.NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{StagingTargetPath: "/s"})
	_, errs["unstage, no path"] = b.NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{VolumeId: slot})
	_, errs["publish, no volume"] = b.NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{StagingTargetPath: "/s", TargetPath: "/t", VolumeCapability: b.capability(), PublishContext: b.contexts})
	_, errs["publish, no target"] = b.NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{VolumeId: slot, StagingTargetPath: "/s", VolumeCapability: b.capability(), PublishContext: b.contexts})
	_, errs["publish, no capability"] = b.NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{VolumeId: slot, StagingTargetPath: "/s", TargetPath: "/t", PublishContext: b.contexts})
	_, errs["unpublish, no volume"] = b.NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{TargetPath: "/t"})
	_, errs["unpublish, no target"] = b.NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: slot})
	_, errs["stats, no volume"] = b.NodeGetVolumeStats(ctx, &spec.NodeGetVolumeStatsRequest{VolumePath: "/t"})
	_, errs["stats, no path"] = b.NodeGetVolumeStats(ctx, &spec.NodeGetVolumeStatsRequest{VolumeId: slot})
	_, errs["expand, no volume"] = b.NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{VolumePath: "/t"})
	_, errs["expand, no path"] = b.NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{VolumeId: slot})
	_, errs["expand, less than nothing"] = b.NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{VolumeId: slot, VolumePath: "/t", CapacityRange: &spec.CapacityRange{RequiredBytes: -1}})
	_, errs["health, no volume"] = b.NodeGetVolumeHealth(ctx, &spec.NodeGetVolumeHealthRequest{})
	for name, err := range errs {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := b.NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{VolumeId: slot, TargetPath: "/t", VolumeCapability: b.capability(), PublishContext: b.contexts})
	b.want(codes.FailedPrecondition, err)
	b.want(codes.FailedPrecondition, b.publish("a", false))
	_, err = b.NodeGetVolumeHealth(ctx, &spec.NodeGetVolumeHealthRequest{VolumeId: slot})
	b.want(codes.NotFound, err)
	_, err = b.NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{VolumeId: slot, VolumePath: "/t"})
	b.want(codes.NotFound, err)
	b.ok(b.unpublish("never"), b.unstage())
}

func TestInfo(t *testing.T) {
	b := newBench(t)
	info, err := b.NodeGetInfo(t.Context(), nil)
	b.ok(err)
	if info.GetNodeId() != "node-a" || info.GetMaxVolumesPerNode() != 64 || info.GetAccessibleTopology() != nil {
		t.Errorf("got %v", info)
	}
	b.ok(b.config.Options.Topology.Set("topology.kubernetes.io/zone=a,rack=7"))
	info, err = b.NodeGetInfo(t.Context(), nil)
	b.ok(err)
	if want := map[string]string{"topology.kubernetes.io/zone": "a", "rack": "7"}; !maps.Equal(info.GetAccessibleTopology().GetSegments(), want) {
		t.Errorf("got %v", info)
	}
	capabilities, err := b.NodeGetCapabilities(t.Context(), nil)
	b.ok(err)
	if len(capabilities.GetCapabilities()) != 5 {
		t.Errorf("got %v", capabilities)
	}
}

func TestOptions(t *testing.T) {
	parse := func(args ...string) (Options, error) {
		var o Options
		f := flag.NewFlagSet("test", flag.ContinueOnError)
		f.SetOutput(io.Discard)
		o.AddFlags(f)
		err := f.Parse(args)
		return o, errors.Join(err, o.Validate())
	}
	o, err := parse("--node-name=a")
	if err != nil || o.MaxVolumes != 64 || o.Connection.CtrlLoss != 1800 || o.Connection.Queues < 1 || o.Connection.Queues > 4 {
		t.Errorf("by default %+v, %v", o, err)
	}
	for _, wrong := range []string{
		"--node-name=", "--node-name=a b", "--max-volumes-per-node=-1", "--topology=zone", "--topology=a=b,/=x", "--topology==x",
		"--max-parallel-connects=0", "--nr-io-queues=0", "--ctrl-loss-tmo=-2", "--reconnect-delay=-1", "--keep-alive-tmo=-1",
	} {
		name, _, _ := strings.Cut(strings.TrimPrefix(wrong, "--"), "=")
		if _, err := parse("--node-name=a", wrong); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
