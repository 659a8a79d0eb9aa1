package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"git.srvlab.io/whiskey/rds-csi-operator/cmd/internal/rdsdriver"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// addDriver deploys the plugin as the RDSDriver says, where the kind is served, and
// lets this process observe that driver's arrays.
func addDriver(mgr manager.Manager, o Options, arrays *observedArrays, set *settings) error {
	kinds, err := discovery.NewDiscoveryClientForConfig(mgr.GetConfig())
	if err != nil {
		return err
	}
	switch served, err := serves(kinds, v1alpha1.GroupVersion.WithKind(v1alpha1.Kind)); {
	case err != nil:
		return fmt.Errorf("ask for the kind RDSDriver: %w", err)
	case !served:
		mgr.GetLogger().Info("the kind RDSDriver is not served: no array is known, and times come from the cluster alone; install config/crd and restart the operator, or give --arrays-file")
		return nil
	}
	namespace, err := ownNamespace(o)
	if err != nil {
		return err
	}
	woken := make(chan event.GenericEvent, 1)
	d := &deployed{arrays: arrays, settings: set, reader: mgr.GetAPIReader(), namespace: namespace, woken: woken}
	arrays.changed, set.changed = d.wake, d.wakeNow
	if err := d.setupWithManager(mgr); err != nil {
		return err
	}
	// What it writes are few objects, read live when they changed.
	live, err := client.New(mgr.GetConfig(), client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return err
	}
	r := driver.New(driver.Config{
		Client: live, Arrays: d, Grant: set.grant, Namespace: namespace, Images: releasedImages(),
		Served: func(context.Context) (map[schema.GroupVersionKind]bool, error) {
			all := map[schema.GroupVersionKind]bool{}
			var errs []error
			for _, kind := range driver.Optional {
				served, err := serves(kinds, kind)
				all[kind] = served
				errs = append(errs, err)
			}
			return all, errors.Join(errs...)
		},
	})
	return r.SetupWithManager(mgr, woken)
}

// serves asks whether the API server knows a kind.
func serves(kinds discovery.DiscoveryInterface, kind schema.GroupVersionKind) (bool, error) {
	list, err := kinds.ServerResourcesForGroupVersion(kind.GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == kind.Kind }), nil
}

// ownNamespace is where the plugin is deployed, and the arrays' Secrets are.
func ownNamespace(o Options) (string, error) {
	if o.LeaseNamespace != "" {
		return o.LeaseNamespace, nil
	}
	data, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return "", fmt.Errorf("find the operator's namespace (or give --lease-namespace): %w", err)
	}
	return string(data), nil
}

// releasedImages come with the operator's Deployment, so that a mirror or OLM can
// replace them.
func releasedImages() v1alpha1.Images {
	return v1alpha1.Images{
		Plugin:              os.Getenv("RELATED_IMAGE_CSI_PLUGIN"),
		Attacher:            os.Getenv("RELATED_IMAGE_CSI_ATTACHER"),
		Provisioner:         os.Getenv("RELATED_IMAGE_CSI_PROVISIONER"),
		Resizer:             os.Getenv("RELATED_IMAGE_CSI_RESIZER"),
		Snapshotter:         os.Getenv("RELATED_IMAGE_CSI_SNAPSHOTTER"),
		NodeDriverRegistrar: os.Getenv("RELATED_IMAGE_NODE_DRIVER_REGISTRAR"),
		LivenessProbe:       os.Getenv("RELATED_IMAGE_LIVENESS_PROBE"),
	}
}

// deployed observes the arrays of the RDSDriver, on every replica, and tells the
// driver's reconciler about them.
type deployed struct {
	arrays    *observedArrays
	settings  *settings
	reader    client.Reader // uncached: Secrets are read by name when they changed
	namespace string
	woken     chan event.GenericEvent
	seen      atomic.Pointer[string] // what the reconciler was last woken for
}

func (d *deployed) setupWithManager(mgr manager.Manager) error {
	everyone := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{}} // there is one RDSDriver at most
	})
	return builder.ControllerManagedBy(mgr).
		Named("arrays").
		WithOptions(controller.Options{NeedLeaderElection: new(bool)}).
		Watches(&v1alpha1.RDSDriver{}, everyone).
		WatchesMetadata(&corev1.Secret{}, everyone).
		Complete(d)
}

// Reconcile implements reconcile.Reconciler: it observes the arrays that the
// RDSDriver names. One that cannot be set up stays as it was, and does not keep the
// others from being observed; the RDSDriver's status says why.
func (d *deployed) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var list v1alpha1.RDSDriverList
	if err := d.reader.List(ctx, &list); err != nil {
		return reconcile.Result{}, err
	}
	if len(list.Items) == 0 {
		d.settings.setDeadlines(v1alpha1.Deadlines{})
		return reconcile.Result{}, d.arrays.set(nil)
	}
	spec := &list.Items[0].Spec
	d.settings.setDeadlines(spec.Deadlines)
	configs, reasons := rdsdriver.ArraysWithKeys(ctx, d.reader, d.namespace, spec)
	var names []string
	for _, a := range spec.Arrays {
		names = append(names, a.Name)
	}
	if err := d.arrays.set(configs, names...); err != nil {
		reasons = append(reasons, err)
	}
	d.wake()
	var again []error
	for _, err := range reasons {
		log.FromContext(ctx).Info("an array is not observed as the RDSDriver says; it is as before, if it was", "reason", err.Error())
		if !driver.KeyMissing(err) && !errors.Is(err, rds.ErrInvalid) {
			again = append(again, err) // no change of an object will tell
		}
	}
	return reconcile.Result{}, errors.Join(again...)
}

// wake lets the reconciler look again if an array's status would say something new.
func (d *deployed) wake() {
	now := d.fingerprint()
	if last := d.seen.Swap(&now); last != nil && *last == now {
		return
	}
	d.wakeNow()
}

func (d *deployed) wakeNow() {
	select {
	case d.woken <- event.GenericEvent{Object: observedMarker}:
	default: // a wake-up is under way
	}
}

func (d *deployed) fingerprint() string {
	var spec v1alpha1.RDSDriverSpec
	for name := range d.arrays.sources() {
		spec.Arrays = append(spec.Arrays, v1alpha1.Array{Name: name})
	}
	slices.SortFunc(spec.Arrays, func(a, b v1alpha1.Array) int { return strings.Compare(a.Name, b.Name) })
	var text string
	for _, s := range d.Status(&spec) {
		text += fmt.Sprintln(s.Name, s.Reachable, s.Version, s.Size, s.Free, s.Message)
	}
	return text
}

// File implements driver.Arrays.
func (d *deployed) File(spec *v1alpha1.RDSDriverSpec) ([]byte, error) {
	configs := rdsdriver.Arrays(spec)
	for i := range configs {
		if err := configs[i].Validate(); err != nil {
			return nil, err
		}
	}
	return routeros.MarshalArrays(configs)
}

// Status implements driver.Arrays.
func (d *deployed) Status(spec *v1alpha1.RDSDriverSpec) []v1alpha1.ArrayStatus {
	var all []v1alpha1.ArrayStatus
	for _, a := range spec.Arrays {
		s := v1alpha1.ArrayStatus{Name: a.Name, Message: "it was not asked yet"}
		if poller := d.arrays.pollerOf(a.Name); poller != nil {
			view := poller.Last()
			s.Reachable = poller.Err() == nil && !poller.Stale(time.Now())
			switch err := poller.Err(); {
			case s.Reachable:
				s.Message = ""
			case err != nil:
				s.Message = err.Error()
			}
			if view.Observed() {
				s.Version = view.Version
				s.Size = resource.NewQuantity(view.Pool.Size, resource.BinarySI)
				step := max(view.Pool.Size/100, 1)
				s.Free = resource.NewQuantity(view.Pool.Free/step*step, resource.BinarySI)
			}
		}
		all = append(all, s)
	}
	return all
}
