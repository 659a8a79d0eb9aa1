package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// Indexes of the watches.
const (
	byHandle  = "handle"
	byNodeID  = "nodeID"
	byNodeKey = "nodeKey"
)

func newInformer(of runtime.Object, source *cache.ListWatch) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(source, of, 0, cache.Indexers{})
}

// resource is a typed client of one kind.
type resource[List runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (List, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func watchOf[List runtime.Object](of resource[List]) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return of.List(ctx, o)
		},
		WatchFuncWithContext: of.Watch,
	}
}

// stripVolume keeps of a PersistentVolume what is used: its name, and of this
// driver's the handle and the access modes.
func stripVolume(driver string) cache.TransformFunc {
	return func(object any) (any, error) {
		pv, ok := object.(*corev1.PersistentVolume)
		if !ok {
			return object, nil
		}
		kept := &corev1.PersistentVolume{ObjectMeta: identity(pv.ObjectMeta)}
		if csi := pv.Spec.CSI; csi != nil && csi.Driver == driver {
			kept.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: csi.VolumeHandle}
			kept.Spec.AccessModes = pv.Spec.AccessModes
		}
		return kept, nil
	}
}

// stripNode keeps of a CSINode its name and this driver's entry.
func stripNode(driver string) cache.TransformFunc {
	return func(object any) (any, error) {
		node, ok := object.(*storagev1.CSINode)
		if !ok {
			return object, nil
		}
		kept := &storagev1.CSINode{ObjectMeta: identity(node.ObjectMeta)}
		for _, d := range node.Spec.Drivers {
			if d.Name == driver {
				kept.Spec.Drivers = []storagev1.CSINodeDriver{{Name: d.Name, NodeID: d.NodeID}}
			}
		}
		return kept, nil
	}
}

func identity(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

func volumeHandles(object any) ([]string, error) {
	pv, ok := object.(*corev1.PersistentVolume)
	if !ok {
		return nil, fmt.Errorf("a %T among PersistentVolumes", object)
	}
	if pv.Spec.CSI == nil {
		return nil, nil
	}
	return []string{pv.Spec.CSI.VolumeHandle}, nil
}

func nodeIDs(object any) ([]string, error) {
	node, ok := object.(*storagev1.CSINode)
	if !ok {
		return nil, fmt.Errorf("a %T among CSINodes", object)
	}
	ids := make([]string, 0, 1)
	for _, d := range node.Spec.Drivers {
		ids = append(ids, d.NodeID)
	}
	return ids, nil
}

func (c *Cluster) nodeKeys(object any) ([]string, error) {
	ids, err := nodeIDs(object)
	for i := range ids {
		ids[i] = c.nodeKey(ids[i])
	}
	return ids, err
}
