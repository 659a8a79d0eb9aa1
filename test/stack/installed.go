package stack

import (
	"context"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/binaries"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pods"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// MustStartSimulator runs an array by itself, until the test ends, for an RDSDriver to
// name: its user is csi, its base path raid10/k8s on 4 TiB of XFS. key is the user's, as
// a Secret has it.
func MustStartSimulator(t testing.TB) (array *routeros.Server, key []byte) {
	t.Helper()
	array, keys, err := openArray(csiUser)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = array.Close() })
	return array, keys[csiUser]
}

// Played are the pods that kubelets only play: those that are not the product's, and the
// node plugin's, which need a kernel that knows NVMe/TCP.
func Played(pod *corev1.Pod) bool {
	return pod.Namespace != Namespace || pod.Labels["app.kubernetes.io/name"] == "rds-csi-node"
}

// Programs stand for the images of an installation, by the images' names in a bundle.
type Programs map[string]pods.Program

// MustBuildPrograms builds the product into dir, and the sidecars.
func MustBuildPrograms(ctx context.Context, t testing.TB, dir string) Programs {
	t.Helper()
	root, err := checkout(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := build(ctx, root, dir, false); err != nil {
		t.Fatal(err)
	}
	built, err := binaries.Ensure(ctx, t.Logf, binaries.Kubernetes, binaries.Provisioner)
	if err != nil {
		t.Fatal(err)
	}
	const kubeconfig = "--kubeconfig=$(KUBECONFIG)"
	programs := Programs{
		"operator":   {Path: filepath.Join(dir, "operator"), Args: []string{kubeconfig, "--poll-interval=1s", "--log-format=console"}},
		"csi-plugin": {Path: filepath.Join(dir, "csi-plugin"), Args: []string{kubeconfig}},
	}
	for _, name := range sidecars {
		path, err := built.Path(name)
		if err != nil {
			t.Fatal(err)
		}
		programs[name] = pods.Program{Path: path, Args: []string{kubeconfig}}
	}
	return programs
}

// MustStandFor lets them stand for the images that an installation names.
func (p Programs) MustStandFor(t testing.TB, images map[string]string, runtime *pods.Runtime) {
	t.Helper()
	for name, program := range p {
		if images[name] == "" {
			t.Fatalf("no image of %s is named, only %v", name, images)
		}
		runtime.Add(images[name], program)
	}
}
