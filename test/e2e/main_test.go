package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

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
		if t.Failed() {
			t.Logf("the end of the operator's log:\n%s", shared.Operators[0].Tail(60))
		}
	})
	return ctx, shared, namespace
}
