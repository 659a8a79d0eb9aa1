package install

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pods"
	"git.srvlab.io/whiskey/rds-csi-operator/test/rights"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// whose are the roles of config/rbac that only deploying and scraping take; test/e2e
// looks into the others.
var whose = map[string]map[string]rights.Program{
	"rbac/operator": {
		"rds-csi-operator-driver": {User: stack.OperatorUser},
	},
	"rbac/csi": {
		"rds-csi-controller-metrics": {User: "system:serviceaccount:" + namespace + ":rds-csi-controller"},
		"rds-csi-node-metrics":       {User: "system:serviceaccount:" + namespace + ":rds-csi-node"},
	},
}

// TestRightsOfDeploying: on a cluster that has the kinds of all others, too, the operator
// deploys, repairs, changes and removes; nothing was denied to it, and of what its
// role grants nothing was left unused.
func TestRightsOfDeploying(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s := openFor(ctx, t, lab.Options{
		WithoutKubeVirt: true, Nodes: []string{"node-a"},
		Pods: &pods.Options{Play: func(pod *corev1.Pod) bool { return pod.Labels["app.kubernetes.io/name"] != "rds-csi-operator" }},
	}, "testdata/others.yaml")
	must(t, s.client.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "rds-main"}, Data: map[string][]byte{"ssh-privatekey": s.key}}))
	profile := object(schema.GroupVersionKind{Group: "cdi.kubevirt.io", Version: "v1beta1", Kind: "StorageProfile"}, "", "rds")
	must(t, s.client.Create(ctx, profile)) // CDI makes one for each class
	d := s.driver()
	d.Spec.SnapshotClass = ptr.To("rds-snapshots")
	must(t, s.client.Create(ctx, d))
	s.waitCondition(ctx, t, v1alpha1.ConditionAvailable, metav1.ConditionTrue)
	s.kubectlRDSWithoutKubeVirt(ctx, t)

	monitors := schema.GroupVersionKind{Group: "monitoring.coreos.com", Version: "v1", Kind: "ServiceMonitor"}
	rules := schema.GroupVersionKind{Group: "monitoring.coreos.com", Version: "v1", Kind: "PrometheusRule"}
	classes := schema.GroupVersionKind{Group: "snapshot.storage.k8s.io", Version: "v1", Kind: "VolumeSnapshotClass"}
	mine := []client.Object{object(monitors, namespace, "rds-csi-operator"), object(rules, namespace, "rds-csi-operator"), object(classes, "", "rds-snapshots")}
	for _, o := range mine {
		must(t, s.WaitFor(ctx, "a "+o.GetObjectKind().GroupVersionKind().Kind, func(ctx context.Context) (bool, error) {
			err := s.client.Get(ctx, client.ObjectKeyFromObject(o), o)
			return err == nil, client.IgnoreNotFound(err)
		}))
	}
	s.update(ctx, t, func(d *v1alpha1.RDSDriver) {
		d.Spec.SnapshotClass, d.Spec.Monitoring.Disabled, d.Spec.StorageClasses = nil, true, d.Spec.StorageClasses[:1]
	})
	for _, o := range mine {
		must(t, s.WaitFor(ctx, "the "+o.GetObjectKind().GroupVersionKind().Kind+" to go", func(ctx context.Context) (bool, error) {
			err := s.client.Get(ctx, client.ObjectKeyFromObject(o), o)
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		}))
	}
	must(t, s.CreateNamespace(ctx, tenant))
	s.scrapers(ctx, t)
	s.scrape(ctx, t, "rds-csi-operator", 2)
	must(t, s.client.Delete(ctx, d))
	must(t, s.WaitFor(ctx, "the RDSDriver to go", func(ctx context.Context) (bool, error) {
		err := s.client.Get(ctx, client.ObjectKeyFromObject(d), d)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}))
	s.judgeRights(ctx, t, "rbac/operator")
}

// judgeRights compares what was asked for with what the roles below config/ grant.
func (s *site) judgeRights(ctx context.Context, t *testing.T, dir string) {
	t.Helper()
	asked, err := s.Audit()
	must(t, err)
	for _, e := range rights.Denied(asked, whose[dir]) {
		t.Errorf("denied: %s (%s)", e, e.Agent)
	}
	text, err := s.Kubectl(ctx, "kustomize", filepath.Join(root, "config", dir))
	must(t, err)
	granted, err := rights.Of(text, whose[dir], nil)
	must(t, err)
	if len(granted) == 0 {
		t.Fatal("no rights found")
	}
	for _, r := range rights.Unused(granted, asked) {
		t.Errorf("granted and not used by any of %d requests: %s", len(asked), r)
	}
}

func object(kind schema.GroupVersionKind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}
