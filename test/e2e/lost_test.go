package e2e

import (
	"context"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// TestAnEndingThatNobodySaw: a migration that ends while no operator runs, and whose
// VMIM is gone when one does again, is reported by what the VMI says of it, once.
func TestAnEndingThatNobodySaw(t *testing.T) {
	ctx, s, ns := setUp(t)
	vm := s.MustStartVM(ctx, t, ns, "vm")
	vmim := migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	waitCondition(ctx, t, s, vmim, dualattach.ConditionDualAttached, "True", dualattach.ReasonLiveMigration)
	operator := s.Operators[0]
	if err := operator.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	start := func(ctx context.Context) {
		t.Helper()
		if err := operator.Run(); err != nil {
			t.Fatal(err)
		}
		if err := s.WaitOperator(ctx, operator); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if !operator.Running() {
			start(context.Background())
		}
	})
	stopped := time.Now()
	wait := func(what string, done func(context.Context) (bool, error)) {
		t.Helper()
		if err := s.WaitFor(ctx, what, done); err != nil {
			t.Fatal(err)
		}
	}
	// KubeVirt's times are whole seconds, rounded down.
	wait("the next second", func(context.Context) (bool, error) { return time.Now().Unix() > stopped.Unix(), nil })
	release(ctx, t, s, vm, vmim)
	wait("the migration to succeed", func(ctx context.Context) (bool, error) {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(vmim), vmim)
		return vmim.Status.Phase == kubevirtv1.MigrationSucceeded, err
	})
	if err := s.Client.Delete(ctx, vmim); err != nil {
		t.Fatal(err)
	}
	wait("the VMIM to be gone", func(ctx context.Context) (bool, error) {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(vmim), vmim)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
	success := map[string]string{"result": "success"}
	start(ctx)
	wantEvents(ctx, t, s, ns, "vm", dualattach.EventCompleted)
	s.WantMetric(ctx, t, report.MetricMigrations, success, 1)

	// Another start finds that it was reported.
	if err := operator.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	start(ctx)
	other := s.MustStartVM(ctx, t, ns, "other")
	vmim = migrate(ctx, t, s, other, handler.Succeed())
	waitCondition(ctx, t, s, vmim, dualattach.ConditionMigrated, "True", "Completed")
	s.WantMetric(ctx, t, report.MetricMigrations, success, 1)
}
