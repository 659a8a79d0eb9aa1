package e2e

import (
	"strings"

	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// failures are migrations that do not succeed, on nodes that are well.
var failures = []scenario{
	{"target-fails-before-the-hand-off", failingAt(handler.Launch)},
	{"target-fails-after-the-hand-off", failingAt(handler.Prepare)},
	{"source-fails-while-running", failingAt(handler.Switch)},
	{"target-that-fits-nowhere", targetThatFitsNowhere},
	{"target-pending-for-too-long", targetPendingForTooLong},
	{"cancelled-before-the-hand-off", cancelledAt(handler.Launch)},
	{"cancelled-while-running", cancelledAt(handler.Switch)},
	{"vmi-deleted", vmiDeleted},
	{"post-copy-fails", postCopyFails},
}

// failingAt is a failure at a step by which both nodes hold the volume.
func failingAt(step handler.Step) func(*scene) {
	return func(sc *scene) {
		vm := sc.vm()
		vmim := sc.migrate(vm, handler.Course{HoldAt: step, FailAt: step, Reason: "the lab pulled the plug"})
		sc.shows(vmim, dual)
		sc.measures("dual/vm", "deadline/"+vmim.Name+"/DualAttached")
		sc.resume(vm, vmim, step)
		sc.shows(vmim, rolledBack)
		sc.claimHears("vm", "MigrationStarted", "MigrationFailed")
		sc.told("vm", "MigrationFailed", "rolled back", vmim.Name)
		if step == handler.Switch {
			sc.says(vmim, dualattach.ConditionMigrated, "KubeVirt says: the lab pulled the plug", "it stays on "+vm.Status.NodeName)
		}
		sc.counts(dualattach.Failed)
	}
}

// targetThatFitsNowhere: KubeVirt gives up on a target pod that no node takes. No
// claim hears of a beginning, as nothing began.
func targetThatFitsNowhere(sc *scene) {
	vm := sc.vm()
	vmim := sc.migrate(vm, handler.Succeed(), lab.To("node-nowhere"), lab.Annotated(kubevirtv1.MigrationUnschedulablePodTimeoutSecondsAnnotation, "15"))
	sc.shows(vmim, attaching)
	sc.says(vmim, dualattach.ConditionDualAttached, "not known yet")
	sc.shows(vmim, rolledBack)
	sc.claimHears("vm", "MigrationFailed")
	sc.counts(dualattach.Failed)
}

// targetPendingForTooLong: the target holds the volume and never becomes ready.
// KubeVirt's own pending timeout ends it before a deadline of ours.
func targetPendingForTooLong(sc *scene) {
	vm := sc.vm()
	vmim := sc.migrate(vm, handler.HoldingAt(handler.Launch), lab.Annotated(kubevirtv1.MigrationPendingPodTimeoutSecondsAnnotation, "15"))
	sc.shows(vmim, dual)
	sc.says(vmim, dualattach.ConditionDualAttached, "KubeVirt's 15s for a pending target")
	sc.shows(vmim, rolledBack)
	sc.claimHears("vm", "MigrationStarted", "MigrationFailed")
	sc.counts(dualattach.Failed)
}

// cancelledAt: the VMIM is deleted, and with it all that could be read there; the
// claim's events tell the end.
func cancelledAt(step handler.Step) func(*scene) {
	return func(sc *scene) {
		vm := sc.vm()
		vmim := sc.migrate(vm, handler.HoldingAt(step))
		sc.must(sc.WaitStep(sc.ctx, vmim, step))
		sc.shows(vmim, dual)
		sc.delete(vmim)
		sc.claimHears("vm", "MigrationStarted", "MigrationFailed")
		sc.told("vm", "MigrationFailed", "cancelled, rolled back", vmim.Name)
		sc.gone(vmim)
		sc.must(sc.WaitAttached(sc.ctx, sc.pv("vm"), vm.Status.NodeName))
		sc.counts(dualattach.Aborted)
	}
}

// vmiDeleted: everything goes, the migration with it. It failed, as KubeVirt says.
func vmiDeleted(sc *scene) {
	vm := sc.vm()
	vmim := sc.holdDual(vm)
	sc.delete(vm)
	sc.must(sc.WaitVMIGone(sc.ctx, vm))
	sc.goneOrLeft(vmim)
	sc.claimHears("vm", "MigrationStarted", "MigrationFailed")
	sc.must(sc.WaitAttached(sc.ctx, sc.pv("vm")))
	sc.counts(dualattach.Failed)
}

// postCopyFails: half of the guest is on either node, so it dies. Either node may
// let go first.
func postCopyFails(sc *scene) {
	vm := sc.vm()
	vmim := sc.migrate(vm, handler.Course{PostCopy: true, HoldAt: handler.Switch, FailAt: handler.Switch})
	sc.must(sc.WaitStep(sc.ctx, vmim, handler.Switch))
	sc.shows(vmim, dual)
	sc.resume(vm, vmim, handler.Switch)
	sc.shows(vmim, detached, rolledBack)
	sc.says(vmim, dualattach.ConditionMigrated, "the VM is over")
	sc.claimHears("vm", "MigrationStarted", "MigrationFailed")
	sc.must(sc.WaitVMI(sc.ctx, vm, "to have failed", func(vmi *lab.VMI) bool { return vmi.Status.Phase == kubevirtv1.Failed }))
	if strings.Contains(conditionOf(vmim, dualattach.ConditionMigrated).Message, "cancelled") {
		sc.t.Error("nobody cancelled it")
	}
	sc.counts(dualattach.Failed)
}
