package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/blang/semver/v4"
	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/api/pkg/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	configDir = "../../../config"
	bundleDir = "../../../bundle"
	// The Kubernetes that the lab runs: no API of the bundle may be gone there.
	kubernetesVersion = "1.37"
)

// TestFresh: what is committed is what config/ makes of it.
func TestFresh(t *testing.T) {
	csv := load(t).CSV
	want, err := Generate(Options{
		Config: configDir, Version: csv.Spec.Version.String(), Replaces: strings.TrimPrefix(csv.Spec.Replaces, csvName("")),
		Image: "git.srvlab.io/whiskey/rds-csi-operator-bundle:v" + csv.Spec.Version.String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	committed := os.DirFS(bundleDir)
	err = fs.WalkDir(committed, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(committed, name)
		if !bytes.Equal(content, want[name]) {
			t.Errorf("bundle/%s is stale: run make bundle", name)
		}
		delete(want, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range want {
		t.Errorf("bundle/%s is missing: run make bundle", name)
	}
}

// load reads the bundle as OLM's tools do, but for the catalog, which is none of it.
func load(t *testing.T) *manifests.Bundle {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"manifests", "metadata"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join(bundleDir, part))); err != nil {
			t.Fatal(err)
		}
	}
	bundle, err := manifests.GetBundleFromDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// TestValidators: what is committed passes every validator there is, the optional ones
// too, without a warning. The one for architectures would pull the images: it asks
// testdata/bin/docker instead, so what is checked is that the deployment's node
// affinity agrees with the platforms that the CSV claims.
func TestValidators(t *testing.T) {
	standIn, err := filepath.Abs("testdata/bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", standIn+":"+os.Getenv("PATH"))
	bundle := load(t)
	if bundle.DefaultChannel != channel || !slices.Equal(bundle.Channels, []string{channel}) {
		t.Fatalf("the annotations say channels %q, of which %q", bundle.Channels, bundle.DefaultChannel)
	}
	options := map[string]string{
		"k8s-version":     kubernetesVersion,
		"index-path":      bundleDir + "/Dockerfile",
		"container-tools": "docker",
	}
	for _, result := range validation.AllValidators.Validate(append(bundle.ObjectsToValidate(), options)...) {
		for _, finding := range append(result.Errors, result.Warnings...) {
			t.Errorf("%s: %v", result.Name, finding)
		}
	}
}

// TestValidatorsFind: the validators are really asked.
func TestValidatorsFind(t *testing.T) {
	t.Setenv("PATH", "")
	bundle := load(t)
	bundle.CSV.Annotations["categories"] = "Cattle"
	bundle.CSV.Annotations["capabilities"] = "Everything"
	bundle.CSV.Spec.Icon = nil
	bundle.V1CRDs = nil
	var all strings.Builder
	for _, result := range validation.AllValidators.Validate(bundle.ObjectsToValidate()...) {
		for _, finding := range append(result.Errors, result.Warnings...) {
			all.WriteString(finding.Error() + "\n")
		}
	}
	for _, want := range []string{"Cattle", "Everything", "Icon", "not found in bundle"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("nobody minds %s:\n%s", want, all.String())
		}
	}
}

// TestNoNamespace: OLM decides on the namespace, so no object beside the CSV may name
// ours, neither as its own nor as an account's.
func TestNoNamespace(t *testing.T) {
	files, err := filepath.Glob(bundleDir + "/manifests/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d manifests, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "clusterserviceversion.yaml") {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if strings.TrimSpace(line) == "namespace: "+namespace {
				t.Errorf("%s names the namespace", filepath.Base(file))
			}
		}
	}
}

// TestUnknownKind: what OLM cannot bring to a cluster is refused, and not left out.
func TestUnknownKind(t *testing.T) {
	objects, err := build(configDir + "/olm")
	if err != nil {
		t.Fatal(err)
	}
	_, err = split(append(objects, object("v1", "Endpoints", "x")), "csv")
	if err == nil || !strings.Contains(err.Error(), "Endpoints x") {
		t.Errorf("a kind that OLM does not support: %v", err)
	}
	_, err = split(append(objects, object("v1", "ServiceAccount", "x")), "csv")
	if err == nil || !strings.Contains(err.Error(), "service account x") {
		t.Errorf("an account that nobody would make: %v", err)
	}
}

func object(version, kind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(version)
	o.SetKind(kind)
	o.SetName(name)
	return o
}

// TestPinned: a release must name all images by digest, and only then is the bundle
// said to be fit for disconnected clusters.
func TestPinned(t *testing.T) {
	files, err := Generate(Options{Config: configDir, Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	csv := files["manifests/"+packageName+".clusterserviceversion.yaml"]
	if !bytes.Contains(csv, []byte(`disconnected: "false"`)) {
		t.Error("images without digests are said to be fit for disconnected clusters")
	}
	if _, err := Generate(Options{Config: configDir, Version: "1.2.3", Pinned: true}); err == nil || !strings.Contains(err.Error(), "has no digest") {
		t.Errorf("a release without digests: %v", err)
	}
}

// TestDescriptors: a descriptor of a field that the CRD lacks is refused.
func TestDescriptors(t *testing.T) {
	objects, err := build(configDir + "/olm")
	if err != nil {
		t.Fatal(err)
	}
	p, err := split(objects, "csv")
	if err != nil {
		t.Fatal(err)
	}
	csv, err := clusterServiceVersion(Options{Config: configDir}, semver.MustParse("1.2.3"), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range csv.Spec.CustomResourceDefinitions.Owned[0].SpecDescriptors {
		if d.Path == "arrays[0].port" && d.Description != "port of the SSH service." {
			t.Errorf("the port is described as %q", d.Description)
		}
	}
	csv.Spec.CustomResourceDefinitions.Owned[0].SpecDescriptors[0].Path = "arrays[0].colour"
	if err := describe(csv, p); err == nil || !strings.Contains(err.Error(), "spec.arrays[0].colour") {
		t.Errorf("a field that does not exist: %v", err)
	}
}

// TestCatalogs: with an image the catalog points to it, without one it holds the bundle.
func TestCatalogs(t *testing.T) {
	for image, want := range map[string]string{"": "olm.bundle.object", "registry.example/bundle:v1.2.3": "olm.csv.metadata"} {
		files, err := Generate(Options{Config: configDir, Version: "1.2.3", Replaces: "1.2.2", Image: image})
		if err != nil {
			t.Fatal(err)
		}
		documents := strings.Split(string(files["catalog/"+packageName+"/catalog.yaml"]), "\n---\n")
		if len(documents) != 3 {
			t.Fatalf("%d documents", len(documents))
		}
		bundle := struct {
			Image      string
			Properties []property
		}{}
		if err := yaml.Unmarshal([]byte(documents[2]), &bundle); err != nil {
			t.Fatal(err)
		}
		if last := bundle.Properties[len(bundle.Properties)-1].Type; bundle.Image != image || last != want {
			t.Errorf("image %q, properties end with %s; want %q, %s", bundle.Image, last, image, want)
		}
		if !strings.Contains(documents[1], "replaces: "+csvName("1.2.2")) {
			t.Errorf("the channel:\n%s", documents[1])
		}
	}
}
