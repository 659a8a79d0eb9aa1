package csi_test

import (
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// foreignSlot is a volume of another plugin: a slot of 40 characters, an NQN of
// its own, exported from creation on, no ledger.
const foreignSlot = "pvc-0b6f7a52-9d1e-4c3b-8f27-6a5d4e3c2b1a"

func foreignVolume() rds.Volume {
	return rds.Volume{
		ID: "*7", Slot: foreignSlot, Size: 10 * gib, Path: "/raid10/k8s/" + foreignSlot + ".img",
		NQN: "nqn.2000-02.com.mikrotik:" + foreignSlot, Port: 4420, Exported: true,
	}
}

// The gravest thing that could happen: a running VM's disk disappears because
// the record of who holds it was lost in the middle of a migration.
func TestExportStaysOnWhenTheLedgerIsErased(t *testing.T) {
	for name, comment := range map[string]string{
		"erased":       "",
		"overwritten":  "do not delete, Bob",
		"damaged":      "rds1 gX node-a=12",
		"says nobody":  "rds1 g1",
		"of version 2": "rds2 g1 node-a=1760000000",
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e *env, f fixture) {
				v := e.create(t, pvName, rwxBlock)
				slot := v.GetVolumeId()
				e.mustPublish(t, v, "node-a", rwxBlock)
				e.mustPublish(t, v, "node-b", rwxBlock)
				e.cluster.attach(slot, "node-a", "node-b")
				f.setComment(t, slot, comment)
				// The source leaves, and its attachment goes after that.
				if err := e.unpublish(t, slot, "node-a"); err != nil {
					t.Fatal(err)
				}
				e.cluster.attach(slot, "node-b")
				if !f.volume(t, slot).Exported {
					t.Fatal("the target's disk is gone")
				}
				before := f.volume(t, slot).NQN
				if again := e.mustPublish(t, v, "node-b", rwxBlock); again["nqn"] != before {
					t.Fatalf("NQN changed from %s to %s below a running VM", before, again["nqn"])
				}
				if diff := cmp.Diff([]string{"node-b"}, e.holders(t, slot)); diff != "" {
					t.Error("holders (-want +got):\n" + diff)
				}
				// Once it is rebuilt it is as good as any.
				e.cluster.attach(slot)
				if err := e.unpublish(t, slot, "node-b"); err != nil {
					t.Fatal(err)
				}
				if f.volume(t, slot).Exported {
					t.Error("exported to nobody")
				}
			})
		})
	}
}

func TestForeignVolume(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, f fixture) {
		f.put(t, foreignVolume())
		v := &spec.Volume{VolumeId: foreignSlot, VolumeContext: map[string]string{"nqn": foreignVolume().NQN, "nvmeAddress": "10.0.0.1"}}
		// It was attached to node-a by the other plugin; now it migrates to node-b.
		e.cluster.attach(foreignSlot, "node-a")
		got := e.mustPublish(t, v, "node-b", rwxBlock)
		if got["nqn"] != foreignVolume().NQN {
			t.Errorf("their NQN was rotated to %s", got["nqn"])
		}
		if diff := cmp.Diff([]string{"node-a", "node-b"}, e.holders(t, foreignSlot)); diff != "" {
			t.Error("holders (-want +got):\n" + diff)
		}
		_, err := e.publish(t, v, "node-c", rwxBlock)
		wantCode(t, err, codes.FailedPrecondition)
		e.cluster.attach(foreignSlot, "node-a", "node-b")
		f.setComment(t, foreignSlot, "")
		if err := e.unpublish(t, foreignSlot, "node-a"); err != nil {
			t.Fatal(err)
		}
		if !f.volume(t, foreignSlot).Exported {
			t.Fatal("the target's disk is gone")
		}
	})
}

// Without a ledger a single-node request must not slip in next to who is attached.
func TestForeignVolumeKeepsItsOneNode(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, f fixture) {
		f.put(t, foreignVolume())
		v := &spec.Volume{VolumeId: foreignSlot}
		e.cluster.attach(foreignSlot, "node-a")
		_, err := e.publish(t, v, "node-b", rwoBlock)
		wantCode(t, err, codes.FailedPrecondition)
		// The node that has it repairs its publication.
		e.mustPublish(t, v, "node-a", rwoBlock)
		if diff := cmp.Diff([]string{"node-a"}, e.holders(t, foreignSlot)); diff != "" {
			t.Error("holders (-want +got):\n" + diff)
		}
	})
}

func TestForeignVolumeIsDeletedWhenNobodyIsAttached(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, f fixture) {
		f.put(t, foreignVolume())
		e.cluster.attach(foreignSlot, "node-a")
		request := &spec.DeleteVolumeRequest{VolumeId: foreignSlot}
		_, err := e.DeleteVolume(t.Context(), request)
		wantCode(t, err, codes.FailedPrecondition)
		if !f.volume(t, foreignSlot).Exported {
			t.Fatal("the export of an attached disk is off")
		}
		e.cluster.attach(foreignSlot)
		if _, err := e.DeleteVolume(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		if n := e.count(t); n != 0 {
			t.Errorf("%d volumes left", n)
		}
	})
}

// A node name that would make the ledger unreadable must never reach it.
func TestAttachmentOfAnUnspeakableNode(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, f fixture) {
		f.put(t, foreignVolume())
		e.cluster.attach(foreignSlot, "node a=1")
		_, err := e.publish(t, &spec.Volume{VolumeId: foreignSlot}, "node-b", rwxBlock)
		wantCode(t, err, codes.FailedPrecondition)
		if got := f.volume(t, foreignSlot).Comment; got != "" {
			t.Errorf("comment %q", got)
		}
	})
}

// A handle may name the default array: a PV from when another one was the default.
func TestAttachmentsUnderTheOtherSpelling(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, f fixture) {
		v := e.create(t, pvName, rwxBlock)
		long := v.GetVolumeId() + ".main"
		e.mustPublish(t, v, "node-a", rwxBlock)
		e.cluster.attach(long, "node-a", "node-b")
		if err := e.unpublish(t, long, "node-a"); err != nil {
			t.Fatal(err)
		}
		if !f.volume(t, v.GetVolumeId()).Exported {
			t.Error("node-b's disk is gone")
		}
	})
}

// Names of nodes that are too long for a ledger come back whole: csi-attacher
// compares them.
func TestLongNodeNamesAreReportedWhole(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, _ fixture) {
		long := strings.Repeat("worker", 15) + ".example"
		e.cluster.nodes = append(e.cluster.nodes, long)
		v := e.create(t, pvName, rwxBlock)
		e.mustPublish(t, v, long, rwxBlock)
		r, err := e.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{long}, r.GetEntries()[0].GetStatus().GetPublishedNodeIds()); diff != "" {
			t.Error("published nodes (-want +got):\n" + diff)
		}
		if err := e.unpublish(t, v.GetVolumeId(), long); err != nil {
			t.Fatal(err)
		}
		if got := e.holders(t, v.GetVolumeId()); len(got) > 0 {
			t.Errorf("held by %v", got)
		}
	})
}
