package migration

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

// TestPredicates: what an object must show for a new look, and what is noise.
func TestPredicates(t *testing.T) {
	ready := func(status corev1.ConditionStatus) *corev1.Node {
		return &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}}}
	}
	vmi := func(change func(*kubevirtv1.VirtualMachineInstance)) *kubevirtv1.VirtualMachineInstance {
		v := &kubevirtv1.VirtualMachineInstance{}
		change(v)
		return v
	}
	annotated := func(name string) *kubevirtv1.VirtualMachineInstance {
		return vmi(func(v *kubevirtv1.VirtualMachineInstance) { v.Annotations = map[string]string{name: "10m"} })
	}
	cases := map[string]struct {
		changed func(event.UpdateEvent) bool
		after   client.Object
		want    bool
	}{
		"VMI: resync":         {instanceChanged, vmi(func(*kubevirtv1.VirtualMachineInstance) {}), false},
		"VMI: phase":          {instanceChanged, vmi(func(v *kubevirtv1.VirtualMachineInstance) { v.Status.Phase = kubevirtv1.Failed }), true},
		"VMI: node":           {instanceChanged, vmi(func(v *kubevirtv1.VirtualMachineInstance) { v.Status.NodeName = "b" }), true},
		"VMI: our annotation": {instanceChanged, annotated(dualattach.TimeoutAnnotation), true},
		"VMI: another one":    {instanceChanged, annotated("note"), false},
		"VMI: volumes to migrate": {instanceChanged, vmi(func(v *kubevirtv1.VirtualMachineInstance) {
			v.Status.MigratedVolumes = []kubevirtv1.StorageMigratedVolumeInfo{{VolumeName: "disk"}}
		}), true},
		"VMI: migration state": {instanceChanged, vmi(func(v *kubevirtv1.VirtualMachineInstance) {
			v.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{}
		}), true},
		"VMI: guest agent":     {instanceChanged, vmi(func(v *kubevirtv1.VirtualMachineInstance) { v.Status.GuestOSInfo.Name = "x" }), false},
		"pod: phase":           {podChanged, &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning}}, true},
		"pod: scheduled":       {podChanged, &corev1.Pod{Spec: corev1.PodSpec{NodeName: "b"}}, true},
		"pod: address":         {podChanged, &corev1.Pod{Status: corev1.PodStatus{PodIP: "::1"}}, false},
		"attachment: attached": {attachmentChanged, &storagev1.VolumeAttachment{Status: storagev1.VolumeAttachmentStatus{Attached: true}}, true},
		"attachment: error":    {attachmentChanged, &storagev1.VolumeAttachment{Status: storagev1.VolumeAttachmentStatus{AttachError: &storagev1.VolumeError{}}}, true},
		"attachment: resync":   {attachmentChanged, &storagev1.VolumeAttachment{}, false},
		"node: Ready":          {readinessChanged, ready(corev1.ConditionTrue), true},
		"node: heartbeat":      {readinessChanged, ready(corev1.ConditionUnknown), false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var before client.Object
			switch tc.after.(type) {
			case *kubevirtv1.VirtualMachineInstance:
				before = &kubevirtv1.VirtualMachineInstance{}
			case *corev1.Pod:
				before = &corev1.Pod{}
			case *storagev1.VolumeAttachment:
				before = &storagev1.VolumeAttachment{}
			default:
				before = &corev1.Node{}
			}
			if got := tc.changed(event.UpdateEvent{ObjectOld: before, ObjectNew: tc.after}); got != tc.want {
				t.Errorf("worth a look: %t, want %t", got, tc.want)
			}
		})
	}
}
