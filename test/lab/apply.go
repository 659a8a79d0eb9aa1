package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// fieldOwner is the lab's name in managedFields.
const fieldOwner = client.FieldOwner("lab")

// ApplyYAML applies manifests (server-side), namespaces and kinds first, and
// returns when the kinds are served.
func (c *Cluster) ApplyYAML(ctx context.Context, manifests string) error {
	objects, err := parseYAML(manifests)
	if err != nil {
		return err
	}
	return c.apply(ctx, objects, c.applyOne)
}

// ApplyFile is ApplyYAML for files.
func (c *Cluster) ApplyFile(ctx context.Context, paths ...string) error {
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := c.ApplyYAML(ctx, string(content)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// ApplyKustomize applies what `kubectl kustomize dir` prints.
func (c *Cluster) ApplyKustomize(ctx context.Context, dir string) error {
	manifests, err := c.Kubectl(ctx, "kustomize", dir)
	if err != nil {
		return err
	}
	return c.ApplyYAML(ctx, manifests)
}

// Kubectl runs kubectl with all rights and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	admin, err := c.AdminKubeconfig()
	if err != nil {
		return "", err
	}
	return c.KubectlAs(ctx, admin, args...)
}

// KubectlAs is Kubectl with another kubeconfig.
func (c *Cluster) KubectlAs(ctx context.Context, kubeconfig string, args ...string) (string, error) {
	path, err := c.binary("kubectl")
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HOME="+c.Dir) // its discovery cache
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// KubectlPath is where the lab's kubectl is.
func (c *Cluster) KubectlPath() (string, error) { return c.binary("kubectl") }

func parseYAML(manifests string) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	var objects []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		switch {
		case len(object.Object) == 0: // an empty document
		case object.IsList():
			err = object.EachListItem(func(item runtime.Object) error {
				objects = append(objects, item.(*unstructured.Unstructured))
				return nil
			})
			if err != nil {
				return nil, err
			}
		default:
			objects = append(objects, object)
		}
	}
}

// stage is when an object is applied: what others need comes first.
func stage(o *unstructured.Unstructured) int {
	switch o.GetKind() {
	case "Namespace":
		return 0
	case "CustomResourceDefinition":
		return 1
	default:
		return 2
	}
}

// put is a way to bring an object to the API server.
type put func(context.Context, *unstructured.Unstructured) error

// apply puts objects stage by stage, those of a stage side by side, and waits
// until new kinds are served.
func (c *Cluster) apply(ctx context.Context, objects []*unstructured.Unstructured, put put) error {
	objects = slices.Clone(objects)
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return cmp.Compare(stage(a), stage(b)) })
	for len(objects) > 0 {
		n := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return stage(o) != stage(objects[0]) })
		if n < 0 {
			n = len(objects)
		}
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(8)
		for _, o := range objects[:n] {
			group.Go(func() error {
				if err := put(groupCtx, o); err != nil {
					return fmt.Errorf("applying %s %s: %w", o.GetKind(), client.ObjectKeyFromObject(o), err)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for _, o := range objects[:n] {
			if o.GetKind() != "CustomResourceDefinition" {
				continue
			}
			if err := c.waitServed(ctx, o); err != nil {
				return err
			}
		}
		objects = objects[n:]
	}
	return nil
}

// applyOne applies an object server-side, in the namespace default if it names
// none and needs one.
func (c *Cluster) applyOne(ctx context.Context, o *unstructured.Unstructured) error {
	gvk := o.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace && o.GetNamespace() == "" {
		o.SetNamespace(metav1.NamespaceDefault)
	}
	return c.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), fieldOwner, client.ForceOwnership)
}

// createOne creates an object unless it is there; for many large ones this is
// much less work for the API server than applying them.
func (c *Cluster) createOne(ctx context.Context, o *unstructured.Unstructured) error {
	return client.IgnoreAlreadyExists(c.Client.Create(ctx, o))
}

// waitServed waits until a new kind can be listed. Asking for that costs less
// than reading the definition's status: KubeVirt's are large.
func (c *Cluster) waitServed(ctx context.Context, crd *unstructured.Unstructured) error {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil || len(versions) == 0 {
		return fmt.Errorf("%s has no versions: %w", crd.GetName(), err)
	}
	version, _ := versions[0].(map[string]any)["name"].(string)
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: version, Kind: kind + "List"})
	return c.WaitFor(ctx, "kind "+crd.GetName()+" to be served", func(ctx context.Context) (bool, error) {
		err := c.Client.List(ctx, list, client.Limit(1))
		if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) || apierrors.IsTooManyRequests(err) {
			return false, nil
		}
		return err == nil, err
	})
}
