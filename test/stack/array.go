package stack

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	gossh "golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

const (
	// ArrayName is what the configuration and the metrics call the array.
	ArrayName = "rds"

	poolName = "raid10"
	poolSize = 4 << 40
	basePath = poolName + "/k8s"
)

// startArray runs the array in this process, so that tests can break it, and
// writes the file by which the product finds it: with the array's host key
// pinned, and a key of its own for each of the two users.
func (s *Stack) startArray() error {
	pluginKey, err := s.userKey("plugin")
	if err != nil {
		return err
	}
	operatorKey, err := s.userKey("operator")
	if err != nil {
		return err
	}
	s.Array, err = routeros.New(routeros.Options{HostKeyType: routeros.Ed25519, Users: []routeros.User{
		{Name: "csi", Keys: []gossh.PublicKey{pluginKey}, Policies: []string{"ssh", "read", "write", "test"}},
		{Name: "watch", Keys: []gossh.PublicKey{operatorKey}, Policies: []string{"ssh", "read"}},
	}})
	if err != nil {
		return err
	}
	if err := s.Array.AddPool(routeros.Pool{Name: poolName, FS: "xfs", Size: poolSize}); err != nil {
		return err
	}
	if err := s.Array.AddDirectory(basePath); err != nil {
		return err
	}
	if err := s.Array.Start("127.0.0.1:0"); err != nil {
		return err
	}
	for _, user := range []string{"csi", "watch"} {
		if err := s.writeArraysFile(user); err != nil {
			return err
		}
	}
	return nil
}

// userKey makes a key pair; its private half is in the lab's folder.
func (s *Stack) userKey(name string) (gossh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := gossh.MarshalPrivateKey(private, name)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.keyFile(name), pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return gossh.NewPublicKey(public)
}

func (s *Stack) keyFile(name string) string { return filepath.Join(s.Dir, name+"-key") }

// arraysFile is the configuration of one user of the array.
func (s *Stack) arraysFile(user string) string { return filepath.Join(s.Dir, "arrays-"+user+".yaml") }

func (s *Stack) writeArraysFile(user string) error {
	key := map[string]string{"csi": "plugin", "watch": "operator"}[user]
	text := fmt.Sprintf(`arrays:
  - name: %s
    address: %s
    user: %s
    keyFile: %s
    hostKey: %q
    basePath: %s
    nvmeAddresses: [127.0.0.1]
`, ArrayName, s.Array.Addr(), user, s.keyFile(key), strings.TrimSpace(string(gossh.MarshalAuthorizedKey(s.Array.HostKey()))), basePath)
	return os.WriteFile(s.arraysFile(user), []byte(text), 0o600)
}

// Comment is what stands in the comment of a volume's disk.
func (s *Stack) Comment(slot string) string {
	disk, _ := s.Array.Disk(slot)
	return disk.Comment
}
