package e2e

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// TestEndingsWithoutVirtController: what would disturb every other scenario.
func TestEndingsWithoutVirtController(t *testing.T) {
	play(t, []scenario{{"virt-controller-restarted", virtControllerRestarted}})
}

// virtControllerRestarted: the VM moves and its old node lets go while nobody can say
// so on the VMIM. That is shown as it is, and ends well when virt-controller is back.
func virtControllerRestarted(sc *scene) {
	vm := sc.vm()
	vmim := sc.holdDual(vm)
	controller := sc.Process("virt-controller")
	controller.Kill()
	sc.t.Cleanup(func() {
		if !controller.Running() {
			sc.must(controller.Run())
		}
	})
	sc.Release(vm)
	sc.shows(vmim, conditions{"False/SourceReleased", "Unknown/ReleasingSource", "False/WithinDeadline"})
	if vmim.Status.Phase != kubevirtv1.MigrationRunning {
		sc.t.Errorf("the VMIM is %s: nothing is proven", vmim.Status.Phase)
	}
	sc.must(controller.Run())
	sc.shows(vmim, completed)
	sc.claimHears("vm", "MigrationStarted", "MigrationCompleted")
	sc.counts(dualattach.Success)
}

// TestNamespaceDeleted: all goes, and nobody is left to be told. The migration is counted
// and not looked at any more. Which way it ended depends on what goes first.
func TestNamespaceDeleted(t *testing.T) {
	sc := newScene(t, nil)
	vm := sc.vm()
	before := sc.MustScrape(sc.ctx, t)
	vmim := sc.migrate(vm, handler.HoldingAt(handler.Switch))
	sc.must(sc.WaitStep(sc.ctx, vmim, handler.Switch))
	sc.shows(vmim, dual)
	sc.measures("dual/vm", "deadline/"+vmim.Name+"/DualAttached")
	pv, namespace := sc.pv("vm"), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: sc.ns}}
	sc.delete(namespace)
	sc.must(sc.WaitFor(sc.ctx, "namespace "+sc.ns+" to be gone", func(ctx context.Context) (bool, error) {
		err := sc.Client.Get(ctx, client.ObjectKeyFromObject(namespace), namespace)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}))
	sc.must(sc.WaitAttached(sc.ctx, pv))
	sc.measures()
	sc.WantMetric(sc.ctx, t, report.MetricActive, nil, before.Value(report.MetricActive, nil))
	counted := -1.0
	after := sc.MustScrape(sc.ctx, t)
	for _, result := range dualattach.Results() {
		labels := map[string]string{"result": string(result)}
		counted += after.Value(report.MetricMigrations, labels) - before.Value(report.MetricMigrations, labels)
	}
	if counted != 0 {
		t.Errorf("it is counted %g times", counted+1)
	}
	refused, err := sc.AuditSince(sc.mark, audit.User(stack.OperatorUser), audit.Failures(), audit.Resource("events"),
		func(e audit.Event) bool { return e.Object.Namespace == sc.ns })
	sc.must(err)
	if len(refused) != 1 {
		t.Errorf("the operator tried to tell the end %d times, want once:\n%s", len(refused), refused)
	}
	sc.checkEnd()
}

// TestFirstInstallAmongFinishedMigrations: what was over before anybody watched is
// history: nothing is written, announced or counted. What comes next is.
func TestFirstInstallAmongFinishedMigrations(t *testing.T) {
	sc := newScene(t, nil)
	operator := sc.Operators[0]
	vm := sc.vm()
	sc.must(operator.Stop(sc.ctx))
	t.Cleanup(func() {
		if !operator.Running() {
			sc.must(operator.Run())
		}
	})
	succeeded := sc.migrate(vm, handler.Succeed())
	sc.must(sc.WaitMigration(sc.ctx, succeeded, kubevirtv1.MigrationSucceeded))
	sc.must(sc.WaitVMIRunning(sc.ctx, vm))
	failed := sc.migrate(vm, handler.FailingAt(handler.Switch))
	sc.must(sc.WaitMigration(sc.ctx, failed, kubevirtv1.MigrationFailed))
	sc.must(sc.WaitAttached(sc.ctx, sc.pv("vm"), vm.Status.NodeName))

	sc.must(operator.Run())
	sc.must(sc.WaitOperator(sc.ctx, operator))
	sc.checkSilence()
	metrics := sc.MustScrape(sc.ctx, t)
	for _, result := range dualattach.Results() {
		if n := metrics.Value(report.MetricMigrations, map[string]string{"result": string(result)}); n != 0 {
			t.Errorf("%v migrations are counted as %s", n, result)
		}
	}
	sc.measures()

	vmim := sc.migrate(vm, handler.Succeed())
	sc.shows(vmim, completed)
	sc.told("vm", "MigrationCompleted", vmim.Name)
	sc.WantMetric(sc.ctx, t, report.MetricMigrations, map[string]string{"result": string(dualattach.Success)}, 1)
	sc.checkEnd()
}
