package olm

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pods"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/process"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

const (
	root      = "../.."
	namespace = "rds-csi"
	tenant    = "shop"
	driver    = "rds.csi.srvlab.io"
	operator  = "rds-csi-operator"
)

// site is a cluster with KubeVirt and OLM, and an array beside it.
type site struct {
	*lab.Cluster
	array     *routeros.Server
	key       []byte // of the array's user
	programs  stack.Programs
	generator string // of bundles
	opm       *lab.Process
}

func open(ctx context.Context, t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{programs: stack.MustBuildPrograms(ctx, t, dir), generator: filepath.Join(dir, "bundle")}
	if out, err := exec.CommandContext(ctx, "go", "-C", root+"/test/tools/bundle", "build", "-o", s.generator, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the generator of bundles: %v\n%s", err, out)
	}
	c, err := lab.Start(ctx, lab.Options{
		Nodes:    []string{"node-a", "node-b"},
		Pods:     &pods.Options{Play: stack.Played},
		Progress: t.Logf,
	})
	must(t, err)
	s.Cluster = c
	t.Cleanup(func() {
		if t.Failed() {
			s.tell(t)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	s.array, s.key = stack.MustStartSimulator(t)
	must(t, c.StartOLM(ctx))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bundle generates a version from config/, with its images tagged by tag, lets the
// product's programs stand for these, and returns its folder.
func (s *site) bundle(ctx context.Context, t *testing.T, version, replaces, tag string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.CopyFS(dir+"/config", os.DirFS(root+"/config")))
	images := dir + "/config/components/images/kustomization.yaml"
	text, err := os.ReadFile(images)
	must(t, err)
	changed := strings.ReplaceAll(string(text), "newTag: dev\n", "newTag: "+tag+"\n")
	must(t, os.WriteFile(images, []byte(changed), 0o600))
	generate := exec.CommandContext(ctx, s.generator, "-config", dir+"/config", "-out", dir+"/bundle", "-version", version, "-replaces", replaces)
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("generate bundle %s: %v\n%s", version, err, out)
	}
	must(t, s.ValidateCatalog(ctx, dir+"/bundle/catalog"))
	s.addPrograms(t, dir+"/bundle")
	return dir + "/bundle"
}

// addPrograms says what stands for the images that a bundle names.
func (s *site) addPrograms(t *testing.T, bundle string) {
	t.Helper()
	images := map[string]string{}
	related, _, _ := unstructured.NestedSlice(readCSV(t, bundle).Object, "spec", "relatedImages")
	for _, r := range related {
		r := r.(map[string]any)
		images[r["name"].(string)] = r["image"].(string)
	}
	s.programs.MustStandFor(t, images, s.Pods())
}

func readCSV(t *testing.T, bundle string) *unstructured.Unstructured {
	t.Helper()
	data, err := os.ReadFile(bundle + "/manifests/" + operator + ".clusterserviceversion.yaml")
	must(t, err)
	csv := &unstructured.Unstructured{}
	must(t, yaml.Unmarshal(data, &csv.Object))
	return csv
}

// sample is the RDSDriver that consoles offer, with the one array that there is.
func (s *site) sample(t *testing.T, bundle string) *unstructured.Unstructured {
	t.Helper()
	var samples []map[string]any
	must(t, json.Unmarshal([]byte(readCSV(t, bundle).GetAnnotations()["alm-examples"]), &samples))
	d := &unstructured.Unstructured{Object: samples[0]}
	host, port, err := net.SplitHostPort(s.array.Addr())
	must(t, err)
	number, err := strconv.ParseInt(port, 10, 32)
	must(t, err)
	arrays, _, err := unstructured.NestedSlice(d.Object, "spec", "arrays")
	must(t, err)
	array := arrays[0].(map[string]any)
	array["address"], array["port"] = host, number
	array["hostKeys"] = []any{s.array.HostKeyLine()}
	array["nvme"] = map[string]any{"addresses": []any{host}}
	must(t, unstructured.SetNestedSlice(d.Object, arrays, "spec", "arrays"))
	return d
}

// of is an empty object of one of OLM's kinds, or ours.
func of(group, version, kind, in, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: version, Kind: kind})
	o.SetNamespace(in)
	o.SetName(name)
	return o
}

func csvOf(version string) *unstructured.Unstructured {
	return of("operators.coreos.com", "v1alpha1", "ClusterServiceVersion", namespace, operator+".v"+version)
}

// waitField waits until a field of an object has a value.
func (s *site) waitField(ctx context.Context, t *testing.T, o *unstructured.Unstructured, want string, fields ...string) {
	t.Helper()
	what := fmt.Sprintf("%s %s: %s=%s", o.GetKind(), o.GetName(), strings.Join(fields, "."), want)
	must(t, s.WaitFor(ctx, what, func(ctx context.Context) (bool, error) {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(o), o)
		got, _, _ := unstructured.NestedString(o.Object, fields...)
		return err == nil && got == want, client.IgnoreNotFound(err)
	}))
	t.Log(what)
}

// condition waits until the RDSDriver has a condition, and returns its message.
func (s *site) condition(ctx context.Context, t *testing.T, kind, status string) string {
	t.Helper()
	d := of("rds.srvlab.io", "v1alpha1", "RDSDriver", "", driver)
	var message string
	err := s.WaitFor(ctx, fmt.Sprintf("the RDSDriver to be %s=%s", kind, status), func(ctx context.Context) (bool, error) {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(d), d)
		conditions, _, _ := unstructured.NestedSlice(d.Object, "status", "conditions")
		at := slices.IndexFunc(conditions, func(c any) bool {
			return c.(map[string]any)["type"] == kind && c.(map[string]any)["status"] == status
		})
		if err != nil || at < 0 {
			return false, client.IgnoreNotFound(err)
		}
		message, _ = conditions[at].(map[string]any)["message"].(string)
		return true, nil
	})
	if err != nil {
		t.Fatalf("%v; its status is %v", err, d.Object["status"])
	}
	return message
}

// run runs a command line of the README's, or one that a status names.
func (s *site) run(ctx context.Context, t *testing.T, command string) string {
	t.Helper()
	args, ok := strings.CutPrefix(command, "kubectl ")
	if !ok {
		t.Fatalf("no command of kubectl's: %q", command)
	}
	out, err := s.Kubectl(ctx, strings.Fields(args)...)
	must(t, err)
	t.Logf("$ %s\n%s", command, strings.TrimSpace(out))
	return out
}

// tell shows what OLM and the pods said last.
func (s *site) tell(t *testing.T) {
	ctx := context.Background()
	for _, what := range []string{"subscription,installplan,csv -o jsonpath={range.items[*]}{.kind}{.status.conditions}{\"\\n\"}{end}", "pod -o wide", "events"} {
		out, err := s.Kubectl(ctx, append([]string{"-n", namespace, "get"}, strings.Fields(what)...)...)
		t.Logf("%s:\n%s%v", what, out, err)
	}
	logs, err := filepath.Glob(filepath.Join(s.Dir, "logs", namespace+"_*.log"))
	must(t, err)
	for _, name := range []string{"olm-operator", "catalog-operator", "players"} {
		logs = append(logs, filepath.Join(s.Dir, "logs", name+".log"))
	}
	for _, log := range logs {
		t.Logf("the end of %s:\n%s", filepath.Base(log), process.Tail(log, 20))
	}
}
