package driver

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
)

var update = flag.Bool("update", false, "rewrite the golden file")

func exampleDriver() *v1alpha1.RDSDriver {
	return &v1alpha1.RDSDriver{
		ObjectMeta: metav1.ObjectMeta{Name: "rds.csi.srvlab.io", Generation: 3},
		Spec: v1alpha1.RDSDriverSpec{
			DefaultArray: "main",
			Arrays: []v1alpha1.Array{
				{Name: "main", Address: "192.0.2.10", Port: 22, User: "csi", KeySecret: v1alpha1.SecretKey{Name: "rds-main", Key: "ssh-privatekey"}},
				{Name: "far", Address: "192.0.2.20", Port: 22, User: "csi", KeySecret: v1alpha1.SecretKey{Name: "rds-far", Key: "id"}},
			},
			StorageClasses: []v1alpha1.StorageClass{{
				Name: "rds", IsDefault: true, DualAttach: "LiveMigration", FSType: "xfs", MigrationTimeoutSeconds: ptr.To[int32](600),
				ReclaimPolicy: "Delete", VolumeBindingMode: "Immediate", Parameters: map[string]string{"ctrlLossTmo": "600"},
			}},
			SnapshotClass: ptr.To("rds"),
			Node:          v1alpha1.Placement{NodeSelector: map[string]string{"storage": "rds"}},
			LogLevel:      1,
		},
	}
}

func exampleFacts() Facts {
	served := map[schema.GroupVersionKind]bool{}
	for _, kind := range Optional {
		served[kind] = true
	}
	return Facts{
		Namespace: "storage", Arrays: []byte("arrays: []\n"), Secrets: []byte("secret"), Served: served,
		Images: v1alpha1.Images{Plugin: "r/plugin:1", Attacher: "r/attacher:1", Provisioner: "r/provisioner:1", Resizer: "r/resizer:1",
			Snapshotter: "r/snapshotter:1", NodeDriverRegistrar: "r/registrar:1", LivenessProbe: "r/probe:1"},
	}
}

// TestDesiredGolden shows everything that is deployed for one driver, for reading;
// alerts have tests of their own.
func TestDesiredGolden(t *testing.T) {
	objects, err := Desired(exampleDriver(), exampleFacts())
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for _, object := range objects {
		if object.GetKind() == kindPrometheusRule.Kind {
			continue
		}
		text, err := yaml.Marshal(object.Object)
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString("---\n")
		got.Write(text)
	}
	const golden = "testdata/desired.golden.yaml"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("run go test ./controllers/driver -update if this is meant (-want +got):\n%s", diff)
	}
}

// TestDesired: what must hold whatever the golden file says.
func TestDesired(t *testing.T) {
	f := exampleFacts()
	objects, err := Desired(exampleDriver(), f)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		if kind := object.GroupVersionKind(); kind != kindStorageProfile && object.GetLabels()[ManagedBy] != managedByValue {
			t.Errorf("%s is not marked as ours", describe(object))
		}
		if namespace := object.GetNamespace(); namespace != "" && namespace != f.Namespace {
			t.Errorf("%s is in a namespace of others", describe(object))
		}
		if strings.Contains(object.GetAPIVersion(), "rbac") || object.GetKind() == "Secret" {
			t.Errorf("%s must never be written", describe(object))
		}
		containers, _, _ := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
		for _, c := range containers {
			if image, _ := c.(map[string]any)["image"].(string); !strings.HasPrefix(image, "r/") {
				t.Errorf("%s, container %v: its image is %q", describe(object), c.(map[string]any)["name"], image)
			}
		}
	}
}

// TestOptionalKinds: what the cluster does not have is not wanted.
func TestOptionalKinds(t *testing.T) {
	f := exampleFacts()
	f.Served = nil
	objects, err := Desired(exampleDriver(), f)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		for _, kind := range Optional {
			if object.GroupVersionKind() == kind {
				t.Errorf("%s is wanted, and the cluster does not serve its kind", describe(object))
			}
		}
	}
}

// TestConfigHash: pods roll out when the arrays or a key change, and show neither.
func TestConfigHash(t *testing.T) {
	hashOf := func(f Facts) string {
		w, err := controllerPods(exampleDriver(), f)
		if err != nil {
			t.Fatal(err)
		}
		return w.Spec.Template.Annotations[configHash]
	}
	f := exampleFacts()
	before := hashOf(f)
	f.Secrets = []byte("another")
	if after := hashOf(f); after == before || strings.Contains(after, "another") {
		t.Errorf("hash %q after a new key, %q before", after, before)
	}
}

func TestContains(t *testing.T) {
	type object = map[string]any
	for name, tt := range map[string]struct {
		live, want any
		is         bool
	}{
		"the same":              {object{"a": int64(1)}, object{"a": int64(1)}, true},
		"a default beside it":   {object{"a": int64(1), "b": "x"}, object{"a": int64(1)}, true},
		"changed":               {object{"a": int64(2)}, object{"a": int64(1)}, false},
		"gone":                  {object{}, object{"a": int64(1)}, false},
		"deep":                  {object{"a": object{"b": "x", "c": "y"}}, object{"a": object{"b": "x"}}, true},
		"a list's element":      {[]any{object{"a": "x", "b": "y"}}, []any{object{"a": "x"}}, true},
		"one element more":      {[]any{"a", "b"}, []any{"a"}, false},
		"another order":         {[]any{"b", "a"}, []any{"a", "b"}, false},
		"empty wanted, absent":  {object{}, object{"a": object{}, "b": []any{}, "c": nil}, true},
		"text instead of a map": {object{"a": "x"}, object{"a": object{"b": "x"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := contains(tt.live, tt.want); got != tt.is {
				t.Errorf("contains(%v, %v) = %v", tt.live, tt.want, got)
			}
		})
	}
}
