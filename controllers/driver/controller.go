package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
)

// Finalizer keeps the resource until the plugin is gone.
const Finalizer = "rds.csi.srvlab.io/driver"

const (
	// lookAgain is how often all is compared, as not every kind is watched.
	lookAgain = 10 * time.Minute
	// servedAgain is how often the cluster is asked for kinds that it did not have, and
	// for names that others' objects have.
	servedAgain = time.Minute
	// notYetAgain is how soon an object that CDI is about to make is looked for again.
	notYetAgain = 5 * time.Second
	// deletionRetry is how soon a deletion that waits for volumes looks again.
	deletionRetry = 10 * time.Second
)

// Arrays tells of the arrays what the reconciler cannot know itself.
type Arrays interface {
	// File is the plugin's arrays.yaml for a spec.
	File(spec *v1alpha1.RDSDriverSpec) ([]byte, error)
	// Status is how each array of the spec was last seen.
	Status(spec *v1alpha1.RDSDriverSpec) []v1alpha1.ArrayStatus
}

// Grant tells whether timeouts show as conditions of VMIs: known is false while it
// has not been asked, message says what to do or that nothing is missing.
type Grant func() (granted, known bool, message string)

// Config is what a Reconciler is made of.
type Config struct {
	Client client.Client // reads unstructured objects live
	// Served asks the cluster which of the optional kinds it has.
	Served    func(ctx context.Context) (map[schema.GroupVersionKind]bool, error)
	Arrays    Arrays
	Grant     Grant
	Namespace string
	Images    v1alpha1.Images
}

// Reconciler keeps one RDSDriver deployed.
type Reconciler struct {
	Config
	client client.Client
	pruned string // what was wanted when what was not was last deleted
}

// New makes a reconciler.
func New(c Config) *Reconciler { return &Reconciler{Config: c, client: c.Client} }

// Reconcile makes the cluster as the resource says.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	d := &v1alpha1.RDSDriver{}
	if err := r.client.Get(ctx, req.NamespacedName, d); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if d.DeletionTimestamp != nil {
		return r.release(ctx, d)
	}
	if controllerutil.AddFinalizer(d, Finalizer) {
		if err := r.client.Update(ctx, d); err != nil {
			return reconcile.Result{}, fmt.Errorf("add the finalizer: %w", err)
		}
	}
	o := r.deploy(ctx, d)
	if err := r.report(ctx, d, o); err != nil {
		return reconcile.Result{}, err
	}
	if o.retry != nil {
		return reconcile.Result{}, o.retry
	}
	return reconcile.Result{RequeueAfter: o.again}, nil
}

// deploy writes what is wanted and observes what there is.
func (r *Reconciler) deploy(ctx context.Context, d *v1alpha1.RDSDriver) observation {
	o := observation{arrays: r.Arrays.Status(&d.Spec), again: lookAgain}
	facts, err := r.facts(ctx, d)
	if err != nil {
		o.fail(err)
		return o
	}
	if slices.ContainsFunc(Optional, func(k schema.GroupVersionKind) bool { return !facts.Served[k] }) {
		o.lookWithin(servedAgain)
	}
	wanted, err := Desired(d, facts)
	if err != nil {
		o.fail(err)
		return o
	}
	r.applyAll(ctx, wanted, &o)
	if err := r.prune(ctx, wanted, facts); err != nil {
		o.fail(err)
	}
	if err := r.workloads(ctx, &o); err != nil {
		o.fail(err)
	}
	return o
}

// applyAll makes what is wanted. The profile of a class is left alone unless the class,
// which comes before it, is ours.
func (r *Reconciler) applyAll(ctx context.Context, wanted []*unstructured.Unstructured, o *observation) {
	classes := map[string]bool{}
	for _, object := range wanted {
		if object.GroupVersionKind() == kindStorageProfile && !classes[object.GetName()] {
			continue
		}
		switch err := r.apply(ctx, object); {
		case errors.Is(err, errNotYet):
			o.lookWithin(notYetAgain)
		case err != nil:
			o.fail(err)
		case object.GroupVersionKind() == kindStorageClass:
			classes[object.GetName()] = true
		}
	}
}

// facts asks the cluster for what Desired must know.
func (r *Reconciler) facts(ctx context.Context, d *v1alpha1.RDSDriver) (Facts, error) {
	f := Facts{Namespace: r.Namespace, Images: r.Images}
	var err error
	if f.Served, err = r.Served(ctx); err != nil {
		return f, fmt.Errorf("ask which kinds are served: %w", err)
	}
	if f.Arrays, err = r.Arrays.File(&d.Spec); err != nil {
		return f, err
	}
	for _, a := range d.Spec.Arrays {
		key, err := Key(ctx, r.client, r.Namespace, &a)
		if err != nil {
			return f, err
		}
		f.Secrets = append(f.Secrets, key...)
	}
	return f, nil
}

// Key reads the private key of an array's user.
func Key(ctx context.Context, reader client.Reader, namespace string, a *v1alpha1.Array) ([]byte, error) {
	secret := &corev1.Secret{}
	switch err := reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: a.KeySecret.Name}, secret); {
	case apierrors.IsNotFound(err):
		return nil, &missingKeyError{fmt.Sprintf("array %s: Secret %s/%s does not exist; make it with: kubectl -n %s create secret generic %s --from-file=%s=<private key file>",
			a.Name, namespace, a.KeySecret.Name, namespace, a.KeySecret.Name, a.KeySecret.Key)}
	case err != nil:
		return nil, fmt.Errorf("array %s: read Secret %s/%s: %w", a.Name, namespace, a.KeySecret.Name, err)
	}
	key := secret.Data[a.KeySecret.Key]
	if len(key) == 0 {
		return nil, &missingKeyError{fmt.Sprintf("array %s: Secret %s/%s has no key %s", a.Name, namespace, a.KeySecret.Name, a.KeySecret.Key)}
	}
	return key, nil
}

// missingKeyError: only an administrator can mend it; the Secret is watched.
type missingKeyError struct{ message string }

func (e *missingKeyError) Error() string { return e.message }

// KeyMissing reports an error of Key that only an administrator can mend.
func KeyMissing(err error) bool {
	var missing *missingKeyError
	return errors.As(err, &missing)
}

// workloads reads how far the pods are.
func (r *Reconciler) workloads(ctx context.Context, o *observation) error {
	controller, node := &appsv1.Deployment{}, &appsv1.DaemonSet{}
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: "rds-csi-controller"}, controller); client.IgnoreNotFound(err) != nil {
		return err
	}
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: "rds-csi-node"}, node); client.IgnoreNotFound(err) != nil {
		return err
	}
	o.controller = rollout{
		Name: "Deployment rds-csi-controller", Wanted: 1, Ready: controller.Status.AvailableReplicas, Updated: controller.Status.UpdatedReplicas,
		Seen: controller.Generation > 0 && controller.Status.ObservedGeneration == controller.Generation,
	}
	o.node = rollout{
		Name: "DaemonSet rds-csi-node", Wanted: node.Status.DesiredNumberScheduled, Ready: node.Status.NumberAvailable, Updated: node.Status.UpdatedNumberScheduled,
		Seen: node.Generation > 0 && node.Status.ObservedGeneration == node.Generation,
	}
	return nil
}

// report writes the status, if it says something new.
func (r *Reconciler) report(ctx context.Context, d *v1alpha1.RDSDriver, o observation) error {
	granted, known, message := r.Grant()
	o.grant = grant{granted, known, message}
	before := d.Status.DeepCopy()
	decideStatus(d, o)
	if equalStatus(before, &d.Status) {
		return nil
	}
	if err := r.client.Status().Update(ctx, d); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

// release removes the plugin, once no volume is attached: without it, nobody could
// detach them any more. Volumes and their data stay.
func (r *Reconciler) release(ctx context.Context, d *v1alpha1.RDSDriver) (reconcile.Result, error) {
	if !controllerutil.ContainsFinalizer(d, Finalizer) {
		return reconcile.Result{}, nil
	}
	attached, err := r.attached(ctx, d.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(attached) > 0 {
		o := observation{arrays: r.Arrays.Status(&d.Spec), waits: attached}
		if err := r.workloads(ctx, &o); err != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{RequeueAfter: deletionRetry}, r.report(ctx, d, o)
	}
	served, err := r.Served(ctx)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("ask which kinds are served: %w", err)
	}
	f := Facts{Namespace: r.Namespace, Served: served}
	if err := r.releaseProfiles(ctx, d, f); err != nil {
		return reconcile.Result{}, err
	}
	if err := r.prune(ctx, nil, f); err != nil {
		return reconcile.Result{}, err
	}
	controllerutil.RemoveFinalizer(d, Finalizer)
	return reconcile.Result{}, client.IgnoreNotFound(r.client.Update(ctx, d))
}

// attached are the volumes that some node holds, for people.
func (r *Reconciler) attached(ctx context.Context, driver string) ([]string, error) {
	list := &storagev1.VolumeAttachmentList{}
	if err := r.client.List(ctx, list); err != nil {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	var all []string
	for _, va := range list.Items {
		if va.Spec.Attacher == driver && va.Spec.Source.PersistentVolumeName != nil {
			all = append(all, *va.Spec.Source.PersistentVolumeName+" on "+va.Spec.NodeName)
		}
	}
	slices.Sort(all)
	return all, nil
}

// releaseProfiles gives up our fields of CDI's profiles, but for those of others' classes.
func (r *Reconciler) releaseProfiles(ctx context.Context, d *v1alpha1.RDSDriver, f Facts) error {
	if !f.Served[kindStorageProfile] {
		return nil
	}
	var errs []error
	for _, c := range d.Spec.StorageClasses {
		class, live := newObject(kindStorageClass, "", c.Name), newObject(kindStorageProfile, "", c.Name)
		switch err := r.client.Get(ctx, client.ObjectKeyFromObject(class), class); {
		case client.IgnoreNotFound(err) != nil:
			errs = append(errs, err)
			continue
		case err == nil && !ours(class):
			continue
		}
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(live), live); err != nil {
			errs = append(errs, client.IgnoreNotFound(err))
			continue
		}
		if !slices.ContainsFunc(live.GetManagedFields(), ownedByUs) {
			continue
		}
		// Applying it without the field would leave no spec, which CDI's schema refuses.
		without := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"claimPropertySets":null}}`))
		errs = append(errs, client.IgnoreNotFound(r.client.Patch(ctx, live, without)))
	}
	return errors.Join(errs...)
}
