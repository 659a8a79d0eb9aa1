package vmicondition

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
)

// Type is a condition that this package can write. The zero Type writes nothing.
type Type int

// The conditions, CamelCase as KubeVirt's own on a VMI.
const (
	// StorageMigrationTimedOut: the storage side of a live migration lasts longer
	// than allowed.
	StorageMigrationTimedOut Type = iota + 1
	// StorageDualAttachUnexplained: two nodes hold a volume of the VMI and no
	// migration explains it.
	StorageDualAttachUnexplained
)

var typeNames = map[Type]kubevirtv1.VirtualMachineInstanceConditionType{
	StorageMigrationTimedOut:     "StorageMigrationTimedOut",
	StorageDualAttachUnexplained: "StorageDualAttachUnexplained",
}

// String is the condition's type on the VMI.
func (t Type) String() string { return string(typeNames[t]) }

// Condition is what a VMI is to say.
type Condition struct {
	Type    Type
	Status  corev1.ConditionStatus
	Reason  string
	Message string
}

// carried finds the condition of a type on a VMI, -1 where there is none.
func carried(vmi *kubevirtv1.VirtualMachineInstance, t Type) int {
	return slices.IndexFunc(vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool { return c.Type == typeNames[t] })
}

// Bears reports whether the VMI has a condition of the type, whatever it says.
func Bears(vmi *kubevirtv1.VirtualMachineInstance, t Type) bool { return carried(vmi, t) >= 0 }

// Carries reports whether the VMI carries the condition, message aside.
func Carries(vmi *kubevirtv1.VirtualMachineInstance, c Condition) bool {
	i := carried(vmi, c.Type)
	return i >= 0 && vmi.Status.Conditions[i].Status == c.Status && vmi.Status.Conditions[i].Reason == c.Reason
}

// patch is the JSON patch that makes a VMI carry the condition. It is guarded by
// the VMI's resource version and, where an element is replaced, by its type.
func patch(vmi *kubevirtv1.VirtualMachineInstance, c Condition, now time.Time) ([]byte, error) {
	name, ok := typeNames[c.Type]
	if !ok {
		return nil, fmt.Errorf("condition type %d is none of ours", c.Type)
	}
	// KubeVirt compares its list textually, as its own types serialise it: both
	// times present, in whole seconds or null.
	element := kubevirtv1.VirtualMachineInstanceCondition{
		Type: name, Status: c.Status, LastTransitionTime: metav1.Time{Time: now}, Reason: c.Reason, Message: c.Message,
	}
	ops := []jsonpatch.Operation{jsonpatch.Version(vmi.ResourceVersion)}
	i := carried(vmi, c.Type)
	switch {
	case len(vmi.Status.Conditions) == 0:
		// KubeVirt sets conditions as soon as a VMI runs; before that nothing of
		// ours can be the matter.
		return nil, fmt.Errorf("VMI %s/%s has no conditions yet", vmi.Namespace, vmi.Name)
	case i < 0:
		ops = append(ops, jsonpatch.Add("/status/conditions/-", element))
	default:
		if old := vmi.Status.Conditions[i]; old.Status == c.Status {
			element.LastTransitionTime = old.LastTransitionTime
		}
		path := fmt.Sprintf("/status/conditions/%d", i)
		ops = append(ops, jsonpatch.Test(path+"/type", name), jsonpatch.Replace(path, element))
	}
	return json.Marshal(ops)
}
