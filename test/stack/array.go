package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

const (
	// ArrayName is what the configuration and the metrics call the array.
	ArrayName = "rds"

	poolName = "raid10"
	poolSize = 4 << 40
	basePath = poolName + "/k8s"

	// The array's users: the plugin's, and the operator's, who may only read.
	csiUser   = "csi"
	watchUser = "watch"
)

// policies are what a user may do.
var policies = map[string][]string{
	csiUser:   {"ssh", "read", "write", "test"},
	watchUser: {"ssh", "read"},
}

// openArray starts an array of users with keys of their own, and gives their private
// keys by name, as files and Secrets have them.
func openArray(names ...string) (*routeros.Server, map[string][]byte, error) {
	options := routeros.Options{HostKeyType: routeros.Ed25519}
	keys := map[string][]byte{}
	for _, name := range names {
		key, err := routeros.NewKeyPEM(routeros.Ed25519)
		if err != nil {
			return nil, nil, err
		}
		signer, err := ssh.ParsePrivateKey(key)
		if err != nil {
			return nil, nil, err
		}
		keys[name] = key
		options.Users = append(options.Users, routeros.User{Name: name, Keys: []ssh.PublicKey{signer.PublicKey()}, Policies: policies[name]})
	}
	array, err := routeros.New(options)
	if err != nil {
		return nil, nil, err
	}
	return array, keys, errors.Join(
		array.AddPool(routeros.Pool{Name: poolName, FS: "xfs", Size: poolSize}),
		array.AddDirectory(basePath),
		array.Start("127.0.0.1:0"),
	)
}

// startArray runs the array in this process, so that tests can break it, and writes
// the files by which the product finds it.
func (s *Stack) startArray() error {
	var keys map[string][]byte
	var err error
	if s.Array, keys, err = openArray(csiUser, watchUser); err != nil {
		return err
	}
	for user, key := range keys {
		if err := s.writeArraysFile(user, key); err != nil {
			return err
		}
	}
	return nil
}

// arraysFile is the configuration of one user of the array.
func (s *Stack) arraysFile(user string) string { return filepath.Join(s.Dir, "arrays-"+user+".yaml") }

func (s *Stack) writeArraysFile(user string, key []byte) error {
	keyFile := filepath.Join(s.Dir, user+"-key")
	text := fmt.Sprintf(`arrays:
  - name: %s
    address: %s
    user: %s
    keyFile: %s
    hostKey: %q
    basePath: %s
    nvmeAddresses: [127.0.0.1]
`, ArrayName, s.Array.Addr(), user, keyFile, s.Array.HostKeyLine(), basePath)
	return errors.Join(os.WriteFile(keyFile, key, 0o600), os.WriteFile(s.arraysFile(user), []byte(text), 0o600))
}

// Comment is what stands in the comment of a volume's disk.
func (s *Stack) Comment(slot string) string {
	disk, _ := s.Array.Disk(slot)
	return disk.Comment
}
