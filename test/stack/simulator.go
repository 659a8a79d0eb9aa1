package stack

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"testing"

	"golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// MustStartSimulator runs an array by itself, until the test ends, for an RDSDriver to
// name: its user is csi, its base path raid10/k8s on 4 TiB of XFS. key is the user's, as
// a Secret has it.
func MustStartSimulator(t testing.TB) (array *routeros.Server, key []byte) {
	t.Helper()
	array, key, err := startSimulator()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = array.Close() })
	return array, key
}

func startSimulator() (*routeros.Server, []byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "csi")
	if err != nil {
		return nil, nil, err
	}
	array, err := routeros.New(routeros.Options{HostKeyType: routeros.Ed25519, Users: []routeros.User{
		{Name: "csi", Keys: []ssh.PublicKey{signer.PublicKey()}, Policies: []string{"ssh", "read", "write", "test"}},
	}})
	if err != nil {
		return nil, nil, err
	}
	err = errors.Join(array.AddPool(routeros.Pool{Name: "raid10", FS: "xfs", Size: 4 << 40}), array.AddDirectory("raid10/k8s"), array.Start("127.0.0.1:0"))
	return array, pem.EncodeToMemory(block), err
}
