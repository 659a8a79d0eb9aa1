package csi

import (
	"context"
	"errors"
	"fmt"
)

// Cluster is what the Controller service asks Kubernetes. An error always means
// that the cluster could not be asked, never that the answer is no.
type Cluster interface {
	// AttachedNodes lists the node ids with a VolumeAttachment that says
	// attached, deleting or not, of a volume by any spelling of its handle, and the
	// others with one, which does not say so yet or any more. It reads live:
	// attachments decide whether an export may go off.
	AttachedNodes(ctx context.Context, handles ...string) (attached, others []string, err error)
	// NodeExists reports whether a CSINode registers this driver under the node
	// id. It answers no only after a live read.
	NodeExists(ctx context.Context, nodeID string) (bool, error)
	// SingleNodePV names a PersistentVolume of the volume that does not allow
	// ReadWriteMany, or returns "".
	SingleNodePV(ctx context.Context, handles ...string) (string, error)
	// NodeIDs turns the node keys of ledgers into node ids. Keys of nodes that it
	// does not know are returned as they are.
	NodeIDs(keys []string) []string
}

// errCluster: the Kubernetes API could not be asked, so nothing was changed.
var errCluster = errors.New("the Kubernetes API could not be asked")

func clusterError(what string, err error) error {
	return fmt.Errorf("%s: %w, nothing was changed: %w", what, errCluster, err)
}
