package migration

import (
	"context"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/retry"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// workers is how many VMIs are looked at at once.
const workers = 8

// SetupWithManager starts the controller with the manager. observed tells of new
// views of the arrays, granted that conditions can be written on VMIs now.
func (r *Reconciler) SetupWithManager(mgr manager.Manager, observed, granted <-chan event.GenericEvent) error {
	return builder.ControllerManagedBy(mgr).
		Named("migration").
		For(&kubevirtv1.VirtualMachineInstance{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: instanceChanged})).
		Watches(&kubevirtv1.VirtualMachineInstanceMigration{}, r.migrationHandler()).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.instanceOfPod), builder.WithPredicates(predicate.Funcs{UpdateFunc: podChanged})).
		Watches(&storagev1.VolumeAttachment{}, handler.EnqueueRequestsFromMapFunc(r.instancesOfAttachment), builder.WithPredicates(predicate.Funcs{UpdateFunc: attachmentChanged})).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.instancesOnNode), builder.WithPredicates(predicate.Funcs{UpdateFunc: readinessChanged})).
		WatchesRawSource(source.Channel(observed, handler.EnqueueRequestsFromMapFunc(r.instancesUnderWay))).
		WatchesRawSource(source.Channel(granted, handler.EnqueueRequestsFromMapFunc(r.instancesForbidden))).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: retry.Pace()}).
		Complete(r)
}

// migrationHandler enqueues the VMI of a VMIM. The last event of a deleted VMIM
// carries its final status, which nothing else shows.
func (r *Reconciler) migrationHandler() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	add := func(o client.Object, q queue) {
		m := o.(*kubevirtv1.VirtualMachineInstanceMigration)
		q.Add(reconcile.Request{NamespacedName: types.NamespacedName{Namespace: m.Namespace, Name: m.Spec.VMIName}})
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { add(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) { add(e.ObjectNew, q) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) {
			r.table.saw(e.Object.(*kubevirtv1.VirtualMachineInstanceMigration))
			add(e.Object, q)
		},
	}
}

func (r *Reconciler) instanceOfPod(ctx context.Context, o client.Object) []reconcile.Request {
	key, ok := r.gather.InstanceOfPod(ctx, o.(*corev1.Pod))
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

// instancesOfAttachment finds the VMIs by the pods that use the volume now, and by
// the table, as those pods may be gone.
func (r *Reconciler) instancesOfAttachment(ctx context.Context, o client.Object) []reconcile.Request {
	pv := o.(*storagev1.VolumeAttachment).Spec.Source.PersistentVolumeName
	if pv == nil {
		return nil
	}
	keys := r.table.keys(func(e *entry) bool { return e.uses(*pv) })
	if found, err := r.gather.InstancesOfVolume(ctx, *pv); err == nil {
		keys = append(keys, found...)
	}
	return requests(keys)
}

func (e *entry) uses(pv string) bool {
	for _, c := range e.known.Claims {
		if c.PV == pv {
			return true
		}
	}
	return false
}

func (r *Reconciler) instancesOnNode(_ context.Context, o client.Object) []reconcile.Request {
	return requests(r.table.keys(func(e *entry) bool {
		return e.known.Source.Node == o.GetName() || e.known.Target.Node == o.GetName()
	}))
}

func (r *Reconciler) instancesUnderWay(context.Context, client.Object) []reconcile.Request {
	return requests(r.table.keys(func(e *entry) bool { return e.stage == dualattach.DualAttached }))
}

func (r *Reconciler) instancesForbidden(context.Context, client.Object) []reconcile.Request {
	return requests(r.speaker.Forbidden(vmicondition.StorageMigrationTimedOut))
}

func requests(keys []types.NamespacedName) []reconcile.Request {
	out := make([]reconcile.Request, 0, len(keys))
	for _, key := range keys {
		out = append(out, reconcile.Request{NamespacedName: key})
	}
	return out
}

func instanceChanged(e event.UpdateEvent) bool {
	a, b := e.ObjectOld.(*kubevirtv1.VirtualMachineInstance), e.ObjectNew.(*kubevirtv1.VirtualMachineInstance)
	return a.Status.Phase != b.Status.Phase || a.Status.NodeName != b.Status.NodeName ||
		a.Annotations[dualattach.TimeoutAnnotation] != b.Annotations[dualattach.TimeoutAnnotation] ||
		len(a.Status.MigratedVolumes) != len(b.Status.MigratedVolumes) ||
		!reflect.DeepEqual(a.Status.MigrationState, b.Status.MigrationState)
}

func podChanged(e event.UpdateEvent) bool {
	a, b := e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod)
	return a.Status.Phase != b.Status.Phase || a.Spec.NodeName != b.Spec.NodeName
}

func attachmentChanged(e event.UpdateEvent) bool {
	a, b := e.ObjectOld.(*storagev1.VolumeAttachment), e.ObjectNew.(*storagev1.VolumeAttachment)
	return !reflect.DeepEqual(a.Status, b.Status)
}

func readinessChanged(e event.UpdateEvent) bool {
	return gather.NodeReady(e.ObjectOld.(*corev1.Node)) != gather.NodeReady(e.ObjectNew.(*corev1.Node))
}
