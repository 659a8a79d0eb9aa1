package e2e

import (
	"time"

	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// releases are migrations in which a node dies, or does not let go.
var releases = []scenario{
	{"source-dead", sourceDead},
	{"target-dead", targetDead},
	{"source-never-unmounts", sourceNeverUnmounts},
	{"vmim-deleted-while-the-source-releases", deletedWhileReleasing},
}

func stuck(b *lab.Behaviour) { b.NeverUnmount = true }
func well(b *lab.Behaviour)  { b.NeverUnmount = false }

// sourceDead: KubeVirt sees a migration under way until somebody vouches that the
// node is off. By then the deadline has passed, with the node named.
func sourceDead(sc *scene) {
	source := sc.node("source")
	vm := sc.vm(on(source))
	vmim := sc.holdDual(vm, lab.To("node-a"))
	sc.must(source.PowerOff(sc.ctx))
	sc.limitIn(vm, vmim, 20*time.Second)
	sc.overdue(vm, vmim, dual, dualattach.DualAttached, "node "+source.Name+" is not Ready", "delete vmim "+vmim.Name)
	sc.must(sc.WaitMigration(sc.ctx, vmim, kubevirtv1.MigrationRunning))

	sc.must(source.OutOfService(sc.ctx))
	sc.shows(vmim, detached.resolved(), rolledBack.resolved())
	sc.claimHears("vm", "MigrationStarted", "MigrationDelayed", "MigrationFailed", "MigrationFailed")
	sc.must(sc.WaitAttached(sc.ctx, sc.pv("vm")))
	sc.counts(dualattach.Timeout)
}

// targetDead: the migration fails at once, but the target cannot let go. It gets
// the time that Kubernetes takes to force it, and is named when that has passed.
func targetDead(sc *scene) {
	target := sc.node("target")
	vm := sc.vm(on(sc.Node("node-a")))
	vmim := sc.migrate(vm, handler.Course{HoldAt: handler.Switch, FailAt: handler.Switch}, lab.To(target.Name))
	sc.must(sc.WaitStep(sc.ctx, vmim, handler.Switch))
	sc.shows(vmim, dual)
	sc.must(target.PowerOff(sc.ctx))
	sc.resume(vm, vmim, handler.Switch)
	under := conditions{"True/ReleasingTarget", "Unknown/ReleasingTarget", "False/WithinDeadline"}
	sc.shows(vmim, under)
	sc.says(vmim, dualattach.ConditionDualAttached, "--release-deadline-not-ready: "+releaseDeadlineNotReady.String(), "node "+target.Name+" is not Ready", "the VM stays on "+vm.Status.NodeName)
	sc.measures("dual/vm", "deadline/"+vmim.Name+"/ReleasingTarget")
	sc.overdue(vm, vmim, under, dualattach.ReleasingTarget, target.Name+" (target) has not released it", "kubectl describe node "+target.Name)

	sc.must(target.OutOfService(sc.ctx))
	sc.shows(vmim, rolledBack.resolved())
	sc.resolves(vm)
	sc.claimHears("vm", "MigrationStarted", "MigrationDelayed", "MigrationFailed", "MigrationFailed")
	sc.counts(dualattach.Timeout)
}

// sourceNeverUnmounts: the VM has moved and runs; its old node is Ready and keeps
// the volume. Kubernetes never forces that, so somebody must hear of it.
func sourceNeverUnmounts(sc *scene) {
	source, vm, vmim := sc.onItsWay()
	sc.says(vmim, dualattach.ConditionDualAttached, "still attached on "+source.Name, "--release-deadline: "+releaseDeadline.String())
	sc.measures("dual/vm", "deadline/"+vmim.Name+"/ReleasingSource")
	sc.overdue(vm, vmim, releasing, dualattach.ReleasingSource, source.Name+" (source) has not released it", "kubectl describe node "+source.Name)

	source.Behave(well)
	sc.shows(vmim, completed.resolved())
	sc.resolves(vm)
	sc.claimHears("vm", "MigrationStarted", "MigrationDelayed", "MigrationFailed", "MigrationCompleted")
	sc.told("vm", "MigrationCompleted", "after a deadline had passed")
	sc.counts(dualattach.Timeout)
}

// deletedWhileReleasing: a VMIM that is over may be deleted, by KubeVirt or anybody;
// its volumes are watched to the end all the same.
func deletedWhileReleasing(sc *scene) {
	source, _, vmim := sc.onItsWay()
	sc.delete(vmim)
	sc.gone(vmim)
	sc.measures("dual/vm", "deadline/"+vmim.Name+"/ReleasingSource")
	source.Behave(well)
	sc.claimHears("vm", "MigrationStarted", "MigrationCompleted")
	sc.counts(dualattach.Success)
}
