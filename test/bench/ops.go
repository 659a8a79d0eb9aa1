package main

import (
	"context"
	"errors"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

const gib = 1 << 30

// An op is one RPC. The table below is a volume's whole life in order.
type op struct {
	name   string
	do     func(ctx context.Context, server *csi.Server, name string) error
	exempt bool // from the budget
}

var life = []op{
	{name: "CreateVolume", do: func(ctx context.Context, server *csi.Server, name string) error {
		_, err := server.CreateVolume(ctx, &spec.CreateVolumeRequest{
			Name: name, CapacityRange: &spec.CapacityRange{RequiredBytes: gib}, VolumeCapabilities: []*spec.VolumeCapability{shared()},
		})
		return err
	}},
	{name: "ControllerPublishVolume, first node", do: publish("node-a")},
	{name: "ControllerPublishVolume, second node", do: publish("node-b")},
	{name: "ControllerUnpublishVolume, one of two", do: unpublish("node-a")},
	{name: "ControllerUnpublishVolume, the last", do: unpublish("node-b")},
	{name: "ControllerExpandVolume", do: func(ctx context.Context, server *csi.Server, name string) error {
		_, err := server.ControllerExpandVolume(ctx, &spec.ControllerExpandVolumeRequest{
			VolumeId: rds.SlotFor(name), CapacityRange: &spec.CapacityRange{RequiredBytes: 2 * gib}, VolumeCapability: shared(),
		})
		return err
	}},
	{name: "DeleteVolume", exempt: true, do: func(ctx context.Context, server *csi.Server, name string) error {
		_, err := server.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: rds.SlotFor(name)})
		return err
	}},
}

// branch is what snapshots and clones cost, of a volume that is there.
var branch = []op{
	life[0],
	{name: "CreateSnapshot", do: func(ctx context.Context, server *csi.Server, name string) error {
		_, err := server.CreateSnapshot(ctx, &spec.CreateSnapshotRequest{Name: name, SourceVolumeId: rds.SlotFor(name)})
		return err
	}},
	{name: "ListSnapshots", do: func(ctx context.Context, server *csi.Server, _ string) error {
		_, err := server.ListSnapshots(ctx, &spec.ListSnapshotsRequest{})
		return err
	}},
	{name: "CreateVolume, of a snapshot", do: func(ctx context.Context, server *csi.Server, name string) error {
		return from(ctx, server, "restored", &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Snapshot{
			Snapshot: &spec.VolumeContentSource_SnapshotSource{SnapshotId: rds.SnapshotFor(name)},
		}})
	}},
	{name: "CreateVolume, a clone", do: func(ctx context.Context, server *csi.Server, name string) error {
		return from(ctx, server, "clone", &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Volume{
			Volume: &spec.VolumeContentSource_VolumeSource{VolumeId: rds.SlotFor(name)},
		}})
	}},
	{name: "DeleteSnapshot", exempt: true, do: func(ctx context.Context, server *csi.Server, name string) error {
		_, err := server.DeleteSnapshot(ctx, &spec.DeleteSnapshotRequest{SnapshotId: rds.SnapshotFor(name)})
		return err
	}},
}

// from makes a volume of a source, or begins to: a copy goes on by itself.
func from(ctx context.Context, server *csi.Server, name string, source *spec.VolumeContentSource) error {
	_, err := server.CreateVolume(ctx, &spec.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*spec.VolumeCapability{shared()}, VolumeContentSource: source,
	})
	if errors.Is(err, rds.ErrUnderWay) {
		return nil
	}
	return err
}

func publish(node string) func(context.Context, *csi.Server, string) error {
	return func(ctx context.Context, server *csi.Server, name string) error {
		_, err := server.ControllerPublishVolume(ctx, &spec.ControllerPublishVolumeRequest{
			VolumeId: rds.SlotFor(name), NodeId: node, VolumeCapability: shared(),
			// Whether a second node may join is the cluster's to tell; here it may.
			VolumeContext: map[string]string{"dualAttach": "Any"},
		})
		return err
	}
}

func unpublish(node string) func(context.Context, *csi.Server, string) error {
	return func(ctx context.Context, server *csi.Server, name string) error {
		_, err := server.ControllerUnpublishVolume(ctx, &spec.ControllerUnpublishVolumeRequest{VolumeId: rds.SlotFor(name), NodeId: node})
		return err
	}
}

// shared is a block volume that several nodes may hold.
func shared() *spec.VolumeCapability {
	return &spec.VolumeCapability{
		AccessType: &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}},
		AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
	}
}

// newServer is the plugin's controller on one array, in a cluster that never has
// anything to add.
func newServer(array *routeros.Array) (*csi.Server, error) {
	return csi.New(csi.Config{DriverName: csi.DefaultDriverName, Cluster: quietCluster{}, Backends: []csi.Backend{
		{Name: "bench", Array: array, Addresses: []string{"127.0.0.1"}, Port: 4420},
	}})
}

// quietCluster has all nodes and no attachments.
type quietCluster struct{}

func (quietCluster) AttachedNodes(context.Context, ...string) (attached, others []string, err error) {
	return nil, nil, nil
}
func (quietCluster) NodeExists(context.Context, string) (bool, error)        { return true, nil }
func (quietCluster) SingleNodePV(context.Context, ...string) (string, error) { return "", nil }
func (quietCluster) NodeIDs(keys []string) []string                          { return keys }
