package csi_test

import (
	"fmt"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

func fromSnapshot(id string) *spec.VolumeContentSource {
	return &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Snapshot{Snapshot: &spec.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func fromVolume(id string) *spec.VolumeContentSource {
	return &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Volume{Volume: &spec.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

// beside is a plugin on a simulated array of a kind of pool.
type beside struct {
	*env
	*testing.T
	server *routeros.Server
}

func onPools(t *testing.T, test func(t *testing.T, b beside)) {
	t.Helper()
	for _, fs := range []string{"btrfs", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			server, array := simulateOn(t, fs)
			test(t, beside{serve(t, map[string]rds.Array{"main": array}, []string{"main"}, nil), t, server})
		})
	}
}

// snapshot takes one, and waits until it is ready, as csi-snapshotter does.
func (b beside) snapshot(name, volume string) *spec.Snapshot {
	b.Helper()
	for {
		r, err := b.CreateSnapshot(b.Context(), &spec.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
		if err != nil {
			b.Fatal(err)
		}
		if r.GetSnapshot().GetReadyToUse() {
			return r.GetSnapshot()
		}
		if err := b.server.WaitIdle(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// make asks for a volume until it is there, as csi-provisioner does.
func (b beside) make(name string, from *spec.VolumeContentSource, size *spec.CapacityRange) (*spec.Volume, error) {
	b.Helper()
	for range 3 {
		r, err := b.CreateVolume(b.Context(), &spec.CreateVolumeRequest{
			Name: name, VolumeCapabilities: []*spec.VolumeCapability{rwxBlock}, VolumeContentSource: from, CapacityRange: size,
		})
		if err == nil || codeOf(err) != codes.Aborted {
			return r.GetVolume(), err
		}
		if err := b.server.WaitIdle(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.Fatalf("volume %s is still under way", name)
	return nil, nil
}

func (b beside) mustMake(name string, from *spec.VolumeContentSource, size *spec.CapacityRange) *spec.Volume {
	b.Helper()
	v, err := b.make(name, from, size)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// write gives a volume's data an identity that a copy keeps.
func (b beside) write(v *spec.Volume, content string) {
	b.Helper()
	disk, _ := b.server.Disk(v.GetVolumeId())
	if err := b.server.SetContent(disk.File, content); err != nil {
		b.Fatal(err)
	}
}

func (b beside) wantContent(v *spec.Volume, want string) {
	b.Helper()
	disk, _ := b.server.Disk(v.GetVolumeId())
	if file, ok := b.server.File(disk.File); !ok || file.Content != want {
		b.Errorf("volume %s holds %q, want %q", v.GetVolumeId(), file.Content, want)
	}
}

func TestSnapshotAndRestore(t *testing.T) {
	onPools(t, func(t *testing.T, b beside) {
		source := b.create(t, "source", rwxBlock)
		b.write(source, "monday")
		snap := b.snapshot("snapshot-1", source.GetVolumeId())
		if snap.GetSourceVolumeId() != source.GetVolumeId() || snap.GetSizeBytes() != source.GetCapacityBytes() || snap.GetCreationTime().GetSeconds() == 0 {
			t.Errorf("%v", snap)
		}
		b.write(source, "tuesday")
		restored := b.mustMake("restored", fromSnapshot(snap.GetSnapshotId()), nil)
		if restored.GetCapacityBytes() != source.GetCapacityBytes() || restored.GetContentSource().GetSnapshot().GetSnapshotId() != snap.GetSnapshotId() {
			t.Errorf("%v", restored)
		}
		b.wantContent(restored, "monday")
		b.wantContent(source, "tuesday")
		larger := b.mustMake("larger", fromSnapshot(snap.GetSnapshotId()), &spec.CapacityRange{RequiredBytes: 3 * gib})
		if larger.GetCapacityBytes() != 3*gib {
			t.Errorf("%d bytes", larger.GetCapacityBytes())
		}
		b.wantContent(larger, "monday")
		_, err := b.make("smaller", fromSnapshot(snap.GetSnapshotId()), &spec.CapacityRange{RequiredBytes: gib / 2})
		wantCode(t, err, codes.OutOfRange)
		_, err = b.make("bounded", fromSnapshot(snap.GetSnapshotId()), &spec.CapacityRange{LimitBytes: gib / 2})
		wantCode(t, err, codes.OutOfRange)
		// The same name again finds the same volume; with another source it is another's.
		if again := b.mustMake("restored", fromSnapshot(snap.GetSnapshotId()), nil); again.GetVolumeId() != restored.GetVolumeId() {
			t.Errorf("%v", again)
		}
		_, err = b.make("restored", nil, &spec.CapacityRange{RequiredBytes: gib})
		wantCode(t, err, codes.AlreadyExists)
		_, err = b.make("restored", fromVolume(source.GetVolumeId()), nil)
		wantCode(t, err, codes.AlreadyExists)
		// Its size would do, its content does not.
		_, err = b.make("restored", nil, &spec.CapacityRange{RequiredBytes: gib, LimitBytes: 2 * gib})
		wantCode(t, err, codes.AlreadyExists)
		_, err = b.make("source", fromSnapshot(snap.GetSnapshotId()), &spec.CapacityRange{RequiredBytes: gib, LimitBytes: 2 * gib})
		wantCode(t, err, codes.AlreadyExists)
		// A new export for a new volume.
		if one, two := b.mustPublish(t, restored, "node-a", rwxBlock), b.mustPublish(t, source, "node-b", rwxBlock); one["nqn"] == two["nqn"] {
			t.Errorf("both are %s", one["nqn"])
		}
	})
}

// A snapshot depends on nothing, and nothing depends on it.
func TestSnapshotOutlivesItsVolume(t *testing.T) {
	onPools(t, func(t *testing.T, b beside) {
		source := b.create(t, "source", rwxBlock)
		b.write(source, "monday")
		snap := b.snapshot("snapshot-1", source.GetVolumeId())
		b.remove(source)
		if again := b.snapshot("snapshot-1", source.GetVolumeId()); again.GetSnapshotId() != snap.GetSnapshotId() {
			t.Errorf("%v", again)
		}
		restored := b.mustMake("restored", fromSnapshot(snap.GetSnapshotId()), nil)
		for range 2 {
			if _, err := b.DeleteSnapshot(t.Context(), &spec.DeleteSnapshotRequest{SnapshotId: snap.GetSnapshotId()}); err != nil {
				t.Fatal(err)
			}
		}
		b.wantContent(restored, "monday")
		_, err := b.make("late", fromSnapshot(snap.GetSnapshotId()), nil)
		wantCode(t, err, codes.NotFound)
		if again := b.mustMake("restored", fromSnapshot(snap.GetSnapshotId()), nil); again.GetVolumeId() != restored.GetVolumeId() {
			t.Errorf("%v", again)
		}
		b.remove(restored)
		for _, f := range b.server.Files() {
			if f.Name != "raid10" && f.Name != "raid10/k8s" {
				t.Errorf("left behind: %s", f.Name)
			}
		}
	})
}

func (b beside) remove(v *spec.Volume) {
	b.Helper()
	if _, err := b.DeleteVolume(b.Context(), &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()}); err != nil {
		b.Fatal(err)
	}
}

func TestClone(t *testing.T) {
	onPools(t, func(t *testing.T, b beside) {
		source := b.create(t, "source", rwxBlock)
		b.write(source, "monday")
		clone := b.mustMake("clone", fromVolume(source.GetVolumeId()), &spec.CapacityRange{RequiredBytes: 2 * gib})
		b.write(source, "tuesday")
		b.wantContent(clone, "monday")
		if clone.GetCapacityBytes() != 2*gib {
			t.Errorf("%d bytes", clone.GetCapacityBytes())
		}
		if n := len(b.list(&spec.ListSnapshotsRequest{})); n != 0 {
			t.Errorf("%d snapshots are left", n)
		}
	})
}

// While a node holds a volume, btrfs keeps what a crash would leave; a copy
// would be torn.
func TestSnapshotOfWhatIsPublished(t *testing.T) {
	onPools(t, func(t *testing.T, b beside) {
		source := b.create(t, "source", rwxBlock)
		b.mustPublish(t, source, "node-a", rwxBlock)
		want := codes.FailedPrecondition
		if b.server.Pools()[0].FS == "btrfs" {
			want = codes.OK
		}
		_, err := b.CreateSnapshot(t.Context(), &spec.CreateSnapshotRequest{Name: "snapshot-1", SourceVolumeId: source.GetVolumeId()})
		wantCode(t, err, want)
		_, err = b.make("clone", fromVolume(source.GetVolumeId()), nil)
		wantCode(t, err, want)
		if err := b.unpublish(t, source.GetVolumeId(), "node-a"); err != nil {
			t.Fatal(err)
		}
		b.snapshot("snapshot-1", source.GetVolumeId())
	})
}

func (b beside) list(r *spec.ListSnapshotsRequest) []*spec.Snapshot {
	b.Helper()
	var all []*spec.Snapshot
	for {
		page, err := b.ListSnapshots(b.Context(), r)
		if err != nil {
			b.Fatal(err)
		}
		for _, entry := range page.GetEntries() {
			all = append(all, entry.GetSnapshot())
		}
		if r.StartingToken = page.GetNextToken(); r.GetStartingToken() == "" {
			return all
		}
	}
}

func TestListSnapshots(t *testing.T) {
	onPools(t, func(t *testing.T, b beside) {
		one, two := b.create(t, "one", rwxBlock), b.create(t, "two", rwxBlock)
		var first *spec.Snapshot
		for i := range 5 {
			first = b.snapshot(fmt.Sprintf("snapshot-%d", i), one.GetVolumeId())
		}
		b.snapshot("snapshot-of-two", two.GetVolumeId())
		for name, tc := range map[string]struct {
			r    *spec.ListSnapshotsRequest
			want int
		}{
			"all":                    {&spec.ListSnapshotsRequest{}, 6},
			"in pages":               {&spec.ListSnapshotsRequest{MaxEntries: 2}, 6},
			"of one volume":          {&spec.ListSnapshotsRequest{SourceVolumeId: one.GetVolumeId(), MaxEntries: 3}, 5},
			"by its other name":      {&spec.ListSnapshotsRequest{SourceVolumeId: one.GetVolumeId() + ".main"}, 5},
			"one":                    {&spec.ListSnapshotsRequest{SnapshotId: first.GetSnapshotId()}, 1},
			"one, of another volume": {&spec.ListSnapshotsRequest{SnapshotId: first.GetSnapshotId(), SourceVolumeId: two.GetVolumeId()}, 0},
			"none":                   {&spec.ListSnapshotsRequest{SnapshotId: rds.SnapshotFor("none")}, 0},
			"no such name":           {&spec.ListSnapshotsRequest{SnapshotId: "$(reboot)"}, 0},
			"no such volume":         {&spec.ListSnapshotsRequest{SourceVolumeId: "a/../b"}, 0},
		} {
			if got := b.list(tc.r); len(got) != tc.want {
				t.Errorf("%s: %d snapshots, want %d", name, len(got), tc.want)
			}
		}
		_, err := b.ListSnapshots(t.Context(), &spec.ListSnapshotsRequest{StartingToken: "5"})
		wantCode(t, err, codes.Aborted)
		_, err = b.ListSnapshots(t.Context(), &spec.ListSnapshotsRequest{MaxEntries: -1})
		wantCode(t, err, codes.InvalidArgument)
		got, err := b.GetSnapshot(t.Context(), &spec.GetSnapshotRequest{SnapshotId: first.GetSnapshotId()})
		if err != nil || got.GetSnapshot().GetSourceVolumeId() != one.GetVolumeId() {
			t.Errorf("%v, %v", got, err)
		}
		_, err = b.GetSnapshot(t.Context(), &spec.GetSnapshotRequest{SnapshotId: rds.SnapshotFor("none")})
		wantCode(t, err, codes.NotFound)
		// Volumes are listed as before: a snapshot is none.
		if n := b.count(t); n != 2 {
			t.Errorf("%d volumes", n)
		}
	})
}

func TestSnapshotRefusals(t *testing.T) {
	west, east := newMemory(), newMemory()
	e := serve(t, map[string]rds.Array{"west": west, "east": east}, []string{"west", "east"}, nil)
	v, other := e.create(t, "v", rwxBlock), e.create(t, "other", rwxBlock)
	snap, err := e.CreateSnapshot(t.Context(), &spec.CreateSnapshotRequest{Name: "snapshot-1", SourceVolumeId: v.GetVolumeId()})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		r    *spec.CreateSnapshotRequest
		want codes.Code
	}{
		"no name":            {&spec.CreateSnapshotRequest{SourceVolumeId: v.GetVolumeId()}, codes.InvalidArgument},
		"bad name":           {&spec.CreateSnapshotRequest{Name: `a";/system/reset`, SourceVolumeId: v.GetVolumeId()}, codes.InvalidArgument},
		"no source":          {&spec.CreateSnapshotRequest{Name: "a"}, codes.InvalidArgument},
		"unknown source":     {&spec.CreateSnapshotRequest{Name: "a", SourceVolumeId: "pvc-a"}, codes.NotFound},
		"unknown parameter":  {&spec.CreateSnapshotRequest{Name: "a", SourceVolumeId: v.GetVolumeId(), Parameters: map[string]string{"a": "b"}}, codes.InvalidArgument},
		"the sidecar's":      {&spec.CreateSnapshotRequest{Name: "snapshot-2", SourceVolumeId: v.GetVolumeId(), Parameters: map[string]string{"csi.storage.k8s.io/volumesnapshot/name": "b"}}, codes.OK},
		"of another volume":  {&spec.CreateSnapshotRequest{Name: "snapshot-1", SourceVolumeId: other.GetVolumeId()}, codes.AlreadyExists},
		"of the same volume": {&spec.CreateSnapshotRequest{Name: "snapshot-1", SourceVolumeId: v.GetVolumeId()}, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.CreateSnapshot(t.Context(), tc.r)
			wantCode(t, err, tc.want)
		})
	}
	for _, from := range []*spec.VolumeContentSource{fromSnapshot(snap.GetSnapshot().GetSnapshotId()), fromVolume(v.GetVolumeId())} {
		_, err = e.CreateVolume(t.Context(), &spec.CreateVolumeRequest{
			Name: "elsewhere", VolumeCapabilities: []*spec.VolumeCapability{rwxBlock}, VolumeContentSource: from, Parameters: map[string]string{"array": "east"},
		})
		wantCode(t, err, codes.InvalidArgument)
	}
	_, err = e.DeleteSnapshot(t.Context(), &spec.DeleteSnapshotRequest{})
	wantCode(t, err, codes.InvalidArgument)
	_, err = e.DeleteSnapshot(t.Context(), &spec.DeleteSnapshotRequest{SnapshotId: v.GetVolumeId()})
	wantCode(t, err, codes.OK) // no snapshot is called that, and nothing was deleted
	if n := e.count(t); n != 2 {
		t.Errorf("%d volumes", n)
	}
}

// A copy needs to know that nobody writes. Where no ledger tells, it is rebuilt
// from the cluster, as for a deletion.
func TestSnapshotOfAnotherPluginsVolume(t *testing.T) {
	f := simulated(t)
	e := serve(t, map[string]rds.Array{"main": f.array}, []string{"main"}, nil)
	const old = "pvc-3fd2c1a4-5b6e-4f70-8a91-b2c3d4e5f607"
	f.put(t, rds.Volume{Slot: "pvc-old", Size: gib, Path: "/raid10/k8s/" + old + ".img", Port: 4420, NQN: "nqn.2000-02.com.mikrotik:" + old})
	request := &spec.CreateSnapshotRequest{Name: "snapshot-1", SourceVolumeId: "pvc-old"}
	e.cluster.attach("pvc-old", "node-a")
	_, err := e.CreateSnapshot(t.Context(), request)
	wantCode(t, err, codes.FailedPrecondition)
	e.cluster.attach("pvc-old")
	if err := e.unpublish(t, "pvc-old", "node-a"); err != nil {
		t.Fatal(err)
	}
	_, err = e.CreateSnapshot(t.Context(), request)
	wantCode(t, err, codes.OK)
}
