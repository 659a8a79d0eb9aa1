package e2e

import (
	"testing"

	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// TestEndingsWithoutVirtController: what would disturb every other scenario.
func TestEndingsWithoutVirtController(t *testing.T) {
	play(t, []scenario{{"virt-controller-restarted", virtControllerRestarted}})
}

// virtControllerRestarted: the VM moves and its old node lets go while nobody can say
// so on the VMIM. That is shown as it is, and ends well when virt-controller is back.
func virtControllerRestarted(sc *scene) {
	vm := sc.vm()
	vmim := sc.migrate(vm, handler.HoldingAt(handler.Switch))
	sc.must(sc.WaitStep(sc.ctx, vmim, handler.Switch))
	sc.shows(vmim, dual)
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
