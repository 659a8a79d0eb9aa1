package stack

import (
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// MustStartSimulator runs an array by itself, until the test ends, for an RDSDriver to
// name: its user is csi, its base path raid10/k8s on 4 TiB of XFS. key is the user's, as
// a Secret has it.
func MustStartSimulator(t testing.TB) (array *routeros.Server, key []byte) {
	t.Helper()
	array, keys, err := openArray(csiUser)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = array.Close() })
	return array, keys[csiUser]
}
