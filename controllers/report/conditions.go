package report

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
)

// Conditions writes the conditions on the VMIM, unless it carries them already,
// and returns the object as stored. A VMIM that is gone is a NotFound error, one that
// changed meanwhile a jsonpatch.ErrStale.
func Conditions(ctx context.Context, c client.StatusClient, m *kubevirtv1.VirtualMachineInstanceMigration, want []dualattach.Condition, now time.Time) (stored *kubevirtv1.VirtualMachineInstanceMigration, written bool, err error) {
	patch, err := ConditionPatch(m, want, now)
	if err != nil || patch == nil {
		return m, false, err
	}
	stored = m.DeepCopy()
	err = c.Status().Patch(ctx, stored, client.RawPatch(types.JSONPatchType, patch))
	switch {
	case err != nil:
		return m, false, fmt.Errorf("write the conditions of VMIM %s/%s: %w", m.Namespace, m.Name, jsonpatch.Answer(err))
	case !Carries(stored, want):
		return stored, false, fmt.Errorf("write the conditions of VMIM %s/%s: the API server answered 200 and did not keep them", m.Namespace, m.Name)
	}
	return stored, true, nil
}
