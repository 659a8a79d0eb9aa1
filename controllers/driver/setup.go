package driver

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"context"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
)

// SetupWithManager watches the resource and what the operator made for it: the
// metadata only, as objects are read when they have changed. woken tells of what
// shows in no object, such as an array that stops answering.
func (r *Reconciler) SetupWithManager(mgr manager.Manager, woken <-chan event.GenericEvent) error {
	all := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request { return requests(ctx, mgr.GetClient()) })
	changes := predicate.NewPredicateFuncs(ours)
	changes.DeleteFunc = nil // what goes and was not ours may free a name
	made := builder.WithPredicates(changes)
	return builder.ControllerManagedBy(mgr).
		Named("rdsdriver").
		For(&v1alpha1.RDSDriver{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesMetadata(&corev1.Secret{}, all).
		WatchesMetadata(&corev1.ConfigMap{}, all, made).
		WatchesMetadata(&appsv1.Deployment{}, all, made).
		WatchesMetadata(&appsv1.DaemonSet{}, all, made).
		WatchesMetadata(&storagev1.CSIDriver{}, all, made).
		WatchesMetadata(&storagev1.StorageClass{}, all, made).
		WatchesRawSource(source.Channel(woken, all)).
		Complete(r)
}

// requests are for all drivers, of which there is one at most.
func requests(ctx context.Context, reader client.Reader) []reconcile.Request {
	var list v1alpha1.RDSDriverList
	if err := reader.List(ctx, &list); err != nil {
		return nil // of the cache; its own watch brings them
	}
	var all []reconcile.Request
	for _, d := range list.Items {
		all = append(all, reconcile.Request{NamespacedName: types.NamespacedName{Name: d.Name}})
	}
	return all
}
