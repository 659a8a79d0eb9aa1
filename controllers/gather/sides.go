package gather

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

// launchers finds the source's and the target's launcher pods; nil where gone.
// The label kubevirt.io/nodeName is first the source's even on the target pod, so
// it is not used.
func (in *Instance) launchers(known *Known) (source, target *corev1.Pod) {
	m := known.Migration
	sourceName, sourceNode := known.Source.Pod, known.Source.Node
	if state := dualattach.StateOf(m, in.VMI); state != nil {
		sourceName, sourceNode = cmp.Or(state.SourcePod, sourceName), cmp.Or(state.SourceNode, sourceNode)
	}
	if sourceNode == "" && in.VMI != nil {
		sourceNode = in.VMI.Status.NodeName
	}
	for i := range in.pods {
		pod := &in.pods[i]
		switch {
		case pod.Labels[kubevirtv1.MigrationJobLabel] == string(m.UID):
			target = pod
		case sourceName != "" && pod.Name == sourceName:
			source = pod
		case sourceName == "" && sourceNode != "" && pod.Spec.NodeName == sourceNode && !pod.CreationTimestamp.After(m.CreationTimestamp.Time):
			if source == nil || source.CreationTimestamp.Before(&pod.CreationTimestamp) {
				source = pod
			}
		}
	}
	return source, target
}

// sides updates what is known of both ends. What was known stays where nothing
// newer is seen.
func (in *Instance) sides(known *Known, source, target *corev1.Pod) {
	state := dualattach.StateOf(known.Migration, in.VMI)
	switch {
	case state != nil && state.SourceNode != "":
		known.Source.Node = state.SourceNode
	case known.Source.Node == "" && in.VMI != nil:
		known.Source.Node = in.VMI.Status.NodeName
	}
	if state != nil && state.TargetNode != "" && target == nil {
		known.Target.Node = state.TargetNode
	}
	recordPod(&known.Source, source)
	recordPod(&known.Target, target)
}

func recordPod(side *dualattach.Side, pod *corev1.Pod) {
	if pod == nil {
		return
	}
	side.Pod, side.PodCreated = pod.Name, pod.CreationTimestamp.Time
	if pod.Spec.NodeName != "" {
		side.Node = pod.Spec.NodeName
	}
}

// own notes whose the migration is: the VMI's that its target's pod was made for, else
// that of the first one seen.
func (in *Instance) own(known *Known, target *corev1.Pod) {
	switch {
	case target != nil:
		known.InstanceUID = controllerUID(target)
	case known.InstanceUID == "" && in.VMI != nil:
		known.InstanceUID = in.VMI.UID
	}
}

// successorTarget is the target node of a newer migration of the VMI, or empty.
func (in *Instance) successorTarget(m *kubevirtv1.VirtualMachineInstanceMigration) string {
	node := ""
	for _, other := range in.Migrations {
		if other.UID == m.UID || olderFirst(other, m) < 0 {
			continue
		}
		if target := in.targetNode(other); target != "" {
			node = target
		}
	}
	return node
}

func (in *Instance) targetNode(m *kubevirtv1.VirtualMachineInstanceMigration) string {
	for i := range in.pods {
		if in.pods[i].Labels[kubevirtv1.MigrationJobLabel] == string(m.UID) && in.pods[i].Spec.NodeName != "" {
			return in.pods[i].Spec.NodeName
		}
	}
	if state := dualattach.StateOf(m, in.VMI); state != nil {
		return state.TargetNode
	}
	return ""
}

// Lost is a migration whose ending nobody saw and whose VMIM is gone, nil where there
// is none; lastRun is when an operator ran last. Its name is on the target's pod.
func (in *Instance) Lost(lastRun time.Time) *kubevirtv1.VirtualMachineInstanceMigration {
	if in.VMI == nil || in.VMI.Status.MigrationState == nil {
		return nil
	}
	var began time.Time
	name := "(deleted)"
	for i := range in.pods {
		if pod := &in.pods[i]; pod.Labels[kubevirtv1.MigrationJobLabel] == string(in.VMI.Status.MigrationState.MigrationUID) {
			began, name = pod.CreationTimestamp.Time, cmp.Or(pod.Annotations[kubevirtv1.MigrationJobNameAnnotation], name)
		}
	}
	m := dualattach.Lost(in.VMI, in.Migrations, began, lastRun)
	if m != nil {
		m.Name = name
	}
	return m
}
