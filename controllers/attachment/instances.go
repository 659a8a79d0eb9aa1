package attachment

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/retry"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// Speaker has VMIs say things, as vmireport.Speaker does.
type Speaker interface {
	Say(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (held bool, next time.Time, err error)
	Forbidden(of vmicondition.Type) []types.NamespacedName
	Forget(vmi types.NamespacedName, of vmicondition.Type)
}

// Instances is the reconciler, keyed by the VMI, that has it say what stands about the
// volumes it uses. It takes KubeVirt.
type Instances struct {
	*Reconciler
	speaker Speaker
}

// Instances makes the one that goes with r.
func (r *Reconciler) Instances(s Speaker) *Instances { return &Instances{r, s} }

// SetupWithManager starts the controller with the manager. granted tells when what was
// forbidden no longer is.
func (r *Instances) SetupWithManager(mgr manager.Manager, granted <-chan event.GenericEvent) error {
	return builder.ControllerManagedBy(mgr).
		Named("attachment-instance").
		For(&kubevirtv1.VirtualMachineInstance{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: instanceChanged})).
		WatchesRawSource(r.table.wakeups).
		WatchesRawSource(source.Channel(granted, handler.EnqueueRequestsFromMapFunc(r.forbidden))).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: retry.Pace()}).
		Complete(r)
}

// Reconcile has one VMI say what stands about its volumes, once all of them were looked
// at: the look at each is followed by one here.
func (r *Instances) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var vmi kubevirtv1.VirtualMachineInstance
	switch err := r.gather.Client.Get(ctx, req.NamespacedName, &vmi); {
	case apierrors.IsNotFound(err):
		r.speaker.Forget(req.NamespacedName, vmicondition.StorageDualAttachUnexplained)
		return reconcile.Result{}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("read VMI %s: %w", req.NamespacedName, err)
	}
	volumes, err := r.gather.VolumesOfInstance(ctx, req.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	next, err := r.speak(ctx, &vmi, volumes)
	if err != nil || next.IsZero() {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: max(time.Millisecond, next.Sub(r.clock.Now()))}, nil
}

func (r *Instances) speak(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, volumes []string) (next time.Time, err error) {
	found, looked := r.table.unexplained(volumes)
	if !looked {
		return time.Time{}, nil
	}
	c := unexplained.DecideInstance(vmi, found)
	if c == nil {
		return time.Time{}, nil
	}
	_, next, err = r.speaker.Say(ctx, vmi, vmicondition.Condition{Type: vmicondition.StorageDualAttachUnexplained,
		Status: c.Status, Reason: c.Reason, Message: c.Message})
	return next, err
}

func (r *Instances) forbidden(context.Context, client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, key := range r.speaker.Forbidden(vmicondition.StorageDualAttachUnexplained) {
		out = append(out, reconcile.Request{NamespacedName: key})
	}
	return out
}

func instanceChanged(e event.UpdateEvent) bool {
	a, b := e.ObjectOld.(*kubevirtv1.VirtualMachineInstance), e.ObjectNew.(*kubevirtv1.VirtualMachineInstance)
	return a.Status.Phase != b.Status.Phase || carries(a) != carries(b)
}

// carries is what our condition on a VMI says.
func carries(vmi *kubevirtv1.VirtualMachineInstance) corev1.ConditionStatus {
	for _, c := range vmi.Status.Conditions {
		if c.Type == unexplained.ConditionInstance {
			return c.Status
		}
	}
	return ""
}

// wakeups hands VMIs over to their controller, from when there is one. It is a
// source.Source.
type wakeups struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
}

// Start implements source.Source.
func (w *wakeups) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = queue
	return nil
}

func (w *wakeups) add(keys []types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range keys {
		if w.queue != nil {
			w.queue.Add(reconcile.Request{NamespacedName: key})
		}
	}
}
