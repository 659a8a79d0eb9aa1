package kube

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// nodeIDAnnotation is where csi-attacher keeps the node id of an attachment; it
// outlives the node's CSINode.
const nodeIDAnnotation = "csi.alpha.kubernetes.io/node-id"

// liveReadTimeout bounds one read of the API.
const liveReadTimeout = 15 * time.Second

// Cluster is a live Kubernetes cluster as one CSI driver sees it.
type Cluster struct {
	client  kubernetes.Interface
	driver  string
	nodeKey func(string) string
	volumes cache.SharedIndexInformer // PersistentVolumes
	nodes   cache.SharedIndexInformer // CSINodes
	list    fresh[[]storagev1.VolumeAttachment]

	mu         sync.Mutex
	namespaces map[string]*fresh[contents] // by name, of those that were asked about
}

// New makes a Cluster that watches nothing yet. nodeKey shortens a node id to
// what ledgers hold (rds.NodeKey).
func New(client kubernetes.Interface, driver string, nodeKey func(string) string) (*Cluster, error) {
	c := &Cluster{client: client, driver: driver, nodeKey: nodeKey, namespaces: map[string]*fresh[contents]{}}
	c.list.load = c.listAttachments
	c.volumes = newInformer(&corev1.PersistentVolume{}, watchOf(client.CoreV1().PersistentVolumes()))
	c.nodes = newInformer(&storagev1.CSINode{}, watchOf(client.StorageV1().CSINodes()))
	if err := c.volumes.SetTransform(stripVolume(driver)); err != nil {
		return nil, err
	}
	if err := c.nodes.SetTransform(stripNode(driver)); err != nil {
		return nil, err
	}
	if err := c.volumes.AddIndexers(cache.Indexers{byHandle: volumeHandles}); err != nil {
		return nil, err
	}
	return c, c.nodes.AddIndexers(cache.Indexers{byNodeID: nodeIDs, byNodeKey: c.nodeKeys})
}

// Run watches until the context ends.
func (c *Cluster) Run(ctx context.Context) {
	go c.volumes.RunWithContext(ctx)
	c.nodes.RunWithContext(ctx)
}

// Synced reports whether both watches have seen everything there was.
func (c *Cluster) Synced() bool { return c.volumes.HasSynced() && c.nodes.HasSynced() }

// AttachedNodes reads live which nodes have an attachment of one of the handles
// that says attached, and which others have one. Callers that ask at the same time share
// one list, which always begins after each of them has asked.
func (c *Cluster) AttachedNodes(ctx context.Context, handles ...string) (attached, others []string, err error) {
	list, err := c.list.get(ctx)
	if err != nil {
		return nil, nil, err
	}
	for i := range list {
		va := &list[i]
		if va.Spec.Attacher != c.driver {
			continue
		}
		ours, err := c.isOf(ctx, va, handles)
		if err != nil {
			return nil, nil, err
		}
		nodes := &others
		if va.Status.Attached {
			nodes = &attached
		}
		if node := c.nodeIDOf(va); ours && !slices.Contains(*nodes, node) {
			*nodes = append(*nodes, node)
		}
	}
	slices.Sort(attached)
	slices.Sort(others)
	return attached, others, nil
}

func (c *Cluster) listAttachments(ctx context.Context) ([]storagev1.VolumeAttachment, error) {
	// No resource version: what the API server has committed, not what it cached.
	list, err := c.client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list VolumeAttachments: %w", err)
	}
	return list.Items, nil
}

// isOf reports whether an attachment is of one of the handles: its name says so (the
// attach/detach controller derives it), or its volume does.
func (c *Cluster) isOf(ctx context.Context, va *storagev1.VolumeAttachment, handles []string) (bool, error) {
	for _, handle := range handles {
		if va.Name == attachmentName(handle, c.driver, va.Spec.NodeName) {
			return true, nil
		}
	}
	source := va.Spec.Source
	switch {
	case source.InlineVolumeSpec != nil:
		return c.isVolume(source.InlineVolumeSpec, handles), nil
	case source.PersistentVolumeName == nil:
		return false, nil
	}
	had, err := c.volume(ctx, *source.PersistentVolumeName)
	if err != nil || had == nil {
		// A volume that is gone for good cannot be attached under another name
		// than the derived one by Kubernetes itself.
		return false, err
	}
	return c.isVolume(&had.Spec, handles), nil
}

func (c *Cluster) isVolume(pv *corev1.PersistentVolumeSpec, handles []string) bool {
	return pv.CSI != nil && pv.CSI.Driver == c.driver && slices.Contains(handles, pv.CSI.VolumeHandle)
}

// volume finds a PersistentVolume, live if the watch has not seen it; nil if
// there is none.
func (c *Cluster) volume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	if had, found, err := c.volumes.GetStore().GetByKey(name); err == nil && found {
		return had.(*corev1.PersistentVolume), nil
	}
	ctx, cancel := context.WithTimeout(ctx, liveReadTimeout)
	defer cancel()
	pv, err := c.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get PersistentVolume %s: %w", name, err)
	}
	return pv, nil
}

// nodeIDOf is the id under which the driver knows an attachment's node.
func (c *Cluster) nodeIDOf(va *storagev1.VolumeAttachment) string {
	if id := va.Annotations[nodeIDAnnotation]; id != "" {
		return id
	}
	if had, found, err := c.nodes.GetStore().GetByKey(va.Spec.NodeName); err == nil && found {
		for _, driver := range had.(*storagev1.CSINode).Spec.Drivers {
			return driver.NodeID
		}
	}
	return va.Spec.NodeName
}

// NodeExists reports whether a CSINode registers the driver under the node id.
func (c *Cluster) NodeExists(ctx context.Context, nodeID string) (bool, error) {
	if had, err := c.nodes.GetIndexer().ByIndex(byNodeID, nodeID); err == nil && len(had) > 0 {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, liveReadTimeout)
	defer cancel()
	list, err := c.client.StorageV1().CSINodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list CSINodes: %w", err)
	}
	for i := range list.Items {
		for _, driver := range list.Items[i].Spec.Drivers {
			if driver.Name == c.driver && driver.NodeID == nodeID {
				return true, nil
			}
		}
	}
	return false, nil
}

// SingleNodePV names a PersistentVolume of the handles without ReadWriteMany. It
// reads live only where the watch knows no PersistentVolume of them at all.
func (c *Cluster) SingleNodePV(ctx context.Context, handles ...string) (string, error) {
	known := false
	for _, handle := range handles {
		had, err := c.volumes.GetIndexer().ByIndex(byHandle, handle)
		if err != nil {
			return "", err
		}
		for _, object := range had {
			known = true
			if pv := object.(*corev1.PersistentVolume); !allowsMany(pv) {
				return pv.Name, nil
			}
		}
	}
	if known {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, liveReadTimeout)
	defer cancel()
	list, err := c.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list PersistentVolumes: %w", err)
	}
	for i := range list.Items {
		pv := &list.Items[i]
		if c.isVolume(&pv.Spec, handles) && !allowsMany(pv) {
			return pv.Name, nil
		}
	}
	return "", nil
}

func allowsMany(pv *corev1.PersistentVolume) bool {
	return slices.Contains(pv.Spec.AccessModes, corev1.ReadWriteMany)
}

// NodeIDs turns the node keys of ledgers into node ids.
func (c *Cluster) NodeIDs(keys []string) []string {
	ids := make([]string, 0, len(keys))
	for _, key := range keys {
		id := key
		if had, err := c.nodes.GetIndexer().ByIndex(byNodeKey, key); err == nil && len(had) == 1 {
			id = had[0].(*storagev1.CSINode).Spec.Drivers[0].NodeID
		}
		ids = append(ids, id)
	}
	return ids
}

// attachmentName is how Kubernetes names the attachment of a volume to a node.
func attachmentName(handle, driver, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}
