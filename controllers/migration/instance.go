package migration

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// Speaker has VMIs say things, as vmireport.Speaker does.
type Speaker interface {
	Say(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (held bool, next time.Time, err error)
	Forbidden(of vmicondition.Type) []types.NamespacedName
	Forget(vmi types.NamespacedName, of vmicondition.Type)
}

// speak makes the VMI say what its migrations together mean for it. That follows
// from the VMI as it is: what a crash or a refusal left behind is put right by the
// next look. next is when to come back for it, or zero.
//
// The VMI comes first, and the rest is held until the cache, and so most likely
// virt-controller's, shows what was written there: whoever cancels a migration
// because its VMIM says that it is late would else have virt-controller abort it on
// a VMI that it does not know yet, and its guarded patch would fail for that.
func (r *Reconciler) speak(ctx context.Context, in *gather.Instance, assessments []dualattach.Assessment) (held bool, next time.Time, err error) {
	if in.VMI == nil {
		r.speaker.Forget(in.Key, vmicondition.StorageMigrationTimedOut)
	}
	decided := dualattach.DecideInstance(in.VMI, assessments)
	if decided == nil {
		return false, time.Time{}, nil
	}
	return r.speaker.Say(ctx, in.VMI, vmicondition.Condition{
		Type: vmicondition.StorageMigrationTimedOut, Status: decided.Status, Reason: decided.Reason, Message: decided.Message})
}
