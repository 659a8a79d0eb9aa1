package csi_test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	client "git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// simulate starts a simulated array and a client of it.
func simulate(t testing.TB) (*routeros.Server, *client.Array) {
	t.Helper()
	return simulateOn(t, "xfs")
}

func simulateOn(t testing.TB, fs string) (*routeros.Server, *client.Array) {
	t.Helper()
	server, err := routeros.New(routeros.Options{HostKeyType: routeros.Ed25519, LogLimit: 200})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := server.AddPool(routeros.Pool{Name: "raid10", FS: fs, Size: 10 << 40}); err != nil {
		t.Fatal(err)
	}
	if err := server.AddDirectory("raid10/k8s"); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(""); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := routeros.WriteKey(key); err != nil {
		t.Fatal(err)
	}
	array, err := client.New(client.Config{
		Name: "main", Address: server.Addr(), User: "admin", KeyFile: key,
		HostKey:  client.HostKeys{ssh.FingerprintSHA256(server.HostKey())},
		BasePath: "raid10/k8s", NVMeAddresses: []string{"10.0.0.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = array.Close() })
	return server, array
}

func simulated(t *testing.T) fixture {
	server, array := simulate(t)
	return fixture{
		array: array,
		put: func(t *testing.T, v rds.Volume) {
			t.Helper()
			_, err := server.AddDisk(map[string]string{
				"type": "file", "slot": v.Slot, "file-path": v.Path, "file-size": strconv.FormatInt(v.Size, 10), "comment": v.Comment,
				"nvme-tcp-export": map[bool]string{true: "yes", false: "no"}[v.Exported], "nvme-tcp-server-port": strconv.Itoa(v.Port), "nvme-tcp-server-nqn": v.NQN,
			})
			if err != nil {
				t.Fatal(err)
			}
		},
		setComment: func(t *testing.T, slot, comment string) {
			t.Helper()
			if _, err := server.Run(t.Context(), fmt.Sprintf(`/disk/comment [find where slot=%q] comment=%q`, slot, comment)); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// What goes wrong on the way to a real array: nothing is lost, nothing is made
// twice, and the same request again succeeds.
func TestFaultsOnTheWayToTheArray(t *testing.T) {
	server, array := simulate(t)
	e := serve(t, map[string]rds.Array{"main": array}, []string{"main"}, nil)
	request := &spec.CreateVolumeRequest{Name: pvName, VolumeCapabilities: []*spec.VolumeCapability{rwxBlock}}
	cut := func(pattern string) {
		t.Helper()
		if _, err := server.Inject(routeros.Fault{Kind: routeros.CutBeforeAnswer, Pattern: pattern}); err != nil {
			t.Fatal(err)
		}
	}
	cut("/disk/add")
	if _, err := e.CreateVolume(t.Context(), request); err != nil {
		wantCode(t, err, codes.Aborted)
	}
	v := e.create(t, pvName, rwxBlock)
	if n := len(server.Disks()); n != 2 { // the pool and the volume
		t.Errorf("%d disks", n)
	}
	cut("/disk/set")
	if _, err := e.publish(t, v, "node-a", rwxBlock); err != nil {
		wantCode(t, err, codes.Aborted)
	}
	first := e.mustPublish(t, v, "node-a", rwxBlock)
	if again := e.mustPublish(t, v, "node-a", rwxBlock); again["nqn"] != first["nqn"] {
		t.Errorf("NQN %s, then %s", first["nqn"], again["nqn"])
	}
	if err := server.Down(); err != nil {
		t.Fatal(err)
	}
	_, err := e.publish(t, v, "node-b", rwxBlock)
	wantCode(t, err, codes.Unavailable)
	_, err = e.publish(t, &spec.Volume{VolumeId: "pvc-unknown"}, "node-b", rwxBlock)
	wantCode(t, err, codes.Unavailable)
	wantCode(t, e.unpublish(t, "pvc-unknown", "node-b"), codes.Unavailable)
	if err := server.Up(); err != nil {
		t.Fatal(err)
	}
	e.mustPublish(t, v, "node-b", rwxBlock)
	if got := e.holders(t, v.GetVolumeId()); len(got) != 2 {
		t.Errorf("holders %v", got)
	}
}

// On a warm view each of these is one round trip, as design has it.
func TestRoundTrips(t *testing.T) {
	_, array := simulate(t)
	e := serve(t, map[string]rds.Array{"main": array}, []string{"main"}, nil)
	v := e.create(t, pvName, rwxBlock) // warms
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"first publish", func() error { _, err := e.publish(t, v, "node-a", rwxBlock); return err }},
		{"second publish", func() error { _, err := e.publish(t, v, "node-b", rwxBlock); return err }},
		{"unpublish", func() error { return e.unpublish(t, v.GetVolumeId(), "node-a") }},
		{"unpublish of the last", func() error { return e.unpublish(t, v.GetVolumeId(), "node-b") }},
	} {
		before := array.RoundTrips()
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if n := array.RoundTrips() - before; n != 1 {
			t.Errorf("%s: %d round trips", step.name, n)
		}
	}
}

// An array that refuses to grow a volume is believed: to csi-resizer that is final, so
// that the user may ask for less.
func TestExpandRefusedByTheArray(t *testing.T) {
	server, array := simulate(t)
	e := serve(t, map[string]rds.Array{"main": array}, []string{"main"}, nil)
	handle := e.create(t, pvName, rwxBlock).GetVolumeId()
	if err := server.SetPoolUsed("raid10", 10<<40-gib-1<<20); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		size int64
		want codes.Code
	}{{2 * gib, codes.OutOfRange}, {gib + 1<<20, codes.OK}} {
		_, err := e.ControllerExpandVolume(t.Context(), &spec.ControllerExpandVolumeRequest{VolumeId: handle, CapacityRange: &spec.CapacityRange{RequiredBytes: step.size}})
		wantCode(t, err, step.want)
	}
}
