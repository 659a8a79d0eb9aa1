package handler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// sync takes a VMI one step further and tells when to look again; 0 is "when
// it changes".
func (h *Handlers) sync(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance) (time.Duration, error) {
	if vmi.IsFinal() {
		h.exitAll(vmi)
		return 0, nil
	}
	n := h.node(vmi.Status.NodeName)
	if n == nil {
		return 0, nil
	}
	switch {
	case h.crashed(vmi):
		return 0, h.endVM(ctx, n, vmi, kubevirtv1.Failed)
	case vmi.DeletionTimestamp != nil && (vmi.IsRunning() || vmi.IsScheduled()):
		return 0, h.endVM(ctx, n, vmi, kubevirtv1.Succeeded)
	case vmi.IsScheduled():
		return h.bootVM(ctx, n, vmi)
	case !vmi.IsRunning():
		return 0, nil
	}
	again, acted, err := h.syncMigration(ctx, vmi)
	if acted || err != nil {
		return again, err
	}
	return again, h.write(ctx, n, vmi, setVolumes)
}

// write updates a VMI as virt-handler does: the whole object, from its cache,
// so that a conflict means that another look is needed. A dead node's handler
// (nil) writes nothing.
func (h *Handlers) write(ctx context.Context, n *node, vmi *kubevirtv1.VirtualMachineInstance, change func(*kubevirtv1.VirtualMachineInstance)) error {
	if n == nil {
		return nil
	}
	changed := vmi.DeepCopy()
	change(changed)
	if equality.Semantic.DeepEqual(vmi, changed) {
		return nil
	}
	return n.client.Update(ctx, changed)
}

func (h *Handlers) crashed(vmi *kubevirtv1.VirtualMachineInstance) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.crashes[vmi.UID]
}

// bootVM starts a VM once its time to boot is over.
func (h *Handlers) bootVM(ctx context.Context, n *node, vmi *kubevirtv1.VirtualMachineInstance) (time.Duration, error) {
	h.mu.Lock()
	since, known := h.booting[vmi.UID]
	if !known {
		since = time.Now()
		h.booting[vmi.UID] = since
	}
	wait := time.Until(since.Add(h.boot))
	h.mu.Unlock()
	if wait > 0 {
		return wait, nil
	}
	return 0, h.write(ctx, n, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
		setPhase(vmi, kubevirtv1.Running)
		vmi.Status.MigrationMethod = kubevirtv1.LiveMigration
		vmi.Status.SelinuxContext = "none"
		setCondition(vmi, kubevirtv1.VirtualMachineInstanceIsMigratable, corev1.ConditionTrue)
		setCondition(vmi, kubevirtv1.VirtualMachineInstanceIsStorageLiveMigratable, corev1.ConditionTrue)
		setVolumes(vmi)
	})
}

// endVM ends the VM; its launchers follow when the VMI is seen to be final.
func (h *Handlers) endVM(ctx context.Context, n *node, vmi *kubevirtv1.VirtualMachineInstance, phase kubevirtv1.VirtualMachineInstancePhase) error {
	return h.write(ctx, n, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) { setPhase(vmi, phase) })
}

// exitAll ends all launchers of a VM that is no more; in the middle of a
// migration there are two.
func (h *Handlers) exitAll(vmi *kubevirtv1.VirtualMachineInstance) {
	h.mu.Lock()
	nodes := slices.Collect(maps.Values(h.nodes))
	h.mu.Unlock()
	for _, n := range nodes {
		exitLaunchers(n, vmi, "", vmi.Status.Phase == kubevirtv1.Failed)
	}
}

// exitLaunchers ends the VMI's launchers on a node, or the one of that name.
func exitLaunchers(n *node, vmi *kubevirtv1.VirtualMachineInstance, name string, failed bool) {
	if n == nil {
		return
	}
	for _, pod := range n.kubelet.Pods() {
		if pod.Labels[kubevirtv1.CreatedByLabel] == string(vmi.UID) && pod.Labels[kubevirtv1.AppLabel] == "virt-launcher" &&
			(name == "" || name == pod.Name) {
			n.kubelet.Exit(pod.UID, failed)
		}
	}
}

func setPhase(vmi *kubevirtv1.VirtualMachineInstance, phase kubevirtv1.VirtualMachineInstancePhase) {
	vmi.Status.Phase = phase
	vmi.Status.PhaseTransitionTimestamps = append(vmi.Status.PhaseTransitionTimestamps,
		kubevirtv1.VirtualMachineInstancePhaseTransitionTimestamp{Phase: phase, PhaseTransitionTimestamp: metav1.Now()})
}

func setCondition(vmi *kubevirtv1.VirtualMachineInstance, kind kubevirtv1.VirtualMachineInstanceConditionType, status corev1.ConditionStatus) {
	for i := range vmi.Status.Conditions {
		if vmi.Status.Conditions[i].Type == kind {
			vmi.Status.Conditions[i].Status = status
			return
		}
	}
	vmi.Status.Conditions = append(vmi.Status.Conditions, kubevirtv1.VirtualMachineInstanceCondition{Type: kind, Status: status})
}

// setVolumes reports the disks that the VM has: hotplugged ones once they are
// attached to the node, until they are unplugged.
func setVolumes(vmi *kubevirtv1.VirtualMachineInstance) {
	for i := range vmi.Status.VolumeStatus {
		v := &vmi.Status.VolumeStatus[i]
		if v.HotplugVolume == nil {
			v.Target = fmt.Sprintf("vd%c", 'a'+i%26)
			continue
		}
		wanted := slices.ContainsFunc(vmi.Spec.Volumes, func(s kubevirtv1.Volume) bool { return s.Name == v.Name })
		switch {
		case wanted && (v.Phase == kubevirtv1.HotplugVolumeAttachedToNode || v.Phase == kubevirtv1.HotplugVolumeMounted):
			v.Phase, v.Reason = kubevirtv1.VolumeReady, "VolumeReady"
			v.Message = "Successfully attach hotplugged volume " + v.Name + " to VM"
			v.Target = fmt.Sprintf("sd%c", 'a'+i%26)
		case !wanted && (v.Phase == kubevirtv1.VolumeReady || v.Phase == kubevirtv1.HotplugVolumeDetaching):
			v.Phase, v.Reason = kubevirtv1.HotplugVolumeUnMounted, "VolumeUnMountedFromPod"
			v.Message = "Volume " + v.Name + " has been unmounted from virt-launcher pod"
			v.Target = ""
		}
	}
}

// key of an object, for the maps.
func key(vmi *kubevirtv1.VirtualMachineInstance) client.ObjectKey {
	return client.ObjectKeyFromObject(vmi)
}
