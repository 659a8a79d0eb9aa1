package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// hostIP comes from a range for benchmarks that no real host has.
func hostIP(index int) string { return fmt.Sprintf("198.19.%d.%d", index/250, 1+index%250) }

// register creates the Node and the CSINode, as a kubelet does at its start.
func (k *Kubelet) register(ctx context.Context) error {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: k.opts.Name,
			Labels: map[string]string{
				corev1.LabelHostname:   k.opts.Name,
				corev1.LabelOSStable:   "linux",
				corev1.LabelArchStable: "amd64",
			},
			Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
		},
		Spec: corev1.NodeSpec{Taints: k.opts.Taints},
		Status: corev1.NodeStatus{
			Capacity: capacity(), Allocatable: capacity(),
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: hostIP(k.opts.Index)},
				{Type: corev1.NodeHostName, Address: k.opts.Name},
			},
			NodeInfo: corev1.NodeSystemInfo{OperatingSystem: "linux", Architecture: "amd64", KubeletVersion: "v0.0.0-lab"},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
				LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
			}},
		},
	}
	maps.Copy(node.Labels, k.opts.Labels)
	if err := k.opts.Client.Create(ctx, node); err != nil {
		return fmt.Errorf("registering node %s: %w", k.opts.Name, err)
	}
	csi := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{
		Name:            k.opts.Name,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
	}}
	for _, driver := range k.opts.Drivers {
		csi.Spec.Drivers = append(csi.Spec.Drivers, storagev1.CSINodeDriver{Name: driver, NodeID: k.opts.Name})
	}
	return k.opts.Client.Create(ctx, csi)
}

func capacity() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("1000"),
		corev1.ResourceMemory: resource.MustParse("4Ti"),
		corev1.ResourcePods:   resource.MustParse("1000"),
	}
}

// publishInUse writes the node's volumesInUse if it has changed; the
// attach/detach controller detaches nothing that is in it.
func (k *Kubelet) publishInUse(ctx context.Context) error {
	inUse := []corev1.UniqueVolumeName{} // not nil: the patch must clear
	for _, state := range k.states {
		if state.held {
			inUse = append(inUse, state.volumes...)
		}
	}
	slices.Sort(inUse)
	inUse = slices.Compact(inUse)
	if slices.Equal(inUse, k.inUse) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"volumesInUse": inUse}})
	if err != nil {
		return err
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.opts.Name}}
	if err := k.opts.Client.Status().Patch(ctx, node, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return err
	}
	k.inUse = inUse
	return nil
}
