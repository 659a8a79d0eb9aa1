package report

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
)

// statusWriter answers a status patch and remembers it.
type statusWriter struct {
	client.StatusClient
	client.SubResourceWriter
	answer func(*kubevirtv1.VirtualMachineInstanceMigration) error
	kind   types.PatchType
	data   []byte
	calls  int
}

func (w *statusWriter) Status() client.SubResourceWriter { return w }

func (w *statusWriter) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.SubResourcePatchOption) error {
	m := o.(*kubevirtv1.VirtualMachineInstanceMigration)
	w.calls++
	w.kind = p.Type()
	w.data, _ = p.Data(o)
	return w.answer(m)
}

var vmims = schema.GroupResource{Group: "kubevirt.io", Resource: "virtualmachineinstancemigrations"}

// TestConditions: what the API server's answers mean. Every write is read back.
func TestConditions(t *testing.T) {
	keeps := func(m *kubevirtv1.VirtualMachineInstanceMigration) error {
		*m = *Remembered(m, want(), noon)
		m.ResourceVersion = "43"
		return nil
	}
	fails := func(err error) func(*kubevirtv1.VirtualMachineInstanceMigration) error {
		return func(*kubevirtv1.VirtualMachineInstanceMigration) error { return err }
	}
	cases := map[string]struct {
		reason  string
		answer  func(*kubevirtv1.VirtualMachineInstanceMigration) error
		written bool
		version string
		is      func(error) bool
	}{
		"kept": {"The stored object is handed back.", keeps, true, "43", func(err error) bool { return err == nil }},
		"not kept": {"A 200 that dropped the conditions is no success.",
			fails(nil), false, "42", func(err error) bool { return err != nil && !errors.Is(err, jsonpatch.ErrStale) }},
		"test failed": {"422: somebody wrote meanwhile.",
			fails(apierrors.NewInvalid(schema.GroupKind{}, "web-1", nil)), false, "42", func(err error) bool { return errors.Is(err, jsonpatch.ErrStale) }},
		"refused": {"422 with a cause: looking again at once would not help.",
			fails(apierrors.NewInvalid(schema.GroupKind{}, "web-1", field.ErrorList{field.Required(field.NewPath("status"), "")})),
			false, "42", func(err error) bool { return apierrors.IsInvalid(err) && !errors.Is(err, jsonpatch.ErrStale) }},
		"conflict": {"409: the same.",
			fails(apierrors.NewConflict(vmims, "web-1", nil)), false, "42", func(err error) bool { return errors.Is(err, jsonpatch.ErrStale) }},
		"gone": {"The caller must be able to tell.",
			fails(apierrors.NewNotFound(vmims, "web-1")), false, "42", apierrors.IsNotFound},
		"forbidden": {"Any other error stays what it is.",
			fails(apierrors.NewForbidden(vmims, "web-1", nil)), false, "42", apierrors.IsForbidden},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := &statusWriter{answer: tc.answer}
			m := vmim()
			stored, written, err := Conditions(t.Context(), w, m, want(), noon)
			if written != tc.written || stored.ResourceVersion != tc.version || !tc.is(err) {
				t.Errorf("%s: written %t, version %s, %v", tc.reason, written, stored.ResourceVersion, err)
			}
			if w.calls != 1 || w.kind != types.JSONPatchType {
				t.Errorf("%d calls, the last with %s", w.calls, w.kind)
			}
			if diff := cmp.Diff(string(patchFor(t, m, want())), string(w.data)); diff != "" {
				t.Errorf("patch (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(vmim(), m); diff != "" {
				t.Errorf("the object that was read changed:\n%s", diff)
			}
		})
	}
}

// TestConditionsWritesNothing where all is there.
func TestConditionsWritesNothing(t *testing.T) {
	w := &statusWriter{}
	m := vmim(written("storageMigrated", corev1.ConditionTrue, "Completed"))
	stored, did, err := Conditions(t.Context(), w, m, []dualattach.Condition{
		{Type: dualattach.ConditionMigrated, Status: corev1.ConditionTrue, Reason: "Completed", Message: "longer"}}, noon)
	if stored != m || did || err != nil || w.calls != 0 {
		t.Errorf("%d calls, written %t, %v", w.calls, did, err)
	}
}
