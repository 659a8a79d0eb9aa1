package dataplane

import (
	"context"
	"strings"
	"testing"
	"time"

	csisanity "github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"google.golang.org/grpc"

	"git.srvlab.io/whiskey/rds-csi-operator/test/sanity"
)

// TestSanity is csi-sanity against the plugin whole: the controller on the array's
// console, and the Node service in a guest, with real connections and mounts.
func TestSanity(t *testing.T) {
	s := alone(t, 0)
	config := sanity.NewConfig("unix://"+s.controller.Socket, "passthrough:///"+s.a.Name, 64*mib)
	config.DialOptions = append(config.DialOptions, grpc.WithContextDialer(s.a.dialPlugin))
	folders := guestFolders{s.a}
	config.StagingPath, config.TargetPath = "/var/lib/kubelet/sanity/staging", "/var/lib/kubelet/sanity/pods"
	config.CreateStagingDir, config.CreateTargetDir = folders.create, folders.create
	config.RemoveStagingPath, config.RemoveTargetPath = folders.remove, folders.remove
	config.CheckPath = folders.check
	sanity.Run(t, map[string]*csisanity.TestConfig{"over NVMe/TCP": config}, sanity.NotOffered(), map[string]string{
		"NodeGetStorageHealth": "health is that of volumes; a node has no storage of its own here",
	})
}

// guestFolders are those that csi-sanity, in kubelet's place, makes on a node.
type guestFolders struct{ node *Node }

const folderTimeout = 30 * time.Second

func (f guestFolders) shell(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), folderTimeout)
	defer cancel()
	return f.node.Shell(ctx, script)
}

func (f guestFolders) create(at string) (string, error) {
	_, err := f.shell("mkdir -p " + at)
	return at, err
}

// remove fails if something was left in the folder.
func (f guestFolders) remove(at string) error {
	_, err := f.shell("rmdir " + at)
	return err
}

func (f guestFolders) check(at string) (csisanity.PathKind, error) {
	out, err := f.shell("if [ -d " + at + " ]; then echo directory; elif [ -e " + at + " ]; then echo file; fi")
	switch strings.TrimSpace(out) {
	case "directory":
		return csisanity.PathIsDir, err
	case "file":
		return csisanity.PathIsFile, err
	}
	return csisanity.PathIsNotFound, err
}
