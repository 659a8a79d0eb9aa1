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
)

// operation is one step of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// ConditionPatch builds the JSON patch that makes the VMIM's status carry the
// conditions. It touches our elements only, and is nil when status and reason of
// all of them are there already: messages alone are not worth a write.
func ConditionPatch(m *kubevirtv1.VirtualMachineInstanceMigration, want []dualattach.Condition, now time.Time) ([]byte, error) {
	ops := []operation{{Op: "test", Path: "/metadata/resourceVersion", Value: m.ResourceVersion}}
	have := m.Status.Conditions
	switch {
	case reflect.DeepEqual(m.Status, kubevirtv1.VirtualMachineInstanceMigrationStatus{}):
		// A VMIM just created has no status object to add to.
		ops = append(ops, operation{Op: "add", Path: "/status", Value: map[string]any{"conditions": []any{}}})
	case len(have) == 0:
		ops = append(ops, operation{Op: "add", Path: "/status/conditions", Value: []any{}})
	}
	changed := false
	for _, c := range want {
		i := slices.IndexFunc(have, func(h kubevirtv1.VirtualMachineInstanceMigrationCondition) bool { return h.Type == c.Type })
		switch {
		case i < 0:
			ops = append(ops, operation{Op: "add", Path: "/status/conditions/-", Value: canonical(c, metav1.Time{Time: now})})
		case have[i].Status == c.Status && have[i].Reason == c.Reason:
			continue
		default:
			transition := metav1.Time{Time: now}
			if have[i].Status == c.Status {
				transition = have[i].LastTransitionTime
			}
			ops = append(ops, operation{Op: "replace", Path: fmt.Sprintf("/status/conditions/%d", i), Value: canonical(c, transition)})
		}
		changed = true
	}
	if !changed {
		return nil, nil
	}
	return json.Marshal(ops)
}

// canonical is a condition exactly as KubeVirt's own types serialise it: both
// times always present, in whole seconds or null.
func canonical(c dualattach.Condition, transition metav1.Time) kubevirtv1.VirtualMachineInstanceMigrationCondition {
	return kubevirtv1.VirtualMachineInstanceMigrationCondition{
		Type: c.Type, Status: c.Status, LastTransitionTime: transition, Reason: c.Reason, Message: c.Message,
	}
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
