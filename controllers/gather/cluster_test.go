package gather

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

const (
	driver = "rds.csi.srvlab.io"
	a      = "node-a"
	b      = "node-b"
	c      = "node-c"
)

// noon is when the migration web-1 is made.
var noon = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) metav1.Time {
	return metav1.NewTime(noon.Add(time.Duration(seconds) * time.Second))
}

var web = types.NamespacedName{Namespace: "shop", Name: "web"}

// cluster is a reader of the objects in it, by the indexes that AddIndexes gives, and
// as slim as the cache has them.
type cluster struct {
	objects []client.Object
	indexes map[string]client.IndexerFunc
	fails   map[reflect.Type]error // by the type that is read or listed
}

var errDown = errors.New("the cache is not there")

func newCluster(t *testing.T, objects ...client.Object) *cluster {
	t.Helper()
	cl := &cluster{indexes: map[string]client.IndexerFunc{}, fails: map[reflect.Type]error{}}
	for _, o := range objects {
		slim, err := Slim(o.DeepCopyObject())
		if err != nil {
			t.Fatal(err)
		}
		cl.objects = append(cl.objects, slim.(client.Object))
	}
	if err := errors.Join(AddIndexes(t.Context(), cl), AddMigrationIndexes(t.Context(), cl)); err != nil {
		t.Fatal(err)
	}
	return cl
}

func (cl *cluster) gatherer() *Gatherer {
	return &Gatherer{Client: cl, Driver: driver, Views: ledgers{}}
}

// IndexField implements client.FieldIndexer.
func (cl *cluster) IndexField(_ context.Context, o client.Object, field string, values client.IndexerFunc) error {
	cl.indexes[fmt.Sprintf("%T %s", o, field)] = values
	return nil
}

// Get implements client.Reader.
func (cl *cluster) Get(_ context.Context, key client.ObjectKey, out client.Object, _ ...client.GetOption) error {
	if err := cl.fails[reflect.TypeOf(out)]; err != nil {
		return err
	}
	for _, o := range cl.objects {
		if reflect.TypeOf(o) == reflect.TypeOf(out) && client.ObjectKeyFromObject(o) == key {
			reflect.ValueOf(out).Elem().Set(reflect.ValueOf(o.DeepCopyObject()).Elem())
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

// List implements client.Reader: by namespace and at most one index.
func (cl *cluster) List(_ context.Context, out client.ObjectList, opts ...client.ListOption) error {
	if err := cl.fails[reflect.TypeOf(out)]; err != nil {
		return err
	}
	var by client.ListOptions
	by.ApplyOptions(opts)
	items := reflect.ValueOf(out).Elem().FieldByName("Items").Type().Elem()
	var found []runtime.Object
	for _, o := range cl.objects {
		if reflect.TypeOf(o).Elem() != items || (by.Namespace != "" && o.GetNamespace() != by.Namespace) {
			continue
		}
		if by.FieldSelector != nil && !cl.matches(o, by.FieldSelector.Requirements()) {
			continue
		}
		found = append(found, o.DeepCopyObject())
	}
	return meta.SetList(out, found)
}

func (cl *cluster) matches(o client.Object, requirements fields.Requirements) bool {
	for _, r := range requirements {
		values, ok := cl.indexes[fmt.Sprintf("%T %s", o, r.Field)]
		if !ok {
			panic("no index " + r.Field)
		}
		found := false
		for _, value := range values(o) {
			found = found || value == r.Value
		}
		if !found {
			return false
		}
	}
	return true
}

// ledgers answers for every handle with a ledger that carries it.
type ledgers struct{}

func (ledgers) Told(handle string, now time.Time) unexplained.Told {
	return unexplained.Told{ObservedAt: now, Ledger: rds.Ledger{Known: true, Foreign: handle}}
}

func controlledBy(kind, name, uid string) []metav1.OwnerReference {
	return []metav1.OwnerReference{{Kind: kind, Name: name, UID: types.UID(uid), Controller: ptr.To(true)}}
}

// launcher is a virt-launcher pod of the VMI web.
func launcher(name, node string, created int, claims ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: web.Namespace, Name: name, UID: types.UID("uid-" + name), CreationTimestamp: at(created),
			Labels: map[string]string{}, OwnerReferences: controlledBy("VirtualMachineInstance", web.Name, "uid-vmi")},
		Spec: corev1.PodSpec{NodeName: node},
	}
	use(pod, claims...)
	return pod
}

// ownedBy is the launcher pod of another VMI of the same name.
func ownedBy(pod *corev1.Pod, uid string) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.OwnerReferences = controlledBy("VirtualMachineInstance", web.Name, uid)
	return pod
}

func use(pod *corev1.Pod, claims ...string) {
	for _, claim := range claims {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}})
	}
}

// target marks a launcher pod as made for a migration. KubeVirt's node label on it
// still names the source, which must not matter.
func target(pod *corev1.Pod, uid string) *corev1.Pod {
	pod.Labels[kubevirtv1.MigrationJobLabel] = uid
	pod.Labels[kubevirtv1.NodeNameLabel] = a
	return pod
}

// hotplug is the attachment pod that a launcher owns.
func hotplug(owner *corev1.Pod, claims ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: owner.Namespace, Name: "hp-volume-" + owner.Name,
		OwnerReferences: controlledBy("Pod", owner.Name, string(owner.UID))}, Spec: corev1.PodSpec{NodeName: owner.Spec.NodeName}}
	use(pod, claims...)
	return pod
}

// vmim is a migration of the VMI web; its UID is "uid-" and its name.
func vmim(name string, created int, change ...func(*kubevirtv1.VirtualMachineInstanceMigration)) *kubevirtv1.VirtualMachineInstanceMigration {
	m := &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: web.Namespace, Name: name, UID: types.UID("uid-" + name), CreationTimestamp: at(created)},
		Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: web.Name},
		Status:     kubevirtv1.VirtualMachineInstanceMigrationStatus{Phase: kubevirtv1.MigrationScheduling},
	}
	for _, f := range change {
		f(m)
	}
	return m
}

// state is what KubeVirt says of a migration after the hand-off.
func state(migration, source, target string) *kubevirtv1.VirtualMachineInstanceMigrationState {
	return &kubevirtv1.VirtualMachineInstanceMigrationState{MigrationUID: types.UID("uid-" + migration),
		SourceNode: source, TargetNode: target}
}

func instance(node string, st *kubevirtv1.VirtualMachineInstanceMigrationState) *kubevirtv1.VirtualMachineInstance {
	return &kubevirtv1.VirtualMachineInstance{
		ObjectMeta: metav1.ObjectMeta{Namespace: web.Namespace, Name: web.Name, UID: "uid-vmi"},
		Status:     kubevirtv1.VirtualMachineInstanceStatus{Phase: kubevirtv1.Running, NodeName: node, MigrationState: st},
	}
}

// storage is a bound claim of ours and its volume, which several nodes may hold.
func storage(name string, change ...func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume)) []client.Object {
	pvc := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: web.Namespace, Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv-" + name}}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name}, Spec: corev1.PersistentVolumeSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
		ClaimRef:    &corev1.ObjectReference{Namespace: web.Namespace, Name: name},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
			Driver: driver, VolumeHandle: "slot-" + name, VolumeAttributes: map[string]string{}}},
	}}
	for _, f := range change {
		f(pvc, pv)
	}
	return []client.Object{pvc, pv}
}

func attachment(claim, node string, attached bool, created int) *storagev1.VolumeAttachment {
	return &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: "csi-" + claim + "-" + node, CreationTimestamp: at(created)},
		Spec:       storagev1.VolumeAttachmentSpec{NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("pv-" + claim)}},
		Status:     storagev1.VolumeAttachmentStatus{Attached: attached},
	}
}

func node(name string, ready corev1.ConditionStatus) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue}, {Type: corev1.NodeReady, Status: ready}}}}
}

// noIndexes refuses every index.
type noIndexes struct{}

func (noIndexes) IndexField(context.Context, client.Object, string, client.IndexerFunc) error {
	return errDown
}
