package attachment

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/retry"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
)

// workers is how many volumes are looked at at once.
const workers = 4

// SetupWithManager starts the controller with the manager. observed tells of new
// views of the arrays.
func (r *Reconciler) SetupWithManager(mgr manager.Manager, observed <-chan event.GenericEvent) error {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool { return r.gather.Ours(o.(*corev1.PersistentVolume)) })
	return builder.ControllerManagedBy(mgr).
		Named("attachment").
		For(&corev1.PersistentVolume{}, builder.WithPredicates(ours)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.volumesOfPod), builder.WithPredicates(predicate.Funcs{UpdateFunc: podChanged})).
		Watches(&storagev1.VolumeAttachment{}, handler.EnqueueRequestsFromMapFunc(volumeOfAttachment)).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.volumesOnNode), builder.WithPredicates(predicate.Funcs{UpdateFunc: readinessChanged})).
		WatchesRawSource(source.Channel(observed, handler.EnqueueRequestsFromMapFunc(r.volumesStirred))).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: retry.Pace()}).
		Complete(r)
}

func (r *Reconciler) volumesOfPod(ctx context.Context, o client.Object) []reconcile.Request {
	names, err := r.gather.VolumesOfPod(ctx, o.(*corev1.Pod))
	return requests(ctx, names, err)
}

func volumeOfAttachment(ctx context.Context, o client.Object) []reconcile.Request {
	if name := o.(*storagev1.VolumeAttachment).Spec.Source.PersistentVolumeName; name != nil {
		return requests(ctx, []string{*name}, nil)
	}
	return nil
}

func (r *Reconciler) volumesOnNode(ctx context.Context, o client.Object) []reconcile.Request {
	names, err := r.gather.VolumesOnNode(ctx, o.GetName())
	return requests(ctx, names, err)
}

func (r *Reconciler) volumesStirred(ctx context.Context, _ client.Object) []reconcile.Request {
	now := r.clock.Now()
	return requests(ctx, r.table.stirred(func(handle string) unexplained.Told { return r.gather.Views.Told(handle, now) }), nil)
}

func requests(ctx context.Context, names []string, err error) []reconcile.Request {
	if err != nil {
		log.FromContext(ctx).Error(err, "which volumes a change concerns is not known")
	}
	out := make([]reconcile.Request, 0, len(names))
	for _, name := range names {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	}
	return out
}

func podChanged(e event.UpdateEvent) bool {
	a, b := e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod)
	return a.Status.Phase != b.Status.Phase || a.Spec.NodeName != b.Spec.NodeName || !a.DeletionTimestamp.Equal(b.DeletionTimestamp)
}

func readinessChanged(e event.UpdateEvent) bool {
	return gather.NodeReady(e.ObjectOld.(*corev1.Node)) != gather.NodeReady(e.ObjectNew.(*corev1.Node))
}
