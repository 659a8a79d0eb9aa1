package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// VMI is a virtual machine that runs, or is to.
type VMI = kubevirtv1.VirtualMachineInstance

// VMIM is a migration of one.
type VMIM = kubevirtv1.VirtualMachineInstanceMigration

// VMIBuilder makes a VMI.
type VMIBuilder struct{ vmi *VMI }

// NewVMI begins a VMI with 1Gi of memory, no disk and no network.
func NewVMI(namespace, name string) VMIBuilder {
	memory := resource.MustParse("1Gi")
	noInterface, grace := false, int64(0)
	vmi := &VMI{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	vmi.Spec.Domain.Memory = &kubevirtv1.Memory{Guest: &memory}
	vmi.Spec.Domain.Devices.AutoattachPodInterface = &noInterface
	vmi.Spec.TerminationGracePeriodSeconds = &grace
	return VMIBuilder{vmi}
}

// WithDisk adds a disk that is a claim.
func (b VMIBuilder) WithDisk(claim string) VMIBuilder {
	source := kubevirtv1.PersistentVolumeClaimVolumeSource{}
	source.ClaimName = claim
	b.vmi.Spec.Domain.Devices.Disks = append(b.vmi.Spec.Domain.Devices.Disks, kubevirtv1.Disk{
		Name:       claim,
		DiskDevice: kubevirtv1.DiskDevice{Disk: &kubevirtv1.DiskTarget{Bus: kubevirtv1.DiskBusVirtio}},
	})
	b.vmi.Spec.Volumes = append(b.vmi.Spec.Volumes, kubevirtv1.Volume{
		Name: claim, VolumeSource: kubevirtv1.VolumeSource{PersistentVolumeClaim: &source},
	})
	return b
}

// WithMemory sets the guest's memory, on which KubeVirt's deadline depends.
func (b VMIBuilder) WithMemory(size string) VMIBuilder {
	memory := resource.MustParse(size)
	b.vmi.Spec.Domain.Memory.Guest = &memory
	return b
}

// PreferNode starts the VM on a node, if it fits. A node selector would pin the
// VM there for its migrations too.
func (b VMIBuilder) PreferNode(node string) VMIBuilder {
	b.vmi.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
			Weight: 100, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{
				Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
			}}},
		}},
	}}
	return b
}

// WithAnnotation adds an annotation.
func (b VMIBuilder) WithAnnotation(name, value string) VMIBuilder {
	metav1.SetMetaDataAnnotation(&b.vmi.ObjectMeta, name, value)
	return b
}

// Where applies any other change.
func (b VMIBuilder) Where(change func(*VMI)) VMIBuilder {
	change(b.vmi)
	return b
}

// Build is the VMI.
func (b VMIBuilder) Build() *VMI { return b.vmi.DeepCopy() }

// CreateVMI creates a VMI.
func (c *Cluster) CreateVMI(ctx context.Context, b VMIBuilder) (*VMI, error) {
	vmi := b.Build()
	return vmi, c.Client.Create(ctx, vmi)
}

// WaitVMI waits until a VMI is as asked for, and reads it.
func (c *Cluster) WaitVMI(ctx context.Context, vmi *VMI, what string, ok func(*VMI) bool) error {
	key := client.ObjectKeyFromObject(vmi)
	err := c.WaitFor(ctx, fmt.Sprintf("VMI %s %s", key, what), func(ctx context.Context) (bool, error) {
		if err := c.Client.Get(ctx, key, vmi); err != nil {
			return false, err
		}
		return ok(vmi), nil
	})
	if err != nil {
		return fmt.Errorf("%w (phase %s on node %q)", err, vmi.Status.Phase, vmi.Status.NodeName)
	}
	return nil
}

// WaitVMIRunning waits until a VMI runs and can be migrated, and reads it.
func (c *Cluster) WaitVMIRunning(ctx context.Context, vmi *VMI) error {
	return c.WaitVMI(ctx, vmi, "to be running and ready", func(vmi *VMI) bool {
		return vmi.IsRunning() && slices.ContainsFunc(vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
			return c.Type == kubevirtv1.VirtualMachineInstanceReady && c.Status == corev1.ConditionTrue
		})
	})
}

// WaitVMIGone waits until a deleted VMI is gone.
func (c *Cluster) WaitVMIGone(ctx context.Context, vmi *VMI) error {
	key := client.ObjectKeyFromObject(vmi)
	return c.WaitFor(ctx, fmt.Sprintf("VMI %s to be gone", key), func(ctx context.Context) (bool, error) {
		err := c.Client.Get(ctx, key, &VMI{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

// MigrateOption changes a migration that is being created.
type MigrateOption func(*migration)

type migration struct {
	vmim   *VMIM
	course *handler.Course
}

// To makes a node the target.
func To(node string) MigrateOption {
	return func(m *migration) { m.vmim.Spec.AddedNodeSelector = map[string]string{corev1.LabelHostname: node} }
}

// Named names the migration; by default it is the VMI's name with a number.
func Named(name string) MigrateOption {
	return func(m *migration) { m.vmim.Name = name }
}

// Following sets the course of this migration and of the VMI's later ones.
func Following(course handler.Course) MigrateOption {
	return func(m *migration) { m.course = &course }
}

// Annotated adds an annotation to the migration.
func Annotated(name, value string) MigrateOption {
	return func(m *migration) { metav1.SetMetaDataAnnotation(&m.vmim.ObjectMeta, name, value) }
}

// Labelled adds a label to the migration.
func Labelled(name, value string) MigrateOption {
	return func(m *migration) { metav1.SetMetaDataLabel(&m.vmim.ObjectMeta, name, value) }
}

// SendingTo makes it the source's half of a migration to another cluster. Nothing
// plays the synchronization controllers, so it does not come further than waiting.
func SendingTo(url, id string) MigrateOption {
	return func(m *migration) {
		m.vmim.Spec.SendTo = &kubevirtv1.VirtualMachineInstanceMigrationSource{MigrationID: id, ConnectURL: url}
	}
}

// Receiving makes it the target's half of such a migration.
func Receiving(id string) MigrateOption {
	return func(m *migration) {
		m.vmim.Spec.Receive = &kubevirtv1.VirtualMachineInstanceMigrationTarget{MigrationID: id}
	}
}

// Migrate creates a migration of a VMI.
func (c *Cluster) Migrate(ctx context.Context, vmi *VMI, options ...MigrateOption) (*VMIM, error) {
	m := migration{vmim: &VMIM{ObjectMeta: metav1.ObjectMeta{Namespace: vmi.Namespace}}}
	m.vmim.Spec.VMIName = vmi.Name
	for _, option := range options {
		option(&m)
	}
	if m.course != nil {
		if err := c.Handlers().SetCourse(client.ObjectKeyFromObject(vmi), *m.course); err != nil {
			return nil, err
		}
	}
	if m.vmim.Name != "" {
		return m.vmim, c.Client.Create(ctx, m.vmim)
	}
	for n := 1; ; n++ {
		m.vmim.Name = fmt.Sprintf("%s-migration-%d", vmi.Name, n)
		err := c.Client.Create(ctx, m.vmim)
		if !apierrors.IsAlreadyExists(err) {
			return m.vmim, err
		}
	}
}

// WaitMigration waits until a migration is in one of the phases, and reads it.
// A migration that is final in another phase will never be: that is an error.
func (c *Cluster) WaitMigration(ctx context.Context, vmim *VMIM, phases ...kubevirtv1.VirtualMachineInstanceMigrationPhase) error {
	key := client.ObjectKeyFromObject(vmim)
	err := c.WaitFor(ctx, fmt.Sprintf("migration %s to be %v", key, phases), func(ctx context.Context) (bool, error) {
		if err := c.Client.Get(ctx, key, vmim); err != nil {
			return false, err
		}
		if slices.Contains(phases, vmim.Status.Phase) {
			return true, nil
		}
		if vmim.IsFinal() {
			return false, fmt.Errorf("it is %s", vmim.Status.Phase)
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("%w (phase %q)", err, vmim.Status.Phase)
	}
	return nil
}

// WaitStep waits until a migration is before a step of its course.
func (c *Cluster) WaitStep(ctx context.Context, vmim *VMIM, step handler.Step) error {
	return c.WaitFor(ctx, fmt.Sprintf("migration %s to come to %s", vmim.Name, step), func(context.Context) (bool, error) {
		return c.Handlers().At(vmim.UID) == step, nil
	})
}

// Release lets a VMI's migration go on that its course holds.
func (c *Cluster) Release(vmi *VMI) { c.Handlers().Release(client.ObjectKeyFromObject(vmi)) }

// TargetPod finds the launcher pod on the target of a migration; nil if there
// is none yet.
func (c *Cluster) TargetPod(ctx context.Context, vmim *VMIM) (*corev1.Pod, error) {
	pods := &corev1.PodList{}
	err := c.Client.List(ctx, pods, client.InNamespace(vmim.Namespace), client.MatchingLabels{
		kubevirtv1.MigrationJobLabel: string(vmim.UID), kubevirtv1.AppLabel: "virt-launcher",
	})
	if err != nil || len(pods.Items) == 0 {
		return nil, err
	}
	return &pods.Items[0], nil
}

// Hotplug adds a claim as a disk to a running VMI, as virt-api does for
// `virtctl addvolume`.
func (c *Cluster) Hotplug(ctx context.Context, vmi *VMI, claim string) error {
	source := &kubevirtv1.PersistentVolumeClaimVolumeSource{Hotpluggable: true}
	source.ClaimName = claim
	disk := kubevirtv1.Disk{
		Name:       claim,
		DiskDevice: kubevirtv1.DiskDevice{Disk: &kubevirtv1.DiskTarget{Bus: kubevirtv1.DiskBusSCSI}},
	}
	return c.patchVolumes(ctx, vmi, func(spec *kubevirtv1.VirtualMachineInstanceSpec) {
		spec.Volumes = append(spec.Volumes, kubevirtv1.Volume{
			Name: claim, VolumeSource: kubevirtv1.VolumeSource{PersistentVolumeClaim: source},
		})
		spec.Domain.Devices.Disks = append(spec.Domain.Devices.Disks, disk)
	})
}

// WaitDisk waits until a VMI has a hotplugged disk, and reads it.
func (c *Cluster) WaitDisk(ctx context.Context, vmi *VMI, claim string) error {
	return c.WaitVMI(ctx, vmi, "to have disk "+claim, func(vmi *VMI) bool {
		return slices.ContainsFunc(vmi.Status.VolumeStatus, func(v kubevirtv1.VolumeStatus) bool {
			return v.Name == claim && v.Phase == kubevirtv1.VolumeReady
		})
	})
}

// Unplug removes a hotplugged disk, as virt-api does for `virtctl removevolume`.
func (c *Cluster) Unplug(ctx context.Context, vmi *VMI, claim string) error {
	return c.patchVolumes(ctx, vmi, func(spec *kubevirtv1.VirtualMachineInstanceSpec) {
		spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v kubevirtv1.Volume) bool { return v.Name == claim })
		spec.Domain.Devices.Disks = slices.DeleteFunc(spec.Domain.Devices.Disks, func(d kubevirtv1.Disk) bool { return d.Name == claim })
	})
}

// PlanVolumeMigration says on a VMI, as virt-controller does for a VM whose
// volumes were replaced, that its next migration copies a disk to another claim.
func (c *Cluster) PlanVolumeMigration(ctx context.Context, vmi *VMI, disk, to string) error {
	claim := func(name string) *kubevirtv1.PersistentVolumeClaimInfo {
		return &kubevirtv1.PersistentVolumeClaimInfo{ClaimName: name}
	}
	controller, err := c.kubeVirtClient(ctx, "kubevirt-controller")
	if err != nil {
		return err
	}
	return patchJSON(ctx, controller, vmi, operation{"add", "/status/migratedVolumes", []kubevirtv1.StorageMigratedVolumeInfo{
		{VolumeName: disk, SourcePVCInfo: claim(disk), DestinationPVCInfo: claim(to)},
	}})
}

// ReplaceVolume makes another claim the source of a disk, whose volume migration
// is planned.
func (c *Cluster) ReplaceVolume(ctx context.Context, vmi *VMI, disk, claim string) error {
	return c.patchVolumes(ctx, vmi, func(spec *kubevirtv1.VirtualMachineInstanceSpec) {
		for i := range spec.Volumes {
			if spec.Volumes[i].Name == disk {
				spec.Volumes[i].PersistentVolumeClaim.ClaimName = claim
			}
		}
	})
}

// kubeVirtClient has the rights of one of KubeVirt's service accounts.
func (c *Cluster) kubeVirtClient(ctx context.Context, account string) (client.Client, error) {
	config, err := c.ConfigFor(ctx, KubeVirtNamespace, account)
	if err != nil {
		return nil, err
	}
	return c.clientFor(config)
}

// operation is one step of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func patchJSON(ctx context.Context, as client.Client, o client.Object, operations ...operation) error {
	patch, err := json.Marshal(operations)
	if err != nil {
		return err
	}
	return as.Patch(ctx, o, client.RawPatch(types.JSONPatchType, patch))
}

// patchVolumes changes a VMI's disks with virt-api's rights; nobody else may. What
// others write meanwhile about anything else is in nobody's way.
func (c *Cluster) patchVolumes(ctx context.Context, vmi *VMI, change func(*kubevirtv1.VirtualMachineInstanceSpec)) error {
	virtAPI, err := c.kubeVirtClient(ctx, "kubevirt-apiserver")
	if err != nil {
		return err
	}
	current := &VMI{}
	if err := c.Client.Get(ctx, client.ObjectKeyFromObject(vmi), current); err != nil {
		return err
	}
	wanted := current.DeepCopy()
	change(&wanted.Spec)
	return patchJSON(ctx, virtAPI, vmi,
		operation{"test", "/spec/volumes", current.Spec.Volumes},
		operation{"test", "/spec/domain/devices/disks", current.Spec.Domain.Devices.Disks},
		operation{"add", "/spec/volumes", wanted.Spec.Volumes},
		operation{"add", "/spec/domain/devices/disks", wanted.Spec.Domain.Devices.Disks})
}
