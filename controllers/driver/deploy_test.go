package driver

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
)

// cluster keeps objects by what describe calls them. It panics at any call but those
// that deploying takes.
type cluster struct {
	client.Client
	objects map[string]*unstructured.Unstructured
	log     []string // what was asked, but for reading one object
}

// newCluster has the keys' Secrets and what CDI made for the class of exampleDriver.
func newCluster() *cluster {
	c := &cluster{objects: map[string]*unstructured.Unstructured{}}
	for name, key := range map[string]string{"rds-main": "ssh-privatekey", "rds-far": "id"} {
		secret := newObject(corev1.SchemeGroupVersion.WithKind("Secret"), "storage", name)
		secret.Object["data"] = map[string]any{key: "a2V5"}
		c.put(secret)
	}
	c.put(newObject(kindStorageProfile, "", "rds"))
	return c
}

func (c *cluster) put(u *unstructured.Unstructured) { c.objects[describe(u)] = u }

func (c *cluster) reconciler() *Reconciler {
	return New(Config{Client: c, Arrays: noArrays{}, Namespace: "storage", Images: exampleFacts().Images,
		Served: func(context.Context) (map[schema.GroupVersionKind]bool, error) { return exampleFacts().Served, nil }})
}

// asked is what was asked since the last time.
func (c *cluster) asked() []string {
	log := c.log
	c.log = nil
	return log
}

// Get implements client.Reader.
func (c *cluster) Get(_ context.Context, key client.ObjectKey, out client.Object, _ ...client.GetOption) error {
	kind := out.GetObjectKind().GroupVersionKind()
	if kind.Empty() {
		kind.Kind = reflect.TypeOf(out).Elem().Name()
	}
	found, ok := c.objects[describe(newObject(kind, key.Namespace, key.Name))]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	if u, ok := out.(*unstructured.Unstructured); ok {
		u.Object = found.DeepCopy().Object
		return nil
	}
	return runtime.DefaultUnstructuredConverter.FromUnstructured(found.Object, out)
}

// List implements client.Reader: of one kind, those that are marked as ours.
func (c *cluster) List(_ context.Context, out client.ObjectList, _ ...client.ListOption) error {
	list := out.(*unstructured.UnstructuredList)
	c.log = append(c.log, "list "+list.GetKind())
	for _, u := range c.objects {
		if u.GetKind() == list.GetKind() && u.GetLabels()[ManagedBy] == managedByValue {
			list.Items = append(list.Items, *u.DeepCopy())
		}
	}
	return nil
}

// Apply implements client.Writer: what is applied replaces what is there.
func (c *cluster) Apply(_ context.Context, o runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
	content, err := json.Marshal(o)
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(content); err != nil {
		return err
	}
	u.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: fieldOwner}})
	c.log = append(c.log, "apply "+describe(u))
	c.put(u)
	return nil
}

// Delete implements client.Writer.
func (c *cluster) Delete(_ context.Context, o client.Object, _ ...client.DeleteOption) error {
	name := describe(o.(*unstructured.Unstructured))
	c.log = append(c.log, "delete "+name)
	delete(c.objects, name)
	return nil
}

// Patch implements client.Writer: it is noted only.
func (c *cluster) Patch(_ context.Context, o client.Object, _ client.Patch, _ ...client.PatchOption) error {
	c.log = append(c.log, "patch "+describe(o.(*unstructured.Unstructured)))
	return nil
}

// noArrays are arrays of which nothing is known.
type noArrays struct{}

func (noArrays) File(*v1alpha1.RDSDriverSpec) ([]byte, error)          { return nil, nil }
func (noArrays) Status(*v1alpha1.RDSDriverSpec) []v1alpha1.ArrayStatus { return nil }

// TestForeignClass: a class of somebody else's is refused and looked at again soon, and
// its StorageProfile is neither written nor, when the driver goes, emptied, be it that
// an earlier version wrote it.
func TestForeignClass(t *testing.T) {
	c, d := newCluster(), exampleDriver()
	c.put(newObject(kindStorageClass, "", "rds"))
	r := c.reconciler()
	o := r.deploy(t.Context(), d)
	if len(o.problems) != 1 || !strings.Contains(o.problems[0], "StorageClass rds exists") || o.retry != nil || o.again != servedAgain {
		t.Errorf("problems %q, retry %v, again in %s", o.problems, o.retry, o.again)
	}
	if log := c.asked(); slices.Contains(log, "apply StorageProfile rds") || slices.Contains(log, "apply StorageClass rds") {
		t.Errorf("asked %q", log)
	}
	c.objects["StorageProfile rds"].SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: fieldOwner}})
	if err := r.releaseProfiles(t.Context(), d, exampleFacts()); err != nil {
		t.Fatal(err)
	}
	if log := c.asked(); len(log) > 0 {
		t.Errorf("asked at the end %q", log)
	}
	delete(c.objects, "StorageClass rds")
	o = r.deploy(t.Context(), d)
	if log := c.asked(); len(o.problems) > 0 || !slices.Contains(log, "apply StorageClass rds") || !slices.Contains(log, "apply StorageProfile rds") {
		t.Errorf("with the class gone: problems %q, asked %q", o.problems, log)
	}
	if err := r.releaseProfiles(t.Context(), d, exampleFacts()); err != nil {
		t.Fatal(err)
	}
	if log := c.asked(); !slices.Equal(log, []string{"patch StorageProfile rds"}) {
		t.Errorf("asked at the end %q", log)
	}
}

// TestDeployAgain: objects that nobody watches are repaired at the next look, which
// always comes and, where nothing changed, lists and writes nothing.
func TestDeployAgain(t *testing.T) {
	c, d := newCluster(), exampleDriver()
	r := c.reconciler()
	look := func(what string) []string {
		t.Helper()
		if o := r.deploy(t.Context(), d); len(o.problems) > 0 || o.again != lookAgain {
			t.Errorf("%s: problems %q, again in %s", what, o.problems, o.again)
		}
		return c.asked()
	}
	if log := look("the first look"); !slices.Contains(log, "list StorageClass") || !slices.Contains(log, "apply PrometheusRule storage/rds-csi-operator") {
		t.Errorf("the first look asked %q", log)
	}
	if log := look("the second look"); len(log) > 0 {
		t.Errorf("nothing changed, and it asked %q", log)
	}
	delete(c.objects, "PrometheusRule storage/rds-csi-operator")
	c.put(newObject(kindStorageProfile, "", "rds"))
	want := []string{"apply StorageProfile rds", "apply PrometheusRule storage/rds-csi-operator"}
	if log := look("without alerts and profile"); !slices.Equal(log, want) {
		t.Errorf("asked %q, want %q", log, want)
	}
	d.Spec.StorageClasses = nil
	if log := look("another spec"); !slices.Contains(log, "delete StorageClass rds") {
		t.Errorf("a class is not wanted any more, and it asked %q", log)
	}
}
