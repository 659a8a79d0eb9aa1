package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	fieldOwner = "rds-csi-operator"
	// appliedHash tells what was applied, so that what is no longer wanted in an
	// object is seen, too.
	appliedHash = "rds.csi.srvlab.io/applied"
)

// foreignError: an object of that name exists and is not ours.
type foreignError struct{ what string }

func (e *foreignError) Error() string {
	return e.what + " exists and was not made by this operator; delete it or, for a class, choose another name"
}

// errNotYet: an object of others that we add to is not there yet.
var errNotYet = errors.New("not there yet")

// apply makes the cluster's object say what is wanted, and writes nothing where it
// does already.
func (r *Reconciler) apply(ctx context.Context, want *unstructured.Unstructured) error {
	content, err := json.Marshal(want.Object)
	if err != nil {
		return fmt.Errorf("%s: %w", describe(want), err)
	}
	foreign := want.GroupVersionKind() == kindStorageProfile
	if !foreign {
		annotations := want.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[appliedHash] = hash(content)
		want.SetAnnotations(annotations)
	}
	live := newObject(want.GroupVersionKind(), want.GetNamespace(), want.GetName())
	switch err := r.client.Get(ctx, client.ObjectKeyFromObject(want), live); {
	case apierrors.IsNotFound(err) && foreign:
		return errNotYet // CDI makes one for each class
	case apierrors.IsNotFound(err):
		live = nil
	case err != nil:
		return fmt.Errorf("read %s: %w", describe(want), err)
	case !foreign && !ours(live):
		return &foreignError{what: describe(want)}
	case contains(live.Object, want.Object):
		return nil
	}
	return r.write(ctx, want, live)
}

// write applies an object. A class whose parameters changed must be made anew.
func (r *Reconciler) write(ctx context.Context, want, live *unstructured.Unstructured) error {
	log.FromContext(ctx).Info("writing", "object", describe(want), "new", live == nil)
	configuration := client.ApplyConfigurationFromUnstructured(want)
	err := r.client.Apply(ctx, configuration, client.FieldOwner(fieldOwner), client.ForceOwnership)
	if apierrors.IsInvalid(err) && live != nil && replaceable(want) {
		log.FromContext(ctx).Info("replacing, as its parameters cannot be changed", "object", describe(want))
		if err := r.client.Delete(ctx, live); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("replace %s: %w", describe(want), err)
		}
		err = r.client.Apply(ctx, configuration, client.FieldOwner(fieldOwner), client.ForceOwnership)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", describe(want), err)
	}
	return nil
}

// replaceable objects are but names for parameters: nothing depends on their identity.
func replaceable(u *unstructured.Unstructured) bool {
	return u.GetKind() == kindStorageClass.Kind || u.GetKind() == kindSnapshotClass.Kind
}

// kinds are all that the operator makes, in the order in which they are deleted: who
// would use the plugin first, the plugin last.
var kinds = []struct {
	gvk        schema.GroupVersionKind
	namespaced bool
}{
	{kindStorageClass, false},
	{kindSnapshotClass, false},
	{kindServiceMonitor, true},
	{kindPrometheusRule, true},
	{appsv1.SchemeGroupVersion.WithKind("Deployment"), true},
	{appsv1.SchemeGroupVersion.WithKind("DaemonSet"), true},
	{corev1.SchemeGroupVersion.WithKind("ConfigMap"), true},
	{storagev1.SchemeGroupVersion.WithKind("CSIDriver"), false},
}

// prune deletes what is ours, but for what is wanted. It lists nothing while the same
// is wanted and served as at the last time.
func (r *Reconciler) prune(ctx context.Context, wanted []*unstructured.Unstructured, f Facts) error {
	keep := map[string]bool{}
	for _, object := range wanted {
		keep[describe(object)] = true
	}
	wants := fmt.Sprint(keep, f.Served)
	if wants == r.pruned {
		return nil
	}
	for _, kind := range kinds {
		if slices.Contains(Optional, kind.gvk) && !f.Served[kind.gvk] || kind.gvk == kindStorageProfile {
			continue
		}
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(kind.gvk)
		options := []client.ListOption{client.MatchingLabels{ManagedBy: managedByValue}}
		if kind.namespaced {
			options = append(options, client.InNamespace(f.Namespace))
		}
		if err := r.client.List(ctx, list, options...); err != nil {
			return fmt.Errorf("list kind %s: %w", kind.gvk.Kind, err)
		}
		for i := range list.Items {
			object := &list.Items[i]
			if keep[describe(object)] || object.GetDeletionTimestamp() != nil || object.GetAnnotations()[appliedHash] == "" {
				continue
			}
			log.FromContext(ctx).Info("deleting", "object", describe(object))
			if err := r.client.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("delete %s: %w", describe(object), err)
			}
		}
	}
	r.pruned = wants
	return nil
}

// ours reports whether an object is marked as the operator's.
func ours(o client.Object) bool { return o.GetLabels()[ManagedBy] == managedByValue }

// describe names an object for people.
func describe(u *unstructured.Unstructured) string {
	if u.GetNamespace() == "" {
		return u.GetKind() + " " + u.GetName()
	}
	return u.GetKind() + " " + u.GetNamespace() + "/" + u.GetName()
}

// contains reports whether live says all that want says. What live says beyond is a
// default or somebody else's; lists are compared element by element.
func contains(live, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, ok := live.(map[string]any)
		if !ok {
			return len(want) == 0 && live == nil
		}
		for key, value := range want {
			if !contains(have[key], value) {
				return false
			}
		}
		return true
	case []any:
		have, ok := live.([]any)
		if !ok || len(have) != len(want) {
			return len(want) == 0 && live == nil
		}
		for i := range want {
			if !contains(have[i], want[i]) {
				return false
			}
		}
		return true
	case nil:
		return live == nil
	default:
		return reflect.DeepEqual(live, want)
	}
}
