package unexplained

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

// ConditionInstance is the condition type on the VMI, CamelCase as KubeVirt's own
// there: two nodes hold a volume of it and no migration explains that.
const ConditionInstance kubevirtv1.VirtualMachineInstanceConditionType = "StorageDualAttachUnexplained"

// DecideInstance tells what the VMI is to say of its volumes together, nil where it
// says that already or has nothing to say. found is what stands about those that its
// live pods use, in the words of the events. A VMI that never had to say it bears no such
// condition; on one that did it is resolved when none stands any more, be it that it
// ended while no operator ran. An annotation that stands in for the condition never says
// enough: it is to be replaced or taken away.
func DecideInstance(vmi *kubevirtv1.VirtualMachineInstance, found []string) *dualattach.InstanceCondition {
	if vmi == nil || vmi.IsFinal() {
		return nil
	}
	_, noted := vmi.Annotations[dualattach.UnexplainedAnnotation]
	told := slices.ContainsFunc(vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
		return c.Type == ConditionInstance && c.Status == corev1.ConditionTrue
	})
	switch {
	case told == (len(found) > 0) && !noted:
		return nil
	case len(found) == 0:
		return &dualattach.InstanceCondition{Status: corev1.ConditionFalse, Reason: dualattach.ReasonResolved,
			Message: "RDS volumes of the VM: no two nodes hold one of them without a migration any more"}
	default:
		slices.Sort(found)
		return &dualattach.InstanceCondition{Status: corev1.ConditionTrue, Reason: EventDualAttach, Message: strings.Join(found, "; ")}
	}
}
