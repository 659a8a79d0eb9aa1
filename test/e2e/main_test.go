package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// shared is the stack of all tests that do not break it.
var shared *stack.Stack

var nodeNames = []string{"node-a", "node-b", "node-c"}

var (
	raceProduct = flag.Bool("race-product", false, "build the operator and the plugin with the race detector; they are slower then")
	bars        = flag.Bool("bars", false, "fail where a latency is above its bar; for a machine that does nothing else")
	keep        = flag.Bool("keep", false, "keep the lab's folder with all logs")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// atOnce is how many scenarios run at a time. They mostly wait, for each other's
// sake on nodes and VMs of their own.
const atOnce = "12"

// Release deadlines short enough to wait for, and far longer than a release takes.
const (
	releaseDeadline         = 40 * time.Second
	releaseDeadlineNotReady = 50 * time.Second
)

func runTests(m *testing.M) (code int, err error) {
	if err := flag.Set("test.parallel", atOnce); err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	shared, err = stack.Start(ctx, stack.Options{Race: *raceProduct, Lab: lab.Options{
		Nodes:    nodeNames,
		Keep:     *keep,
		KubeVirt: lab.KubeVirtOptions{ParallelMigrations: 100, ParallelOutbound: 100, FeatureGates: []string{"DecentralizedLiveMigration"}},
		Progress: func(format string, args ...any) { fmt.Printf("lab: "+format+"\n", args...) },
	}, OperatorArgs: []string{
		"--release-deadline=" + releaseDeadline.String(), "--release-deadline-not-ready=" + releaseDeadlineNotReady.String(),
	}})
	if err != nil {
		return 1, err
	}
	code = m.Run()
	return code, shared.Close()
}

// setUp gives a test a context, the shared stack and a namespace of its own.
func setUp(t *testing.T) (context.Context, *stack.Stack, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	namespace := stack.NamespaceFor(t.Name())
	if err := shared.CreateNamespace(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		leave(t, shared, namespace)
		shared.ExplainFailure(t)
	})
	return ctx, shared, namespace
}

// leave ends all VMs and pods of a namespace and waits until their volumes are
// detached, so that the next test finds a stack on which nothing is under way.
func leave(t *testing.T, s *stack.Stack, namespace string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lab.DefaultWait)
	defer cancel()
	in := client.InNamespace(namespace)
	var vms kubevirtv1.VirtualMachineInstanceList
	var vmims kubevirtv1.VirtualMachineInstanceMigrationList
	var pods corev1.PodList
	var claims corev1.PersistentVolumeClaimList
	var attachments storagev1.VolumeAttachmentList
	var left []string
	err := s.WaitFor(ctx, "the namespace "+namespace+" to be at rest", func(ctx context.Context) (bool, error) {
		left = nil
		if err := errors.Join(s.Client.List(ctx, &vms, in), s.Client.List(ctx, &vmims, in), s.Client.List(ctx, &pods, in),
			s.Client.List(ctx, &claims, in), s.Client.List(ctx, &attachments)); err != nil {
			return false, err
		}
		var ours []client.Object
		for i := range vms.Items {
			ours = append(ours, &vms.Items[i])
		}
		for i := range pods.Items {
			if pods.Items[i].Labels[kubevirtv1.CreatedByLabel] == "" { // a VM's own go with it
				ours = append(ours, &pods.Items[i])
			}
		}
		for _, o := range ours {
			left = append(left, fmt.Sprintf("%T %s", o, o.GetName()))
			if o.GetDeletionTimestamp() != nil {
				continue
			}
			if err := s.Client.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
				return false, err
			}
		}
		for _, m := range vmims.Items {
			if !m.IsFinal() {
				left = append(left, "VMIM "+m.Name)
			}
		}
		for _, va := range attachments.Items {
			if slices.ContainsFunc(claims.Items, func(c corev1.PersistentVolumeClaim) bool {
				return c.Spec.VolumeName == *va.Spec.Source.PersistentVolumeName
			}) {
				left = append(left, "VolumeAttachment on "+va.Spec.NodeName)
			}
		}
		return len(left) == 0, nil
	})
	if err != nil {
		t.Errorf("%v; left are %v", err, left)
	}
}
