package csi_test

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	client "git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// simulate starts a simulated array and a client of it.
func simulate(t *testing.T) (*routeros.Server, *client.Array) {
	t.Helper()
	server, err := routeros.New(routeros.Options{HostKeyType: routeros.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := server.AddPool(routeros.Pool{Name: "raid10", Size: 10 << 40}); err != nil {
		t.Fatal(err)
	}
	if err := server.AddDirectory("raid10/k8s"); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(""); err != nil {
		t.Fatal(err)
	}
	array, err := client.New(client.Config{
		Name: "main", Address: server.Addr(), User: "admin", KeyFile: writeKey(t),
		HostKey:  client.HostKeys{ssh.FingerprintSHA256(server.HostKey())},
		BasePath: "raid10/k8s", NVMeAddresses: []string{"10.0.0.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = array.Close() })
	return server, array
}

func writeKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "test")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
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
