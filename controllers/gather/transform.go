package gather

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// Slim is the cache's transform of every kind: it drops what is large and read by
// nobody here. With a thousand VMs that is most of the operator's memory.
func Slim(o any) (any, error) {
	if object, err := meta.Accessor(o); err == nil {
		object.SetManagedFields(nil)
	}
	switch o := o.(type) {
	case *kubevirtv1.VirtualMachineInstance:
		slimInstance(o)
	case *corev1.Pod:
		slimPod(o)
	case *corev1.Node:
		// Each volume attached to the node is listed twice, each image once.
		o.Status.VolumesAttached, o.Status.VolumesInUse, o.Status.Images = nil, nil, nil
	}
	return o, nil
}

func slimInstance(vmi *kubevirtv1.VirtualMachineInstance) {
	domain := &vmi.Spec.Domain
	domain.Devices = kubevirtv1.Devices{}
	domain.CPU, domain.Machine, domain.Firmware, domain.Features, domain.Clock, domain.Chassis = nil, nil, nil, nil, nil, nil
	vmi.Spec.Affinity, vmi.Spec.Tolerations, vmi.Spec.TopologySpreadConstraints, vmi.Spec.Networks = nil, nil, nil, nil
	vmi.Status.Interfaces, vmi.Status.PhaseTransitionTimestamps = nil, nil
	vmi.Status.GuestOSInfo = kubevirtv1.VirtualMachineInstanceGuestOSInfo{}
}

// slimPod leaves of a pod what is read of it. All of a cluster's pods are watched,
// because any of them may use a volume of ours.
func slimPod(pod *corev1.Pod) {
	var volumes []corev1.Volume
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			volumes = append(volumes, v)
		}
	}
	pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName, Volumes: volumes}
	pod.Status = corev1.PodStatus{Phase: pod.Status.Phase}
	name, ofMigration := pod.Annotations[kubevirtv1.MigrationJobNameAnnotation]
	pod.Annotations = nil
	switch {
	case instanceOf(pod) == "":
		pod.Labels = nil
	case ofMigration:
		pod.Annotations = map[string]string{kubevirtv1.MigrationJobNameAnnotation: name}
	}
}
