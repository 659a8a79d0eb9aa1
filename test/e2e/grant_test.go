package e2e

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmireport"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// TestAHangWithoutTheGrant: an operator that may not write conditions on VMIs says it
// in an annotation and in events, which tell the commands that are missing; run as
// they stand, the condition lands and the annotation goes.
func TestAHangWithoutTheGrant(t *testing.T) {
	ctx, s, ns := setUp(t)
	vm := s.MustStartVM(ctx, t, ns, "vm", limitedTo(3*time.Second))
	revoke(ctx, t, s, vm)
	before := s.MustScrape(ctx, t)
	vmim := migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	waitCondition(ctx, t, s, vmim, dualattach.ConditionTimedOut, "True", "DualAttached")
	wantEvents(ctx, t, s, ns, "vm", "MigrationFailed", "StorageMigrationTimedOut", vmireport.EventNotWritten)
	s.WantMetric(ctx, t, report.MetricInstanceWrites, forbidden, before.Value(report.MetricInstanceWrites, forbidden)+1)
	waitNote(ctx, t, s, vm, "True DualAttached (")
	if got, ok := readInstance(ctx, t, s, vm); ok {
		t.Errorf("the VMI says %+v", got)
	}

	commands := missingCommands(ctx, t, s, lab.KubeVirtNamespace, "kubevirt", 2)
	if again := missingCommands(ctx, t, s, stack.Namespace, "rds-csi-operator", 2); !slices.Equal(commands, again) {
		t.Fatalf("KubeVirt's event names %q, the service account's %q; want the same", commands, again)
	}
	for _, command := range commands {
		run(ctx, t, s, command)
	}
	waitInstance(ctx, t, s, vm, "True/DualAttached", "")
	waitNote(ctx, t, s, vm, "")
	s.WantMetric(ctx, t, report.MetricInstanceWrites, stored, before.Value(report.MetricInstanceWrites, stored)+1)

	release(ctx, t, s, vm, vmim)
	waitCondition(ctx, t, s, vmim, dualattach.ConditionMigrated, "True", "Completed")
	wantConditions(t, vmim, "False/SourceReleased", "True/Completed", "False/Resolved")
	waitInstance(ctx, t, s, vm, "False/Resolved", "")
	s.WantMetric(ctx, t, report.MetricInstanceWrites, forbidden, before.Value(report.MetricInstanceWrites, forbidden)+1)
}

// TestANoteThatIsResolved: without the grant to the end, nothing is left on the VMI.
func TestANoteThatIsResolved(t *testing.T) {
	ctx, s, ns := setUp(t)
	vm := s.MustStartVM(ctx, t, ns, "vm", limitedTo(3*time.Second))
	revoke(ctx, t, s, vm)
	before := s.MustScrape(ctx, t)
	vmim := migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	waitNote(ctx, t, s, vm, "True DualAttached (")
	release(ctx, t, s, vm, vmim)
	waitCondition(ctx, t, s, vmim, dualattach.ConditionMigrated, "True", "Completed")
	waitNote(ctx, t, s, vm, "")
	if got, ok := readInstance(ctx, t, s, vm); ok {
		t.Errorf("the VMI says %+v", got)
	}
	after := s.MustScrape(ctx, t)
	for result, more := range map[string]float64{"stored": 0, "reverted": 0, "forbidden": 1} {
		labels := map[string]string{"result": result}
		if was, is := before.Value(report.MetricInstanceWrites, labels), after.Value(report.MetricInstanceWrites, labels); is != was+more {
			t.Errorf("%s%v went from %v to %v", report.MetricInstanceWrites, labels, was, is)
		}
	}
}

// TestAGrantThatIsRevoked: a condition that cannot be set False any more is corrected
// by an annotation, and by itself when it is granted again.
func TestAGrantThatIsRevoked(t *testing.T) {
	ctx, s, ns := setUp(t)
	vm := s.MustStartVM(ctx, t, ns, "vm", limitedTo(3*time.Second))
	vmim := migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	waitInstance(ctx, t, s, vm, "True/DualAttached", "")
	revoke(ctx, t, s, vm)
	release(ctx, t, s, vm, vmim)
	waitNote(ctx, t, s, vm, "False Resolved (")
	waitInstance(ctx, t, s, vm, "True/DualAttached", "")
	if err := s.GrantVMICondition(ctx); err != nil {
		t.Fatal(err)
	}
	waitInstance(ctx, t, s, vm, "False/Resolved", "")
	waitNote(ctx, t, s, vm, "")
}

// TestKubeVirtReverts: who is not KubeVirt's own is answered 200 and reverted; that is
// seen, and the annotation says it instead.
func TestKubeVirtReverts(t *testing.T) {
	ctx, s, ns := setUp(t)
	vm := s.MustStartVM(ctx, t, ns, "vm")
	if err := s.CreateNamespace(ctx, "elsewhere"); err != nil {
		t.Fatal(err)
	}
	// It may patch VMIs like KubeVirt's, but is another one's.
	for _, command := range []string{
		"kubectl -n elsewhere create serviceaccount kubevirt-controller",
		"kubectl create clusterrole patch-vmis --verb=patch --resource=virtualmachineinstances.kubevirt.io",
		"kubectl create clusterrolebinding patch-vmis --clusterrole=patch-vmis --serviceaccount=elsewhere:kubevirt-controller",
	} {
		run(ctx, t, s, command)
	}
	grant := vmireport.NewGrant(s.Client, s.Client, discovery.NewDiscoveryClientForConfigOrDie(s.Config()), false, clock.RealClock{})
	writer := instanceWriter(s.Client, s.Config(), "elsewhere", grant)
	readInstance(ctx, t, s, vm)
	result, err := writer.Write(ctx, vm, vmicondition.Condition{Type: vmicondition.StorageDualAttachUnexplained, Status: "True", Reason: "Test", Message: "a test"})
	if err != nil || result != vmicondition.Reverted {
		t.Fatalf("%q, %v; want it reverted", result, err)
	}
	readInstance(ctx, t, s, vm)
	if got := vm.Annotations[dualattach.UnexplainedAnnotation]; !strings.HasPrefix(got, "True Test (") || !strings.HasSuffix(got, "): a test") {
		t.Errorf("the annotation is %q", got)
	}
	wantEvents(ctx, t, s, ns, "vm", vmireport.EventNotWritten)
}

// TestPlainImpersonation: the option's commands, run as they stand, suffice.
func TestPlainImpersonation(t *testing.T) {
	ctx, s, ns := setUp(t)
	vm := s.MustStartVM(ctx, t, ns, "vm")
	run(ctx, t, s, "kubectl -n "+ns+" create serviceaccount plain")
	run(ctx, t, s, "kubectl create clusterrolebinding plain --clusterrole=rds-csi-operator --serviceaccount="+ns+":plain")
	config, err := s.ConfigFor(ctx, ns, "plain")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := client.New(config, client.Options{Scheme: s.Client.Scheme(), Mapper: s.Client.RESTMapper()})
	if err != nil {
		t.Fatal(err)
	}
	grant := vmireport.NewGrant(plain, plain, nil, true, clock.RealClock{})
	writer := instanceWriter(plain, config, lab.KubeVirtNamespace, grant)
	write := func(want vmicondition.Result) {
		t.Helper()
		readInstance(ctx, t, s, vm)
		result, err := writer.Write(ctx, vm, vmicondition.Condition{Type: vmicondition.StorageDualAttachUnexplained, Status: "True", Reason: "Test", Message: "a test"})
		if err != nil || result != want {
			t.Fatalf("%q, %v; want it %s", result, err, want)
		}
	}
	write(vmicondition.Forbidden)
	for _, command := range missingCommands(ctx, t, s, ns, "plain", 2) {
		run(ctx, t, s, command)
	}
	grant.Check(ctx)
	write(vmicondition.Stored)
	readInstance(ctx, t, s, vm)
	if _, ok := vm.Annotations[dualattach.UnexplainedAnnotation]; ok {
		t.Error("the annotation is still there")
	}
}

// instanceWriter is the operator's, with some parts of a test's own: a client, and the
// namespace whose controller it acts as.
func instanceWriter(c client.Client, config *rest.Config, namespace string, grant *vmireport.Grant) *vmireport.Writer {
	return vmireport.NewWriter(grant, c, clock.RealClock{}, func(string) (vmireport.ConditionWriter, error) {
		return vmicondition.NewWriter(config, namespace, clock.RealClock{})
	})
}

// revoke takes the grant away until the test's end, and returns when a write on the
// VMI would be refused.
func revoke(ctx context.Context, t *testing.T, s *stack.Stack, vm *lab.VMI) {
	t.Helper()
	if err := s.RevokeVMICondition(ctx); err != nil {
		t.Fatal(err)
	}
	defer waitRevoked(ctx, t, s, vm)
	t.Cleanup(func() {
		ctx := context.Background()
		// What kubectl made is not the lab's to apply.
		if err := s.RevokeVMICondition(ctx); err != nil {
			t.Error(err)
		}
		if err := s.GrantVMICondition(ctx); err != nil {
			t.Error(err)
		}
	})
}

// waitRevoked waits until the operator's write on a VMI would be refused: the API
// server remembers for 10 s that an impersonation was allowed, by the token and
// the request. So this asks with the operator's own token, dry, and changes nothing.
func waitRevoked(ctx context.Context, t *testing.T, s *stack.Stack, vm *lab.VMI) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.Dir, "kubeconfigs", stack.Namespace+"-rds-csi-operator.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config.Impersonate.UserName = "system:serviceaccount:" + lab.KubeVirtNamespace + ":" + vmicondition.ControllerAccount
	operator, err := client.New(config, client.Options{Scheme: s.Client.Scheme(), Mapper: s.Client.RESTMapper()})
	if err != nil {
		t.Fatal(err)
	}
	err = s.WaitFor(ctx, "the revocation to take effect", func(ctx context.Context) (bool, error) {
		patch := client.RawPatch(types.JSONPatchType, []byte(`[{"op":"test","path":"/kind","value":"VirtualMachineInstance"}]`))
		err := operator.Patch(ctx, vm.DeepCopy(), patch, client.DryRunAll)
		if apierrors.IsForbidden(err) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a command line of kubectl's as an administrator would.
func run(ctx context.Context, t *testing.T, s *stack.Stack, command string) {
	t.Helper()
	args, ok := strings.CutPrefix(command, "kubectl ")
	if !ok {
		t.Fatalf("no command of kubectl's: %q", command)
	}
	out, err := s.Kubectl(ctx, strings.Fields(args)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s\n%s", command, strings.TrimSpace(out))
}

// missingCommands waits for an event about an object that tells so many, and takes
// them from its text. A look in the middle of a change of the grant tells fewer.
func missingCommands(ctx context.Context, t *testing.T, s *stack.Stack, namespace, about string, want int) []string {
	t.Helper()
	var commands []string
	err := s.WaitFor(ctx, "event "+vmireport.EventNotGranted+" on "+about, func(ctx context.Context) (bool, error) {
		var events corev1.EventList
		err := s.Client.List(ctx, &events, client.InNamespace(namespace))
		for _, e := range events.Items {
			if e.InvolvedObject.Name == about && e.Reason == vmireport.EventNotGranted {
				_, text, _ := strings.Cut(e.Message, "the commands that grant it: ")
				commands = strings.Split(text, "; ")
			}
			if len(commands) == want {
				return true, err
			}
		}
		return false, err
	})
	if err != nil {
		t.Fatalf("%v; the last one names %q", err, commands)
	}
	return commands
}

// readInstance reads the VMI anew, and its condition of ours.
func readInstance(ctx context.Context, t *testing.T, s *stack.Stack, vm *lab.VMI) (string, bool) {
	t.Helper()
	fresh := &lab.VMI{}
	if err := s.Client.Get(ctx, client.ObjectKeyFromObject(vm), fresh); err != nil {
		t.Fatal(err)
	}
	*vm = *fresh
	c, ok := instanceCondition(vm)
	return string(c.Status) + "/" + c.Reason, ok
}

// waitNote waits until the annotation begins so, or is gone.
func waitNote(ctx context.Context, t *testing.T, s *stack.Stack, vm *lab.VMI, want string) {
	t.Helper()
	var got string
	err := s.WaitFor(ctx, "the VMI's annotation to say "+want, func(ctx context.Context) (bool, error) {
		read := &lab.VMI{}
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(vm), read)
		got = read.Annotations[dualattach.TimedOutAnnotation]
		return strings.HasPrefix(got, want) && (want == "") == (got == ""), err
	})
	if err != nil {
		t.Fatalf("%v; it is %q", err, got)
	}
}
