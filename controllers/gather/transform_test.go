package gather

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// TestSlim: what is decided by stays, what is large goes.
func TestSlim(t *testing.T) {
	vmi := &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}}}}
	memory := resource.MustParse("1Gi")
	vmi.Spec.Domain.Memory = &kubevirtv1.Memory{Guest: &memory}
	vmi.Spec.Domain.Devices.Disks = []kubevirtv1.Disk{{Name: "disk"}}
	vmi.Status.Conditions = []kubevirtv1.VirtualMachineInstanceCondition{{Type: "Ready"}}
	vmi.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{}
	if _, err := Slim(vmi); err != nil {
		t.Fatal(err)
	}
	if vmi.Annotations["a"] == "" || vmi.Spec.Domain.Memory == nil || len(vmi.Status.Conditions) != 1 || vmi.Status.MigrationState == nil {
		t.Errorf("something is missing: %+v", vmi)
	}
	if vmi.ManagedFields != nil || vmi.Spec.Domain.Devices.Disks != nil {
		t.Errorf("something is left: %+v", vmi)
	}

	node := &corev1.Node{}
	node.Status.VolumesInUse = []corev1.UniqueVolumeName{"v"}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if _, err := Slim(node); err != nil || node.Status.VolumesInUse != nil || !NodeReady(node) {
		t.Errorf("node %+v, %v", node.Status, err)
	}

	pod := target(launcher("new", b, 1, "disk"), "uid-web-1")
	pod.Annotations = map[string]string{kubevirtv1.MigrationJobNameAnnotation: "web-1", "a": "b"}
	if _, err := Slim(pod); err != nil || len(pod.Annotations) != 1 || pod.Annotations[kubevirtv1.MigrationJobNameAnnotation] != "web-1" {
		t.Errorf("annotations of a launcher pod: %v, %v", pod.Annotations, err)
	}
	alone := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{kubevirtv1.MigrationJobNameAnnotation: "web-1"}}}
	if _, err := Slim(alone); err != nil || alone.Annotations != nil || alone.Labels != nil {
		t.Errorf("of another pod: %v, %v, %v", alone.Annotations, alone.Labels, err)
	}
	if o, err := Slim(cache.DeletedFinalStateUnknown{Key: "x"}); err != nil || o == nil {
		t.Errorf("a tombstone: %v, %v", o, err)
	}
}
