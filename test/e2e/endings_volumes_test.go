package e2e

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// volumes are migrations of VMs with several disks.
var volumes = []scenario{
	{"hotplugged-volume", hotpluggedVolume},
	{"attach-error-on-one-of-three", attachErrorOnOne},
	{"detach-error-on-one-of-two", detachErrorOnOne},
	{"beside-volumes-of-others", besideOthers},
}

// hotpluggedVolume: a disk plugged into the running VM takes part like any other.
func hotpluggedVolume(sc *scene) {
	vm := sc.vm()
	sc.claim("extra")
	sc.must(sc.Hotplug(sc.ctx, vm, "extra"))
	sc.must(sc.WaitDisk(sc.ctx, vm, "extra"))
	vmim := sc.holdDual(vm)
	sc.says(vmim, dualattach.ConditionDualAttached, "claims extra, vm")
	sc.measures("dual/vm", "dual/extra", "deadline/"+vmim.Name+"/DualAttached")
	sc.Release(vm)
	sc.shows(vmim, completed)
	for _, claim := range []string{"vm", "extra"} {
		sc.claimHears(claim, "MigrationStarted", "MigrationCompleted")
	}
	sc.counts(dualattach.Success)
}

// refusal is what an array that lacks something to go on says.
const refusal = "failure: device or resource busy"

// refuse makes the array refuse that a volume's ledger changes while it is exported:
// a second node's publication, and the end of one of two. The array goes on again
// with the function returned.
func (sc *scene) refuse(slot string) (relent func()) {
	sc.t.Helper()
	fault, err := sc.Array.Inject(routeros.Fault{Kind: routeros.Answer, Times: -1, Text: refusal + "\r\n", Match: func(command string) bool {
		return strings.Contains(command, slot) && strings.Contains(command, "/disk/comment ")
	}})
	sc.must(err)
	sc.t.Cleanup(fault.Remove)
	return fault.Remove
}

// refused waits until the attachment of a claim on a node bears an error.
func (sc *scene) refused(claim, node string) {
	sc.t.Helper()
	pv := sc.pv(claim)
	sc.must(sc.WaitFor(sc.ctx, "an attach error of claim "+claim+" on "+node, func(ctx context.Context) (bool, error) {
		va, err := sc.Attachment(ctx, pv, node)
		return err == nil && va.Status.AttachError != nil, nil
	}))
}

// attachErrorOnOne: the array refuses one volume of three. It is named, with the
// array's own words; the others count as attached twice.
func attachErrorOnOne(sc *scene) {
	sc.claim("data")
	slot := sc.claim("logs")
	vm := sc.vm(withDisk("data"), withDisk("logs"))
	relent := sc.refuse(slot)
	vmim := sc.migrate(vm, handler.Succeed())
	sc.shows(vmim, attaching)
	sc.measures("dual/vm", "dual/data", "deadline/"+vmim.Name+"/AttachingTarget")
	target, err := sc.TargetPod(sc.ctx, vmim)
	sc.must(err)
	sc.refused("logs", target.Spec.NodeName)
	sc.limitIn(vm, vmim, 20*time.Second)
	sc.overdue(vm, vmim, attaching, dualattach.AttachingTarget, "has not got claim logs attached", "AttachError: claim logs on", refusal)
	sc.told("logs", "MigrationDelayed", "(claim logs)", refusal)

	sc.limit(vm, 10*time.Minute)
	relent()
	sc.shows(vmim, completed.resolved())
	sc.resolves(vm)
	for _, claim := range []string{"vm", "data", "logs"} {
		sc.claimHears(claim, "MigrationStarted", "MigrationDelayed", "MigrationFailed", "MigrationCompleted")
	}
	sc.counts(dualattach.Timeout)
}

// detachErrorOnOne: the VM has moved, and the array does not take one of its volumes
// from the source: the attachment is being deleted and stays.
func detachErrorOnOne(sc *scene) {
	slot := sc.claim("data")
	vm := sc.vm(withDisk("data"))
	vmim := sc.holdDual(vm)
	source := vm.Status.NodeName
	relent := sc.refuse(slot)
	sc.Release(vm)
	sc.overdue(vm, vmim, releasing, dualattach.ReleasingSource, source+" (source) has not released claim data", "DetachError: claim data on "+source, refusal)
	sc.measures("dual/data", "deadline/"+vmim.Name+"/ReleasingSource")
	va, err := sc.Attachment(sc.ctx, sc.pv("data"), source)
	sc.must(err)
	if va.DeletionTimestamp == nil {
		sc.t.Error("the attachment is not being deleted: nothing is proven")
	}

	relent()
	sc.shows(vmim, completed.resolved())
	sc.resolves(vm)
	for _, claim := range []string{"vm", "data"} {
		sc.claimHears(claim, "MigrationStarted", "MigrationDelayed", "MigrationFailed", "MigrationCompleted")
	}
	sc.counts(dualattach.Timeout)
}

// besideOthers: of a VM that has other people's volumes too, only ours are spoken of.
func besideOthers(sc *scene) {
	sc.foreignClaim("theirs")
	vm := sc.vm(withDisk("theirs"))
	vmim := sc.holdDual(vm)
	sc.measures("dual/vm", "deadline/"+vmim.Name+"/DualAttached")
	sc.Release(vm)
	sc.shows(vmim, completed)
	sc.claimHears("vm", "MigrationStarted", "MigrationCompleted")
	sc.claimHears("theirs")
	if strings.Contains(conditionOf(vmim, dualattach.ConditionMigrated).Message, "theirs") {
		sc.t.Errorf("the condition speaks of another's volume: %s", conditionOf(vmim, dualattach.ConditionMigrated).Message)
	}
	sc.counts(dualattach.Success)
}

// foreignClaim makes a claim on a shared filesystem that is not ours.
func (sc *scene) foreignClaim(name string) {
	sc.t.Helper()
	_, err := sc.CreateVolume(sc.ctx, lab.Volume{Namespace: sc.ns, Claim: name, Mode: corev1.PersistentVolumeFilesystem,
		Foreign: &corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: "192.0.2.1", Path: "/share"}}})
	sc.must(err)
}
