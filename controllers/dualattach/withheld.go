package dualattach

import (
	"slices"

	kubevirtv1 "kubevirt.io/api/core/v1"
)

// stateVolume is KubeVirt's name for the claim in which it keeps a VM's own state: a
// persistent TPM, EFI variables, the bitmaps of backups.
const stateVolume = "persistent-state-for-this-vm"

// withheld reports that a write to the VMIM would do harm now. It makes the one that
// virt-controller is about to do a conflict, and in two cases that one is not made up for.
func (s *Snapshot) withheld() bool {
	return s.VanishedAt.IsZero() && (s.stateUnsaved() || s.finishing())
}

// stateUnsaved reports a migration that KubeVirt would forget a part of if somebody
// wrote the VMIM now. For a VM with state of its own, virt-controller (seen in 1.8.4,
// read in 1.9.0) puts the names of the state's two claims into its cached copy of a
// Pending VMIM, and stores them with the next phase. A write in between replaces the
// copy: the migration then hangs at its end, "missing source and/or target PVC name(s)"
// in virt-controller's log.
func (s *Snapshot) stateUnsaved() bool {
	if s.Migration.Status.Phase != kubevirtv1.MigrationPending {
		return false
	}
	return s.Instance == nil || slices.ContainsFunc(s.Instance.Status.VolumeStatus, func(v kubevirtv1.VolumeStatus) bool { return v.Name == stateVolume })
}

// finishing reports a migration that ends with its VMI. virt-controller (seen in 1.8.4,
// read in 1.9.0) takes its finalizer off the VMIM only while the VMI exists, which is a
// matter of milliseconds then; whatever holds that up leaves a VMIM that is deleted and
// never goes, and its namespace with it. virt-controller deletes the VMIM when it has seen
// that the VMI is gone: a finalizer that is on it by then stays, and a write does no harm.
func (s *Snapshot) finishing() bool {
	switch {
	case !slices.Contains(s.Migration.Finalizers, kubevirtv1.VirtualMachineInstanceMigrationFinalizer):
		return false
	case s.Instance == nil:
		return s.Migration.DeletionTimestamp == nil
	case s.Instance.IsFinal():
		return true
	default:
		return s.Instance.DeletionTimestamp != nil && s.Migration.IsFinal()
	}
}
