package dualattach

import (
	"testing"

	kubevirtv1 "kubevirt.io/api/core/v1"
)

// TestWithheld: a VMIM is not written where that would do harm; what there is to say is
// decided all the same.
func TestWithheld(t *testing.T) {
	cases := map[string]struct {
		args *builder
		want bool
	}{
		"pending, with a TPM's state":      {phased(kubevirtv1.MigrationPending, "disk", stateVolume), true},
		"pending, its VMI not seen":        {phased(kubevirtv1.MigrationPending).gone(), true},
		"pending, a VM without state":      {phased(kubevirtv1.MigrationPending, "disk"), false},
		"the target exists, and is stored": {phased(kubevirtv1.MigrationScheduling, stateVolume), false},
		"pending, gone":                    {phased(kubevirtv1.MigrationPending, stateVolume).on(a).vanished(100), false},

		"failed, the VMI goes on":                {held().failed(100), false},
		"failed, the VMI is being deleted":       {held().failed(100).deleting(90), true},
		"under way, the VMI is being deleted":    {held().deleting(90), false},
		"under way, the VMI is over":             {held().over(), true},
		"failed, the VMI is over":                {held().failed(100).over(), true},
		"let go by KubeVirt, the VMI is over":    {held().failed(100).over().letGo(), false},
		"failed, the VMI is gone":                {held().failed(100).gone(), true},
		"failed, the VMI is gone, it is deleted": {held().failed(100).gone().discarded(110), false},
		"failed and cancelled, the VMI is over":  {held().failed(100).over().discarded(80), true},
		"gone":                                   {held().failed(100).over().vanished(110), false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Decide(tc.args.now(960).Snapshot)
			if got.Withheld != tc.want || len(got.Conditions) == 0 {
				t.Errorf("withheld: %t, want %t, of %d conditions", got.Withheld, tc.want, len(got.Conditions))
			}
		})
	}
}

// TestWithheldWithdrawn: what turned out to copy blocks is withheld like any other.
func TestWithheldWithdrawn(t *testing.T) {
	x := held().decided(50).failed(100).over().do(func(s *Snapshot) { s.Copied = true })
	if got := Decide(x.Snapshot); got.Stage != NotInvolved || !got.Withheld {
		t.Errorf("%s, withheld: %t", got.Stage, got.Withheld)
	}
}

// phased is a migration in a phase, of a VMI with those volumes.
func phased(phase kubevirtv1.VirtualMachineInstanceMigrationPhase, volumes ...string) *builder {
	x := migration()
	x.Migration.Status.Phase = phase
	for _, name := range volumes {
		x.Instance.Status.VolumeStatus = append(x.Instance.Status.VolumeStatus, kubevirtv1.VolumeStatus{Name: name})
	}
	return x
}

// held is a migration handed off that bears KubeVirt's finalizer.
func held() *builder {
	x := migration().on(a, b).handedOff(20)
	x.Migration.Finalizers = []string{"somebody's", kubevirtv1.VirtualMachineInstanceMigrationFinalizer}
	return x
}

// letGo: KubeVirt's finalizer is off.
func (x *builder) letGo() *builder {
	x.Migration.Finalizers = x.Migration.Finalizers[:1]
	return x
}

// deleting: the VMI is being deleted since a time.
func (x *builder) deleting(seconds int) *builder {
	x.Instance.DeletionTimestamp = stamp(seconds)
	return x
}

// over: the VMI has failed.
func (x *builder) over() *builder {
	x.Instance.Status.Phase = kubevirtv1.Failed
	return x
}

// discarded: the VMIM is being deleted since a time.
func (x *builder) discarded(seconds int) *builder {
	x.Migration.DeletionTimestamp = stamp(seconds)
	return x
}
