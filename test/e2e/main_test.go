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

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

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
	log.SetLogger(logr.Discard()) // clients' own; failures are the tests' to tell
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
	releaseDeadline         = 60 * time.Second
	releaseDeadlineNotReady = 70 * time.Second
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
		Progress: progress,
	}, OperatorArgs: []string{
		"--release-deadline=" + releaseDeadline.String(), "--release-deadline-not-ready=" + releaseDeadlineNotReady.String(),
	}})
	if err != nil {
		return 1, err
	}
	code = m.Run()
	return code, shared.Close()
}

// progress says under -v what the lab does; else it would bury what a failed test says.
func progress(format string, args ...any) {
	if testing.Verbose() {
		fmt.Printf("lab: "+format+"\n", args...)
	}
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
		ctx, cancel := context.WithTimeout(context.Background(), lab.DefaultWait)
		defer cancel()
		if err := leave(ctx, shared, client.InNamespace(namespace)); err != nil {
			t.Error(err)
		}
		shared.ExplainFailure(t, namespace)
	})
	return ctx, shared, namespace
}

// leave ends all VMs and pods of a namespace and waits until their volumes are
// detached, so that the next test finds a stack on which nothing is under way.
func leave(ctx context.Context, s *stack.Stack, in client.InNamespace) error {
	notOfVMs, err := labels.Parse("!" + kubevirtv1.CreatedByLabel) // a VM's own go with it
	if err != nil {
		return err
	}
	var claims corev1.PersistentVolumeClaimList
	err = errors.Join(
		end(ctx, s, &kubevirtv1.VirtualMachineInstanceList{}, in),
		end(ctx, s, &corev1.PodList{}, in, client.MatchingLabelsSelector{Selector: notOfVMs}),
		s.WaitFor(ctx, "the migrations to be final", func(ctx context.Context) (bool, error) {
			var all kubevirtv1.VirtualMachineInstanceMigrationList
			err := s.Client.List(ctx, &all, in)
			return !slices.ContainsFunc(all.Items, func(m lab.VMIM) bool { return !m.IsFinal() }), err
		}),
		s.Client.List(ctx, &claims, in))
	for _, c := range claims.Items {
		err = errors.Join(err, s.WaitAttached(ctx, c.Spec.VolumeName))
	}
	return err
}

// end deletes what is listed and waits until it is gone.
func end(ctx context.Context, s *stack.Stack, list client.ObjectList, options ...client.ListOption) error {
	var left []string
	err := s.WaitFor(ctx, fmt.Sprintf("a %T to be empty", list), func(ctx context.Context) (bool, error) {
		if err := s.Client.List(ctx, list, options...); err != nil {
			return false, err
		}
		left = nil
		err := meta.EachListItem(list, func(item runtime.Object) error {
			o := item.(client.Object)
			left = append(left, o.GetName())
			if o.GetDeletionTimestamp() != nil {
				return nil
			}
			return client.IgnoreNotFound(s.Client.Delete(ctx, o))
		})
		return len(left) == 0, err
	})
	if err != nil {
		return fmt.Errorf("%w; left are %v", err, left)
	}
	return nil
}
