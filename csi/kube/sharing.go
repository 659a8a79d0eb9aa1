package kube

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// hotplugPrefix begins the names of the pods by which KubeVirt attaches hotplugged
// disks; a launcher pod owns them.
const hotplugPrefix = "hp-volume-"

// sharing is what decides whether a second node may join a volume.
type sharing struct {
	node, holder string // who asks, and who holds the volume
	// The pods on either node that use the volume and have not ended.
	here, there []*corev1.Pod
	// Everything in the claims' namespaces, by UID.
	pods       map[types.UID]*corev1.Pod
	migrations map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration
	unserved   bool // the cluster knows no migrations at all
}

// instance is one life of a virtual machine.
type instance struct {
	namespace, name string
	uid             types.UID
}

// decide returns nil if the node runs the target of a live migration that is under
// way and nobody but that migration's virtual machine uses the volume on either node.
// A refusal wraps rds.ErrInUse.
func (s *sharing) decide() error {
	if len(s.there) == 0 {
		return fmt.Errorf("%w: node %s is still releasing it (its pod is gone); node %s gets it as soon as that is done. "+
			"If it never is, see whether kubelet and the node plugin run on node %s and what its VolumeAttachment says", rds.ErrInUse, s.holder, s.node, s.holder)
	}
	if s.unserved {
		return s.refuse(s.there[0], "this cluster serves no VirtualMachineInstanceMigration, so no second node is ever let in")
	}
	vm, why := s.target()
	if vm == nil {
		return s.refuse(s.there[0], why)
	}
	for _, pod := range s.there {
		if of, _ := s.instanceOf(pod); of == nil || *of != *vm {
			return s.refuse(pod, fmt.Sprintf("which is not a pod of the migrating VirtualMachineInstance %s/%s", vm.namespace, vm.name))
		}
	}
	for _, pod := range s.here {
		if of, _ := s.instanceOf(pod); of == nil || *of != *vm {
			return s.refuse(s.there[0], fmt.Sprintf("and pod %s on node %s, which is not of the migrating VirtualMachineInstance %s/%s, would get it, too",
				podName(pod), s.node, vm.namespace, vm.name))
		}
	}
	return nil
}

func (s *sharing) refuse(pod *corev1.Pod, why string) error {
	state := ""
	if pod.DeletionTimestamp != nil {
		state = " (being deleted)"
	}
	return fmt.Errorf("%w by pod %s on node %s%s: %s. A second node joins for the live migration of the virtual machine that uses the volume only "+
		"(StorageClass parameter dualAttach); else wait until that pod has ended, or delete it", rds.ErrInUse, podName(pod), s.holder, state, why)
}

// target is the virtual machine that is migrating to the node, or nil and why none is.
func (s *sharing) target() (*instance, string) {
	if len(s.here) == 0 {
		return nil, fmt.Sprintf("no pod on node %s uses it", s.node)
	}
	reasons := make([]string, 0, len(s.here))
	for _, pod := range s.here {
		vm, why := s.targetOf(pod)
		if vm != nil {
			return vm, ""
		}
		reasons = append(reasons, fmt.Sprintf("pod %s on node %s %s", podName(pod), s.node, why))
	}
	return nil, strings.Join(reasons, ", ")
}

// targetOf is the virtual machine that a pod is the target of. The pod's label only
// says which migration to look at.
func (s *sharing) targetOf(pod *corev1.Pod) (*instance, string) {
	vm, launcher := s.instanceOf(pod)
	if vm == nil {
		return nil, "is no virtual machine's"
	}
	uid := launcher.Labels[kubevirtv1.MigrationJobLabel]
	if uid == "" {
		return nil, "is not the target of a live migration"
	}
	m := s.migrations[types.UID(uid)]
	switch {
	case m == nil || m.Namespace != vm.namespace:
		return nil, "names a VirtualMachineInstanceMigration that does not exist"
	case m.IsFinal():
		return nil, fmt.Sprintf("is the target of VirtualMachineInstanceMigration %s, which has ended (%s)", m.Name, m.Status.Phase)
	case m.Spec.VMIName != vm.name:
		return nil, fmt.Sprintf("names VirtualMachineInstanceMigration %s, which is of another virtual machine (%s)", m.Name, m.Spec.VMIName)
	case pod.DeletionTimestamp != nil || launcher.DeletionTimestamp != nil || ended(launcher):
		return nil, "is being deleted"
	}
	return vm, ""
}

// instanceOf is the virtual machine whose launcher pod, or whose launcher's hotplug
// pod, a pod is, and that launcher; nil if it is neither.
func (s *sharing) instanceOf(pod *corev1.Pod) (*instance, *corev1.Pod) {
	launcher, owner := pod, metav1.GetControllerOf(pod)
	if owner != nil && owner.Kind == "Pod" && strings.HasPrefix(pod.Name, hotplugPrefix) {
		launcher = s.pods[owner.UID]
		if launcher == nil || launcher.Namespace != pod.Namespace || launcher.Spec.NodeName != pod.Spec.NodeName {
			return nil, nil
		}
		owner = metav1.GetControllerOf(launcher)
	}
	kind := kubevirtv1.VirtualMachineInstanceGroupVersionKind
	if owner == nil || owner.Kind != kind.Kind || !strings.HasPrefix(owner.APIVersion, kind.Group+"/") {
		return nil, nil
	}
	return &instance{launcher.Namespace, owner.Name, owner.UID}, launcher
}

// uses reports whether a pod uses one of the claims.
func uses(pod *corev1.Pod, claims map[types.NamespacedName]bool) bool {
	for i := range pod.Spec.Volumes {
		volume, name := &pod.Spec.Volumes[i], ""
		switch {
		case volume.PersistentVolumeClaim != nil:
			name = volume.PersistentVolumeClaim.ClaimName
		case volume.Ephemeral != nil:
			name = pod.Name + "-" + volume.Name
		}
		if name != "" && claims[types.NamespacedName{Namespace: pod.Namespace, Name: name}] {
			return true
		}
	}
	return false
}

// ended reports whether none of a pod's containers runs again: Kubernetes detaches
// the volumes of such a pod.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func podName(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }
