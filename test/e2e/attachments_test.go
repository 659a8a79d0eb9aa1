package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

const (
	settleLimit  = 2 * time.Second
	releaseLimit = 15 * time.Second
)

// yard is a namespace on a stack that soon speaks of attachments.
type yard struct {
	*stack.Stack
	ns string
}

// startYards starts a stack for attachments that no migration explains.
func startYards(t *testing.T, options lab.Options) *stack.Stack {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	options.Nodes, options.Keep = nodeNames, *keep
	return stack.MustStart(ctx, t, stack.Options{Race: *raceProduct, Lab: options, OperatorArgs: []string{
		"--settle=" + settleLimit.String(), "--release-deadline=" + releaseLimit.String(), "--release-deadline-not-ready=" + releaseLimit.String()}})
}

// enter gives a test a yard of its own.
func enter(t *testing.T, s *stack.Stack) (context.Context, yard) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	t.Cleanup(cancel)
	y := yard{s, stack.NamespaceFor(t.Name())}
	if err := s.CreateNamespace(ctx, y.ns); err != nil {
		t.Fatal(err)
	}
	return ctx, y
}

// TestAttachments looks at attachments that no migration explains, and at those that
// need no explanation, side by side on one stack; then at what breaks the stack.
func TestAttachments(t *testing.T) {
	t.Parallel() // with those that have a stack of their own
	s := startYards(t, lab.Options{})
	t.Run("side by side", func(t *testing.T) {
		for name, test := range map[string]func(context.Context, *testing.T, yard){
			"a stranger beside a VM": strangerBesideVM, "lingering": lingering, "slow to end": slowToEnd, "node gone": nodeGone, "ledger edited": ledgerEdited,
			"VM restarted elsewhere": restartedVM, "clones": clones, "any two": anyTwo, "migration": longMigration,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx, y := enter(t, s)
				test(ctx, t, y)
			})
		}
	})
	t.Run("operator killed", func(t *testing.T) {
		ctx, y := enter(t, s)
		operatorKilled(ctx, t, y)
	})
	t.Run("array away", func(t *testing.T) {
		ctx, y := enter(t, s)
		arrayAway(ctx, t, y)
	})
}

// TestAttachmentsWithoutKubeVirt: two pods that should not share are a matter of pods,
// volumes and attachments alone.
func TestAttachmentsWithoutKubeVirt(t *testing.T) {
	t.Parallel() // with those that have a stack of their own
	ctx, y := enter(t, startYards(t, lab.Options{WithoutKubeVirt: true}))
	y.claim(ctx, t, "disk", nil)
	y.run(ctx, t, "first", "node-a", "disk")
	second := y.intrude(ctx, t, "second", "node-b", "disk")
	y.wantUnexplained(ctx, t, "disk", 1)
	y.end(ctx, t, second)
	wantEvents(ctx, t, y.Stack, y.ns, "disk", unexplained.EventResolved)
	y.wantUnexplained(ctx, t, "disk", 0)
}

// strangerBesideVM: another pod gets the disk of a running VM, as the array was told by
// hand that its node holds it.
func strangerBesideVM(ctx context.Context, t *testing.T, y yard) {
	vm := y.MustStartVM(ctx, t, y.ns, "vm", onNode("node-a"))
	stranger := y.intrude(ctx, t, "stranger", "node-b", "vm")
	wantEvents(ctx, t, y.Stack, y.ns, "vm", unexplained.EventDualAttach)
	y.wantUnexplained(ctx, t, "vm", 1)
	message := y.event(ctx, t, unexplained.EventDualAttach).Message
	for _, part := range []string{"node-a: pod virt-launcher-vm-", "of VMI vm", "node-b: pod stranger"} {
		if !strings.Contains(message, part) {
			t.Errorf("%q is not in: %s", part, message)
		}
	}
	y.wantVMI(ctx, t, vm, "True/"+unexplained.EventDualAttach, message)
	y.end(ctx, t, stranger)
	wantEvents(ctx, t, y.Stack, y.ns, "vm", unexplained.EventResolved)
	y.wantUnexplained(ctx, t, "vm", 0)
	y.wantVMI(ctx, t, vm, "False/"+dualattach.ReasonResolved, "")
}

// lingering: a pod is deleted, and its kubelet does not unmount for long.
func lingering(ctx context.Context, t *testing.T, y yard) {
	node, err := y.AddNode(ctx, "node-stuck")
	if err != nil {
		t.Fatal(err)
	}
	pv := y.claim(ctx, t, "disk", nil)
	pod := y.run(ctx, t, "pod", node.Name, "disk")
	node.Behave(func(b *lab.Behaviour) { b.NeverUnmount = true })
	started := time.Now()
	if err := y.Client.Delete(ctx, pod); err != nil {
		t.Fatal(err)
	}
	wantEvents(ctx, t, y.Stack, y.ns, "disk", unexplained.EventLingering)
	if took := time.Since(started); took < releaseLimit {
		t.Errorf("spoken of after %s, the limit is %s", took, releaseLimit)
	}
	y.wantDivergence(ctx, t, unexplained.Lingering, 1)
	node.Behave(func(b *lab.Behaviour) { b.NeverUnmount = false })
	if err := y.WaitAttached(ctx, pv.Name); err != nil {
		t.Fatal(err)
	}
	wantEvents(ctx, t, y.Stack, y.ns, "disk", unexplained.EventResolved)
	y.wantDivergence(ctx, t, unexplained.Lingering, 0)
}

// slowToEnd: a pod is deleted and takes the time it was given, as a guest that shuts down
// does. It uses the volume until it has ended.
func slowToEnd(ctx context.Context, t *testing.T, y yard) {
	node, err := y.AddNode(ctx, "node-slow")
	if err != nil {
		t.Fatal(err)
	}
	pv := y.claim(ctx, t, "disk", nil)
	pod := y.run(ctx, t, "pod", node.Name, "disk")
	node.Behave(func(b *lab.Behaviour) { b.Dead = true }) // and Ready; what runs there does not end
	if err := y.Client.Delete(ctx, pod, client.GracePeriodSeconds(3600)); err != nil {
		t.Fatal(err)
	}
	y.wantSilence(ctx, t)
	node.Behave(func(b *lab.Behaviour) { b.Dead = false })
	if err := y.WaitAttached(ctx, pv.Name); err != nil {
		t.Fatal(err)
	}
}

// nodeGone: a node is taken out of the cluster with a volume attached; the event's
// command ends it.
func nodeGone(ctx context.Context, t *testing.T, y yard) {
	node, err := y.AddNode(ctx, "node-lost")
	if err != nil {
		t.Fatal(err)
	}
	pv := y.claim(ctx, t, "disk", nil)
	pod := y.run(ctx, t, "pod", node.Name, "disk")
	if err := node.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	wantEvents(ctx, t, y.Stack, y.ns, "disk", unexplained.EventNodeGone)
	y.wantDivergence(ctx, t, unexplained.NodeGone, 1)
	message := y.event(ctx, t, unexplained.EventNodeGone).Message
	_, name, ok := strings.Cut(message, "kubectl delete volumeattachment ")
	if !ok {
		t.Fatalf("no command in: %s", message)
	}
	if err := y.Client.Delete(ctx, pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	va := &storagev1.VolumeAttachment{}
	va.Name, _, _ = strings.Cut(name, ";")
	if err := y.Client.Delete(ctx, va); client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	if err := y.WaitAttached(ctx, pv.Name); err != nil {
		t.Fatal(err)
	}
	wantEvents(ctx, t, y.Stack, y.ns, "disk", unexplained.EventResolved)
	y.wantDivergence(ctx, t, unexplained.NodeGone, 0)
}

// ledgerEdited: somebody edits a disk's comment, so that it names a node that is not
// attached, or no longer one that is.
func ledgerEdited(ctx context.Context, t *testing.T, y yard) {
	idle, used := y.claim(ctx, t, "idle", nil), y.claim(ctx, t, "used", nil)
	y.run(ctx, t, "pod", "node-a", "used")
	idleWas, usedWas := y.comment(t, idle), y.comment(t, used)
	y.edit(ctx, t, idle, fmt.Sprintf("rds1 g7 node-c=%d", time.Now().Unix()))
	y.edit(ctx, t, used, "rds1 g7")
	wantEvents(ctx, t, y.Stack, y.ns, "idle", unexplained.EventDivergence)
	wantEvents(ctx, t, y.Stack, y.ns, "used", unexplained.EventDivergence)
	kinds := []unexplained.Kind{unexplained.NotAttached, unexplained.NotExported, unexplained.NotPublished, unexplained.Exported}
	for _, kind := range kinds {
		y.wantDivergence(ctx, t, kind, 1)
	}
	// Who wants the volume is told that waiting is in vain, and what to do, which helps.
	next := lab.NewPod(y.ns, "next", "node-b", "idle")
	if err := y.Client.Create(ctx, next); err != nil {
		t.Fatal(err)
	}
	waitRefused(ctx, t, y.Stack, y.ns, "idle", "no VolumeAttachment of it for node node-c")
	y.edit(ctx, t, idle, idleWas)
	if err := y.WaitPod(ctx, next, corev1.PodRunning); err != nil {
		t.Fatal(err)
	}
	y.edit(ctx, t, used, usedWas)
	wantEvents(ctx, t, y.Stack, y.ns, "idle", unexplained.EventAgree)
	wantEvents(ctx, t, y.Stack, y.ns, "used", unexplained.EventAgree)
	for _, kind := range kinds {
		y.wantDivergence(ctx, t, kind, 0)
	}
}

// restartedVM: a VM is stopped and started on another node, twice.
func restartedVM(ctx context.Context, t *testing.T, y yard) {
	pv := y.claim(ctx, t, "vm", nil)
	for _, node := range []string{"node-a", "node-b", "node-a"} {
		vm, err := y.CreateVMI(ctx, onNode(node)(lab.NewVMI(y.ns, "vm").WithDisk("vm")))
		if err != nil {
			t.Fatal(err)
		}
		if err := y.WaitVMIRunning(ctx, vm); err != nil {
			t.Fatal(err)
		}
		if vm.Status.NodeName != node {
			t.Fatalf("the VM runs on %s", vm.Status.NodeName)
		}
		if err := y.Client.Delete(ctx, vm); err != nil {
			t.Fatal(err)
		}
		if err := y.WaitVMIGone(ctx, vm); err != nil {
			t.Fatal(err)
		}
	}
	if err := y.WaitAttached(ctx, pv.Name); err != nil {
		t.Fatal(err)
	}
	y.wantSilence(ctx, t)
}

// clones: as CDI's do, five pods on three nodes want one claim at once; one proceeds,
// the others queue, and all finish.
func clones(ctx context.Context, t *testing.T, y yard) {
	pv := y.claim(ctx, t, "disk", nil)
	all, allCtx := errgroup.WithContext(ctx)
	for i := range 5 {
		node := []string{"node-a", "node-b", "node-c"}[i%3]
		all.Go(func() error {
			pod := lab.NewPod(y.ns, fmt.Sprintf("clone-%d", i), node, "disk")
			if err := y.Client.Create(allCtx, pod); err != nil {
				return err
			}
			if err := y.WaitPod(allCtx, pod, corev1.PodRunning); err != nil {
				return err
			}
			y.Node(node).Kubelet.Exit(pod.UID, false)
			return y.WaitPod(allCtx, pod, corev1.PodSucceeded)
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := y.WaitAttached(ctx, pv.Name); err != nil {
		t.Fatal(err)
	}
	y.wantSilence(ctx, t)
}

// anyTwo: an administrator lets any two nodes share.
func anyTwo(ctx context.Context, t *testing.T, y yard) {
	pv := y.claim(ctx, t, "disk", map[string]string{"dualAttach": "Any"})
	y.run(ctx, t, "first", "node-a", "disk")
	y.run(ctx, t, "second", "node-b", "disk")
	if err := y.WaitAttached(ctx, pv.Name, "node-a", "node-b"); err != nil {
		t.Fatal(err)
	}
	y.wantSilence(ctx, t)
}

// longMigration: two nodes share for longer than anything else may last.
func longMigration(ctx context.Context, t *testing.T, y yard) {
	vm := y.MustStartVM(ctx, t, y.ns, "vm", onNode("node-a"))
	vmim := migrate(ctx, t, y.Stack, vm, handler.HoldingAt(handler.Switch))
	waitCondition(ctx, t, y.Stack, vmim, dualattach.ConditionDualAttached, "True", dualattach.ReasonLiveMigration)
	y.wantSilence(ctx, t)
	release(ctx, t, y.Stack, vm, vmim)
	waitCondition(ctx, t, y.Stack, vmim, dualattach.ConditionMigrated, "True", "Completed")
	y.wantSilence(ctx, t)
}

// operatorKilled: what was said before a kill -9 stands right after it, is not said
// again, and is taken back.
func operatorKilled(ctx context.Context, t *testing.T, y yard) {
	y.claim(ctx, t, "disk", nil)
	y.run(ctx, t, "first", "node-a", "disk")
	second := y.intrude(ctx, t, "second", "node-b", "disk")
	y.wantUnexplained(ctx, t, "disk", 1)
	y.Operators[0].Kill()
	if err := y.Operators[0].Run(); err != nil {
		t.Fatal(err)
	}
	if err := y.WaitOperator(ctx, y.Operators[0]); err != nil {
		t.Fatal(err)
	}
	y.wantUnexplained(ctx, t, "disk", 1)
	y.end(ctx, t, second)
	wantEvents(ctx, t, y.Stack, y.ns, "disk", unexplained.EventResolved)
	y.wantUnexplained(ctx, t, "disk", 0)
	if got := y.warnings(ctx, t); !slices.Equal(got, []string{unexplained.EventDualAttach}) {
		t.Errorf("warnings: %v", got)
	}
}

// arrayAway: while the array does not answer nothing new diverges, and nothing is over.
func arrayAway(ctx context.Context, t *testing.T, y yard) {
	y.claim(ctx, t, "fine", nil)
	y.run(ctx, t, "pod", "node-a", "fine")
	pv := y.claim(ctx, t, "idle", nil)
	was := y.comment(t, pv)
	y.edit(ctx, t, pv, fmt.Sprintf("rds1 g7 node-c=%d", time.Now().Unix()))
	y.wantDivergence(ctx, t, unexplained.NotAttached, 1)
	if err := y.Array.Down(); err != nil {
		t.Fatal(err)
	}
	up := map[string]string{"array": stack.ArrayName}
	y.WantMetric(ctx, t, report.MetricArrayUp, up, 0)
	y.edit(ctx, t, pv, was)
	series := y.MustScrape(ctx, t)
	if n := series.Value(report.MetricDivergence, map[string]string{"kind": unexplained.NotAttached.String()}); n != 1 {
		t.Errorf("%v ledgers name a node that is not attached; nobody can know", n)
	}
	if err := y.Array.Up(); err != nil {
		t.Fatal(err)
	}
	y.WantMetric(ctx, t, report.MetricArrayUp, up, 1)
	wantEvents(ctx, t, y.Stack, y.ns, "idle", unexplained.EventAgree)
	y.wantDivergence(ctx, t, unexplained.NotAttached, 0)
	if got := y.warnings(ctx, t); slices.ContainsFunc(got, func(reason string) bool { return reason != unexplained.EventDivergence }) {
		t.Errorf("warnings: %v", got)
	}
}

func onNode(node string) func(lab.VMIBuilder) lab.VMIBuilder {
	return func(b lab.VMIBuilder) lab.VMIBuilder { return b.PreferNode(node) }
}

// claim makes a claim and gives its volume.
func (y yard) claim(ctx context.Context, t *testing.T, name string, parameters map[string]string) *corev1.PersistentVolume {
	t.Helper()
	if _, err := y.CreateRWXClaim(ctx, y.ns, name, parameters); err != nil {
		t.Fatal(err)
	}
	return y.volume(ctx, t, name)
}

func (y yard) volume(ctx context.Context, t *testing.T, claim string) *corev1.PersistentVolume {
	t.Helper()
	pvc, pv := &corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}
	if err := y.Client.Get(ctx, client.ObjectKey{Namespace: y.ns, Name: claim}, pvc); err != nil {
		t.Fatal(err)
	}
	if err := y.Client.Get(ctx, client.ObjectKey{Name: pvc.Spec.VolumeName}, pv); err != nil {
		t.Fatal(err)
	}
	return pv
}

// run runs a pod that uses a claim.
func (y yard) run(ctx context.Context, t *testing.T, name, node, claim string) *corev1.Pod {
	t.Helper()
	pod := lab.NewPod(y.ns, name, node, claim)
	if err := y.Client.Create(ctx, pod); err != nil {
		t.Fatal(err)
	}
	if err := y.WaitPod(ctx, pod, corev1.PodRunning); err != nil {
		t.Fatal(err)
	}
	return pod
}

// intrude runs a pod on a second node that the plugin would not let in: the ledger says
// beforehand that the node holds the volume, so that the publish is a repair.
func (y yard) intrude(ctx context.Context, t *testing.T, name, node, claim string) *corev1.Pod {
	t.Helper()
	y.publish(ctx, t, node, y.volume(ctx, t, claim))
	return y.run(ctx, t, name, node, claim)
}

// publish adds a node to a volume's ledger, past the plugin and the cluster.
func (y yard) publish(ctx context.Context, t *testing.T, node string, pv *corev1.PersistentVolume) {
	t.Helper()
	ledger := rds.ParseLedger(y.comment(t, pv))
	ledger.Generation++
	ledger.Publications = append(ledger.Publications, rds.Publication{Node: rds.NodeKey(node), Since: time.Now()})
	y.edit(ctx, t, pv, ledger.String())
}

// end deletes a pod and waits until it is gone.
func (y yard) end(ctx context.Context, t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if err := y.Client.Delete(ctx, pod); err != nil {
		t.Fatal(err)
	}
	if err := y.WaitPod(ctx, pod, ""); err != nil {
		t.Fatal(err)
	}
}

func (y yard) comment(t *testing.T, pv *corev1.PersistentVolume) string {
	t.Helper()
	disk, ok := y.Array.Disk(pv.Spec.CSI.VolumeHandle)
	if !ok {
		t.Fatalf("no disk %s", pv.Spec.CSI.VolumeHandle)
	}
	return disk.Comment
}

// edit writes a disk's comment as an administrator would, on the array.
func (y yard) edit(ctx context.Context, t *testing.T, pv *corev1.PersistentVolume, comment string) {
	t.Helper()
	if out, err := y.Array.Run(ctx, fmt.Sprintf(`/disk set [find slot="%s"] comment="%s"`, pv.Spec.CSI.VolumeHandle, comment)); err != nil || out != "" {
		t.Fatalf("%q, %v", out, err)
	}
	if got := y.comment(t, pv); got != comment {
		t.Fatalf("the comment is %q, not %q", got, comment)
	}
}

func (y yard) wantUnexplained(ctx context.Context, t *testing.T, claim string, want float64) {
	t.Helper()
	y.WantMetric(ctx, t, report.MetricUnexplained, map[string]string{"namespace": y.ns, "persistentvolumeclaim": claim}, want)
}

func (y yard) wantDivergence(ctx context.Context, t *testing.T, kind unexplained.Kind, want float64) {
	t.Helper()
	y.WantMetric(ctx, t, report.MetricDivergence, map[string]string{"kind": kind.String()}, want)
}

// wantVMI waits until the VMI says so, in these words if any are given.
func (y yard) wantVMI(ctx context.Context, t *testing.T, vm *lab.VMI, want, message string) {
	t.Helper()
	err := y.WaitVMI(ctx, vm, "to say "+want, func(vmi *lab.VMI) bool {
		return slices.ContainsFunc(vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
			return c.Type == unexplained.ConditionInstance && string(c.Status)+"/"+c.Reason == want && (message == "" || c.Message == message)
		})
	})
	if err != nil {
		t.Errorf("%v; its conditions are %+v", err, vm.Status.Conditions)
	}
}

// warnings are the reasons of the attachment events in the yard that are no good news.
func (y yard) warnings(ctx context.Context, t *testing.T) []string {
	t.Helper()
	var reasons []string
	for _, e := range y.events(ctx, t) {
		if e.Type == corev1.EventTypeWarning {
			reasons = append(reasons, e.Reason)
		}
	}
	return reasons
}

func (y yard) events(ctx context.Context, t *testing.T) []corev1.Event {
	t.Helper()
	var events corev1.EventList
	if err := y.Client.List(ctx, &events, client.InNamespace(y.ns)); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(events.Items, func(e corev1.Event) bool { return e.Source.Component != "rds-csi-operator" })
}

func (y yard) event(ctx context.Context, t *testing.T, reason string) corev1.Event {
	t.Helper()
	for _, e := range y.events(ctx, t) {
		if e.Reason == reason {
			return e
		}
	}
	t.Fatalf("no event %s", reason)
	return corev1.Event{}
}

// outlast waits until the array was observed that much later.
func (y yard) outlast(ctx context.Context, t *testing.T, d time.Duration) {
	t.Helper()
	until := float64(time.Now().Add(d).UnixMilli()) / 1000
	err := y.WaitFor(ctx, "the array to be observed later", func(ctx context.Context) (bool, error) {
		return y.MustScrape(ctx, t).Value(report.MetricArrayObserved, map[string]string{"array": stack.ArrayName}) > until, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// wantSilence: as things are they may stay for longer than any limit, and nobody is
// warned.
func (y yard) wantSilence(ctx context.Context, t *testing.T) {
	t.Helper()
	y.outlast(ctx, t, releaseLimit+settleLimit)
	if got := y.warnings(ctx, t); len(got) > 0 {
		t.Errorf("warnings: %v", got)
	}
}
