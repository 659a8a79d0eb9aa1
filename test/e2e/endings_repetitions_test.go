package e2e

import (
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// repetitions are VMs that migrate more than once.
var repetitions = []scenario{
	{"two-in-a-row", twoInARow},
	{"more-than-kubevirt-keeps", moreThanKubeVirtKeeps},
	{"there-and-back", thereAndBack},
	{"there-and-not-back", thereAndNotBack},
	{"on-while-the-first-node-releases", onWhileReleasing},
	{"restarted-where-a-failed-one-releases", restartedOnTarget},
}

// twoInARow: each has its own story, and the claim hears both.
func twoInARow(sc *scene) {
	vm := sc.vm()
	for range 2 {
		vmim := sc.holdDual(vm)
		sc.Release(vm)
		sc.shows(vmim, completed)
		sc.told("vm", "MigrationCompleted", vmim.Name)
	}
	sc.claimHears("vm", "MigrationStarted", "MigrationCompleted", "MigrationStarted", "MigrationCompleted")
	sc.counts(dualattach.Success, dualattach.Success)
}

// moreThanKubeVirtKeeps: KubeVirt deletes all but the last five VMIMs of a VMI.
// That one is gone costs nobody its report.
func moreThanKubeVirtKeeps(sc *scene) {
	const migrations = 7
	vm := sc.vm()
	var first *lab.VMIM
	var heard []string
	for n := range migrations {
		vmim := sc.holdDual(vm, lab.Named(fmt.Sprintf("vm-%d", n)))
		sc.Release(vm)
		sc.shows(vmim, completed)
		if first == nil {
			first = vmim
		}
		heard = append(heard, "MigrationStarted", "MigrationCompleted")
		sc.counts(dualattach.Success)
	}
	sc.gone(first)
	sc.claimHears("vm", heard...)
}

// onItsWay moves a VM from a node of its own, which does not let go, to node-a.
func (sc *scene) onItsWay() (first *lab.Node, vm *lab.VMI, vmim *lab.VMIM) {
	sc.t.Helper()
	first = sc.node("first")
	first.Behave(stuck)
	vm = sc.vm(on(first))
	vmim = sc.holdDual(vm, lab.To("node-a"))
	sc.Release(vm)
	sc.shows(vmim, releasing)
	return first, vm, vmim
}

// thereAndBack: the VM returns to the node that still releases it, and re-uses the
// attachment there. The first migration's release will never be seen; the second's
// clock does not begin with the old attachment.
func thereAndBack(sc *scene) {
	first, vm, there := sc.onItsWay()
	sc.limit(vm, time.Minute)
	old := sc.attachment(first)
	back := sc.holdDual(vm, lab.To(first.Name))
	sc.shows(there, superseded)
	sc.says(there, dualattach.ConditionDualAttached, "a newer migration or start of the VM uses node "+first.Name)
	if now := sc.attachment(first); now != old {
		sc.t.Errorf("the attachment on %s was made anew: nothing is proven", first.Name)
	}
	target, err := sc.TargetPod(sc.ctx, back)
	sc.must(err)
	labels := map[string]string{"namespace": sc.ns, "vmi": "vm", "migration": back.Name, "stage": "DualAttached"}
	deadline := sc.SettledMetric(sc.ctx, sc.t, report.MetricDeadline, labels)
	if earliest := float64(target.CreationTimestamp.Add(time.Minute).Unix()); deadline < earliest {
		sc.t.Errorf("the deadline is %.0f s before a minute after the target pod's creation", earliest-deadline)
	}
	first.Behave(well)
	sc.Release(vm)
	sc.shows(back, completed)
	sc.claimHears("vm", "MigrationStarted", "MigrationCompleted", "MigrationStarted", "MigrationCompleted")
	sc.counts(dualattach.Success, dualattach.Success)
}

// attachment tells one attachment of the VM's disk from another on a node.
func (sc *scene) attachment(node *lab.Node) string {
	sc.t.Helper()
	va, err := sc.Attachment(sc.ctx, sc.pv("vm"), node.Name)
	sc.must(err)
	return string(va.UID)
}

// thereAndNotBack: the same, but the second migration fails: what it re-used is then
// its own to release.
func thereAndNotBack(sc *scene) {
	first, vm, there := sc.onItsWay()
	back := sc.migrate(vm, handler.Course{HoldAt: handler.Switch, FailAt: handler.Switch}, lab.To(first.Name))
	sc.must(sc.WaitStep(sc.ctx, back, handler.Switch))
	sc.shows(back, dual)
	sc.shows(there, superseded)
	sc.Release(vm)
	sc.shows(back, conditions{"True/ReleasingTarget", "Unknown/ReleasingTarget", "False/WithinDeadline"})
	first.Behave(well)
	sc.shows(back, rolledBack)
	sc.claimHears("vm", "MigrationStarted", "MigrationCompleted", "MigrationStarted", "MigrationFailed")
	sc.counts(dualattach.Success, dualattach.Failed)
}

// restartedOnTarget: the migration failed, and its target's node keeps the volume even
// when the pod is gone. Then the VM is started anew there, and uses it: that is no release
// that hangs, and nothing that the new VMI has to say.
func restartedOnTarget(sc *scene) {
	target := sc.node("target")
	target.Behave(stuck)
	vm := sc.vm(on(sc.Node("node-a")))
	vmim := sc.migrate(vm, handler.Course{HoldAt: handler.Switch, FailAt: handler.Switch}, lab.To(target.Name))
	sc.must(sc.WaitStep(sc.ctx, vmim, handler.Switch))
	sc.shows(vmim, dual)
	pod, err := sc.TargetPod(sc.ctx, vmim)
	sc.must(err)
	sc.Release(vm)
	sc.shows(vmim, conditions{"True/ReleasingTarget", "Unknown/ReleasingTarget", "False/WithinDeadline"})
	old := sc.attachment(target)
	sc.delete(vm)
	sc.must(client.IgnoreNotFound(sc.Client.Delete(sc.ctx, pod, client.GracePeriodSeconds(0))))
	sc.must(sc.WaitVMIGone(sc.ctx, vm))
	sc.gone(vmim)
	sc.measures("deadline/" + vmim.Name + "/ReleasingTarget")

	anew, err := sc.CreateVMI(sc.ctx, sc.tolerating(lab.NewVMI(sc.ns, vm.Name).WithDisk("vm").PreferNode(target.Name)))
	sc.must(err)
	sc.must(sc.WaitVMIRunning(sc.ctx, anew))
	if now := sc.attachment(target); anew.Status.NodeName != target.Name || now != old {
		sc.t.Errorf("it runs on %s, on an old attachment: %t: nothing is proven", anew.Status.NodeName, now == old)
	}
	sc.measures()
	sc.claimHears("vm", "MigrationStarted", "MigrationFailed")
	sc.told("vm", "MigrationFailed", "a newer migration or start of the VM uses the target again", vmim.Name)
	sc.hears("VirtualMachineInstance", vm.Name)
	target.Behave(well)
	sc.counts(dualattach.Failed)
}

// onWhileReleasing: to a third node the VM cannot go before the first has let go. The
// plugin's refusal is an attach error, and what it says is in the VMIM's condition.
func onWhileReleasing(sc *scene) {
	first, vm, there := sc.onItsWay()
	on := sc.migrate(vm, handler.Succeed(), lab.To("node-b"))
	sc.shows(on, attaching)
	sc.refused("vm", "node-b")
	sc.limitIn(vm, on, 15*time.Second)
	sc.overdue(vm, on, attaching, dualattach.AttachingTarget, "AttachError", "a third node never joins", first.Name)
	sc.limit(vm, 10*time.Minute)
	first.Behave(well)
	sc.shows(there, completed)
	sc.shows(on, completed.resolved())
	sc.resolves(vm)
	sc.claimHears("vm", "MigrationStarted", "MigrationCompleted", "MigrationStarted", "MigrationDelayed", "MigrationFailed", "MigrationCompleted")
	sc.counts(dualattach.Success, dualattach.Timeout)
}
