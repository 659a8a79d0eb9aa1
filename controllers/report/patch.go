package report

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
)

// ConditionPatch builds the JSON patch that makes the VMIM's status carry the
// conditions. It touches our elements only, and is nil when status and reason of
// all of them are there already: messages alone are not worth a write, but are
// brought up to date by one.
func ConditionPatch(m *kubevirtv1.VirtualMachineInstanceMigration, want []dualattach.Condition, now time.Time) ([]byte, error) {
	if Carries(m, want) {
		return nil, nil
	}
	ops := []jsonpatch.Operation{jsonpatch.Version(m.ResourceVersion)}
	have := m.Status.Conditions
	switch {
	case reflect.DeepEqual(m.Status, kubevirtv1.VirtualMachineInstanceMigrationStatus{}):
		// A VMIM just created has no status object to add to.
		ops = append(ops, jsonpatch.Add("/status", map[string]any{"conditions": []any{}}))
	case len(have) == 0:
		ops = append(ops, jsonpatch.Add("/status/conditions", []any{}))
	}
	for _, c := range want {
		switch i, element := place(have, c, now); {
		case i < 0:
			ops = append(ops, jsonpatch.Add("/status/conditions/-", element))
		case !reflect.DeepEqual(have[i], element):
			ops = append(ops, jsonpatch.Replace(fmt.Sprintf("/status/conditions/%d", i), element))
		}
	}
	return json.Marshal(ops)
}

// Remembered is a copy of the VMIM that carries the conditions: the memory of one
// that is gone, where nothing can be written any more.
func Remembered(m *kubevirtv1.VirtualMachineInstanceMigration, want []dualattach.Condition, now time.Time) *kubevirtv1.VirtualMachineInstanceMigration {
	m = m.DeepCopy()
	for _, c := range want {
		if i, element := place(m.Status.Conditions, c, now); i < 0 {
			m.Status.Conditions = append(m.Status.Conditions, element)
		} else {
			m.Status.Conditions[i] = element
		}
	}
	return m
}

// place finds where the condition belongs, -1 when it is new, and makes the
// element exactly as KubeVirt's own types serialise it: both times always present,
// in whole seconds or null. The transition time moves with the status only.
func place(have []kubevirtv1.VirtualMachineInstanceMigrationCondition, c dualattach.Condition, now time.Time) (int, kubevirtv1.VirtualMachineInstanceMigrationCondition) {
	element := kubevirtv1.VirtualMachineInstanceMigrationCondition{
		Type: c.Type, Status: c.Status, LastTransitionTime: metav1.Time{Time: now}, Reason: c.Reason, Message: c.Message,
	}
	i := slices.IndexFunc(have, func(h kubevirtv1.VirtualMachineInstanceMigrationCondition) bool { return h.Type == c.Type })
	if i >= 0 && have[i].Status == c.Status {
		element.LastTransitionTime = have[i].LastTransitionTime
	}
	return i, element
}

// Carries reports whether the VMIM carries the conditions, messages aside.
func Carries(m *kubevirtv1.VirtualMachineInstanceMigration, want []dualattach.Condition) bool {
	for _, c := range want {
		if !slices.ContainsFunc(m.Status.Conditions, func(h kubevirtv1.VirtualMachineInstanceMigrationCondition) bool {
			return h.Type == c.Type && h.Status == c.Status && h.Reason == c.Reason
		}) {
			return false
		}
	}
	return true
}
