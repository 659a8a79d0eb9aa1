package e2e

import (
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// bystanders are migrations that share no volume of ours. Nothing is said of them.
var bystanders = []scenario{
	{"volumes-of-others-only", othersOnly},
	{"to-another-cluster", toAnotherCluster},
	{"from-another-cluster", fromAnotherCluster},
	{"between-claims", betweenClaims},
	{"between-claims-shown-late", betweenClaimsShownLate},
}

func othersOnly(sc *scene) {
	sc.foreignClaim("theirs")
	vm, err := sc.CreateVMI(sc.ctx, lab.NewVMI(sc.ns, "vm").WithDisk("theirs"))
	sc.must(err)
	sc.must(sc.WaitVMIRunning(sc.ctx, vm))
	vmim := sc.migrate(vm, handler.Succeed())
	sc.must(sc.WaitMigration(sc.ctx, vmim, kubevirtv1.MigrationSucceeded))
	sc.checkSilence()
}

func toAnotherCluster(sc *scene) {
	acrossClusters(sc, lab.SendingTo("192.0.2.1:9185", sc.ns), kubevirtv1.MigrationSynchronizing)
}

func fromAnotherCluster(sc *scene) {
	acrossClusters(sc, lab.Receiving(sc.ns), kubevirtv1.MigrationWaitingForSync)
}

// acrossClusters: one half of a migration, as far as it comes here.
func acrossClusters(sc *scene, half lab.MigrateOption, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) {
	vmim := sc.migrate(sc.vm(), handler.Succeed(), half)
	sc.must(sc.WaitMigration(sc.ctx, vmim, phase))
	sc.checkSilence()
	sc.delete(vmim)
	sc.gone(vmim)
	sc.checkSilence()
}

// betweenClaims: KubeVirt copies the disk to a claim of ours, from one of ours. Both
// are attached once only.
func betweenClaims(sc *scene) {
	vm := sc.vm()
	sc.claim("new")
	sc.must(sc.PlanVolumeMigration(sc.ctx, vm, "vm", "new"))
	sc.must(sc.ReplaceVolume(sc.ctx, vm, "vm", "new"))
	vmim := sc.migrate(vm, handler.Succeed(), lab.Labelled(kubevirtv1.VolumesUpdateMigration, vm.Name))
	sc.must(sc.WaitMigration(sc.ctx, vmim, kubevirtv1.MigrationSucceeded))
	sc.must(sc.WaitAttached(sc.ctx, sc.pv("vm")))
	sc.checkSilence()
}

// betweenClaimsShownLate: what the migration copies is told after its hand-off only,
// and was taken for a shared volume until then. That is taken back for good.
func betweenClaimsShownLate(sc *scene) {
	vm := sc.vm()
	sc.claim("new")
	vmim := sc.holdDual(vm)
	sc.must(sc.PlanVolumeMigration(sc.ctx, vm, "vm", "new"))
	takenBack := conditions{"False/NotInvolved", "False/NotInvolved", "False/WithinDeadline"}
	sc.shows(vmim, takenBack)
	sc.says(vmim, dualattach.ConditionMigrated, "copies the data to other claims")
	sc.measures()
	sc.Release(vm)
	sc.must(sc.WaitMigration(sc.ctx, vmim, kubevirtv1.MigrationSucceeded))
	sc.shows(vmim, takenBack)
	sc.claimHears("vm", "MigrationStarted")
}
