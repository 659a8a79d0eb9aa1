package report

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

// ErrStale says that the VMIM changed since it was read: read it again and decide anew.
var ErrStale = errors.New("the VMIM changed meanwhile")

// Conditions writes the conditions on the VMIM, unless it carries them already,
// and returns the object as stored. A VMIM that is gone is a NotFound error.
func Conditions(ctx context.Context, c client.StatusClient, m *kubevirtv1.VirtualMachineInstanceMigration, want []dualattach.Condition, now time.Time) (stored *kubevirtv1.VirtualMachineInstanceMigration, written bool, err error) {
	patch, err := ConditionPatch(m, want, now)
	if err != nil || patch == nil {
		return m, false, err
	}
	stored = m.DeepCopy()
	err = c.Status().Patch(ctx, stored, client.RawPatch(types.JSONPatchType, patch))
	switch {
	case apierrors.IsInvalid(err) || apierrors.IsConflict(err):
		// The guard did not hold; the apiserver answers 422 for a failed test.
		return m, false, fmt.Errorf("write the conditions of VMIM %s/%s: %w: %w", m.Namespace, m.Name, ErrStale, err)
	case err != nil:
		return m, false, fmt.Errorf("write the conditions of VMIM %s/%s: %w", m.Namespace, m.Name, err)
	case !Carries(stored, want):
		return stored, false, fmt.Errorf("write the conditions of VMIM %s/%s: the API server answered 200 and did not keep them", m.Namespace, m.Name)
	}
	return stored, true, nil
}
