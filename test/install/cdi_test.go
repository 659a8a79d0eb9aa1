package install

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// A disk of which its owner says the size only; the rest follows from the class.
const dataVolume = `
apiVersion: cdi.kubevirt.io/v1beta1
kind: DataVolume
metadata: {name: root, namespace: shop}
spec:
  source: {blank: {}}
  storage: {resources: {requests: {storage: 1Gi}}}
`

// persistentTPM: a VM starts and moves whose TPM is kept in a claim that KubeVirt
// makes, in the StorageProfile's way: KubeVirt's own would be ReadWriteMany Filesystem,
// which no volume of ours can be. A disk is plugged in, which keeps the migration
// Pending until it is attached on both nodes.
func (s *site) persistentTPM(ctx context.Context, t *testing.T) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s.newClaim(ctx, t, "sealed")
	s.newClaim(ctx, t, "plugged")
	vm, err := s.CreateVMI(ctx, lab.NewVMI(tenant, "sealed").WithDisk("sealed").Where(func(vm *lab.VMI) {
		vm.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: ptr.To(true)}
	}))
	must(t, err)
	must(t, s.WaitVMIRunning(ctx, vm))
	before := s.state(ctx, t)
	if !slices.Equal(before.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}) || *before.Spec.VolumeMode != corev1.PersistentVolumeFilesystem {
		t.Errorf("KubeVirt made the claim of the TPM's state %v, %v", before.Spec.AccessModes, *before.Spec.VolumeMode)
	}
	must(t, s.Hotplug(ctx, vm, "plugged"))
	must(t, s.WaitDisk(ctx, vm, "plugged"))
	mark, err := s.MarkAudit()
	must(t, err)
	s.migrate(ctx, t, vm)
	s.judgePatience(t, mark)
	// A state that one node only may have moves to a claim of the target's. The former
	// claim is deleted; it goes with the source's pod.
	must(t, s.WaitFor(ctx, "the state's former claim to be deleted", func(ctx context.Context) (bool, error) {
		former := &corev1.PersistentVolumeClaim{}
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(before), former)
		return err != nil || former.DeletionTimestamp != nil, client.IgnoreNotFound(err)
	}))
	if after := s.state(ctx, t); after.Name == before.Name || after.Status.Phase != corev1.ClaimBound {
		t.Errorf("the state is in %s (%s), and was in %s", after.Name, after.Status.Phase, before.Name)
	}
	s.remove(ctx, t, vm)
	must(t, s.WaitAttached(ctx, s.claim(ctx, t, "plugged").Spec.VolumeName))
}

// judgePatience: no migration was written to while it was Pending, when KubeVirt knows
// only by heart where the state is.
func (s *site) judgePatience(t *testing.T, mark lab.AuditMark) {
	t.Helper()
	writes, err := s.AuditSince(mark, audit.Event.Write, func(e audit.Event) bool {
		return !e.Failed() && e.User.Name == stack.OperatorUser && e.Object.Resource == "virtualmachineinstancemigrations"
	})
	must(t, err)
	for _, e := range writes {
		var after kubevirtv1.VirtualMachineInstanceMigration
		if err := json.Unmarshal(e.ResponseObject.Raw, &after); err != nil || after.Status.Phase == kubevirtv1.MigrationPending {
			t.Errorf("written while Pending: %s (%v)", e, err)
		}
	}
	if len(writes) == 0 {
		t.Error("the audit log shows no write of the operator's")
	}
}

// withoutAccessModes: a VM starts and moves whose disk is a DataVolume without access
// modes; CDI takes them from the StorageProfile that the operator wrote.
func (s *site) withoutAccessModes(ctx context.Context, t *testing.T) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	must(t, s.ApplyYAML(ctx, dataVolume))
	s.importBlank(ctx, t)
	root := s.claim(ctx, t, "root")
	if modes := root.Spec.AccessModes; !slices.Equal(modes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}) || *root.Spec.VolumeMode != corev1.PersistentVolumeBlock {
		t.Errorf("CDI made the claim %v, %v", modes, *root.Spec.VolumeMode)
	}
	vm, err := s.CreateVMI(ctx, lab.NewVMI(tenant, "root").WithDisk("root").Where(func(vm *lab.VMI) {
		vm.Spec.Volumes[0].VolumeSource = kubevirtv1.VolumeSource{DataVolume: &kubevirtv1.DataVolumeSource{Name: "root"}}
	}))
	must(t, err)
	must(t, s.WaitVMIRunning(ctx, vm))
	s.migrate(ctx, t, vm)
	s.remove(ctx, t, vm)
}

// remove deletes a VM and waits until its disk is detached.
func (s *site) remove(ctx context.Context, t *testing.T, vm *lab.VMI) {
	t.Helper()
	must(t, s.Client.Delete(ctx, vm))
	must(t, s.WaitVMIGone(ctx, vm))
	must(t, s.WaitAttached(ctx, s.claim(ctx, t, vm.Name).Spec.VolumeName))
}

// importBlank lets CDI's importer, which is played, end well; then the claim is bound.
func (s *site) importBlank(ctx context.Context, t *testing.T) {
	t.Helper()
	must(t, s.WaitFor(ctx, "the importer to run", func(ctx context.Context) (bool, error) {
		var list corev1.PodList
		err := s.Client.List(ctx, &list, client.InNamespace(tenant), client.HasLabels{"cdi.kubevirt.io"})
		for i := range list.Items {
			if pod := &list.Items[i]; strings.HasPrefix(pod.Name, "importer-") && pod.Status.Phase == corev1.PodRunning {
				s.Node(pod.Spec.NodeName).Kubelet.Exit(pod.UID, false)
				return true, err
			}
		}
		return false, err
	}))
	must(t, s.WaitFor(ctx, "the DataVolume's claim to be bound", func(ctx context.Context) (bool, error) {
		return s.claim(ctx, t, "root").Status.Phase == corev1.ClaimBound, nil
	}))
}

// state is the claim that keeps the TPM's state of the VM.
func (s *site) state(ctx context.Context, t *testing.T) *corev1.PersistentVolumeClaim {
	t.Helper()
	var list corev1.PersistentVolumeClaimList
	must(t, s.Client.List(ctx, &list, client.InNamespace(tenant), client.MatchingLabels{"persistent-state-for": "sealed"}))
	list.Items = slices.DeleteFunc(list.Items, func(c corev1.PersistentVolumeClaim) bool { return c.DeletionTimestamp != nil })
	if len(list.Items) != 1 {
		t.Fatalf("%d claims keep the state", len(list.Items))
	}
	return &list.Items[0]
}
