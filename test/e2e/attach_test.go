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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// maxAttach is how soon a VM restarted elsewhere has its volume once its
// predecessor has let go of it.
const maxAttach = 12 * time.Second

// longHold is longer than csi-attacher takes to come to its longest pause between
// two attempts (1, 2, 4, 8, then 10 s).
const longHold = 26 * time.Second

// TestAVMStartedAgainOnAnotherNode: VMs are stopped and started on another node
// while their old one holds on to the volume: a node that unmounts slowly, and one
// that is dead. However long that lasts, they get it promptly once it is released.
func TestAVMStartedAgainOnAnotherNode(t *testing.T) {
	ctx, s, ns := setUp(t)
	const each = 4
	nodes := map[string]*lab.Node{}
	for _, kind := range []string{"slow", "dead"} {
		node, err := s.AddNode(ctx, "node-"+kind)
		if err != nil {
			t.Fatal(err)
		}
		nodes[kind] = node
		t.Cleanup(func() {
			if err := node.Remove(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	names := func(kind string) (all []string) {
		for i := range each {
			all = append(all, fmt.Sprintf("%s-%d", kind, i))
		}
		return all
	}
	for kind, node := range nodes {
		startVMs(ctx, t, s, ns, names(kind), func(b lab.VMIBuilder) lab.VMIBuilder { return b.PreferNode(node.Name) })
	}
	attached := watchAttachments(ctx, t, s)
	nodes["slow"].Behave(func(b *lab.Behaviour) { b.NeverUnmount = true })
	if err := nodes["dead"].PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	for kind := range nodes {
		for _, name := range names(kind) {
			startAgain(ctx, t, s, ns, name, nodeNames[0])
		}
	}
	refused := time.Now()
	for kind := range nodes {
		for _, name := range names(kind) {
			waitRefused(ctx, t, s, ns, name, "still releasing it")
		}
	}
	holdFrom(ctx, t, s, refused, longHold)
	nodes["slow"].Behave(func(b *lab.Behaviour) { b.NeverUnmount = false })
	if err := nodes["dead"].OutOfService(ctx); err != nil {
		t.Fatal(err)
	}
	for kind, node := range nodes {
		var worst time.Duration
		for _, name := range names(kind) {
			pv := volumeOf(ctx, t, s, ns, name)
			took := attached.between(ctx, t, s, pv, node.Name, nodeNames[0])
			worst = max(worst, took)
		}
		t.Logf("%s node: %d VMs attached elsewhere at most %.1f s after their predecessor's release", kind, each, worst.Seconds())
		if worst > maxAttach {
			t.Errorf("%s node: %s, the bar is %s", kind, worst, maxAttach)
		}
	}
	for kind := range nodes {
		for _, name := range names(kind) {
			vm := &lab.VMI{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
			if err := s.WaitVMIRunning(ctx, vm); err != nil {
				t.Error(err)
			}
		}
	}
}

func startVMs(ctx context.Context, t *testing.T, s *stack.Stack, ns string, names []string, change ...func(lab.VMIBuilder) lab.VMIBuilder) {
	t.Helper()
	all, groupCtx := errgroup.WithContext(ctx)
	for _, name := range names {
		all.Go(func() error {
			_, err := s.StartVM(groupCtx, ns, name, change...)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

// startAgain deletes a VM, its pod by force where the node does not answer, and
// creates it again on a node.
func startAgain(ctx context.Context, t *testing.T, s *stack.Stack, ns, name, node string) {
	t.Helper()
	vm := &lab.VMI{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	if err := s.Client.Delete(ctx, vm); err != nil {
		t.Fatal(err)
	}
	var pods corev1.PodList
	if err := s.Client.List(ctx, &pods, client.InNamespace(ns), client.MatchingLabels{"vm.kubevirt.io/name": name}); err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		if err := s.Client.Delete(ctx, &pods.Items[i], client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
	}
	if err := s.WaitVMIGone(ctx, vm); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateVMI(ctx, lab.NewVMI(ns, name).WithDisk(name).PreferNode(node)); err != nil {
		t.Fatal(err)
	}
}

// waitRefused waits until a volume's attachment says why it is refused.
func waitRefused(ctx context.Context, t *testing.T, s *stack.Stack, ns, claim, why string) {
	t.Helper()
	pv := volumeOf(ctx, t, s, ns, claim)
	err := s.WaitFor(ctx, fmt.Sprintf("an attachment of %s to be refused: %s", claim, why), func(ctx context.Context) (bool, error) {
		var list storagev1.VolumeAttachmentList
		err := s.Client.List(ctx, &list)
		return slices.ContainsFunc(list.Items, func(va storagev1.VolumeAttachment) bool {
			return *va.Spec.Source.PersistentVolumeName == pv && va.Status.AttachError != nil && strings.Contains(va.Status.AttachError.Message, why)
		}), err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// holdFrom waits until a time has passed that is itself what is tested.
func holdFrom(ctx context.Context, t *testing.T, s *stack.Stack, from time.Time, hold time.Duration) {
	t.Helper()
	err := s.WaitFor(ctx, fmt.Sprintf("%s to pass", hold), func(context.Context) (bool, error) { return time.Since(from) >= hold, nil })
	if err != nil {
		t.Fatal(err)
	}
}

func volumeOf(ctx context.Context, t *testing.T, s *stack.Stack, ns, claim string) string {
	t.Helper()
	var pvc corev1.PersistentVolumeClaim
	if err := s.Client.Get(ctx, client.ObjectKey{Namespace: ns, Name: claim}, &pvc); err != nil {
		t.Fatal(err)
	}
	return pvc.Spec.VolumeName
}

// attachments notes when a watching client saw a volume attached to a node, and
// gone from it.
type attachments struct {
	seen chan attachmentChange
	was  map[[2]string]attachmentChange // by volume and node, the last one
}

type attachmentChange struct {
	pv, node       string
	attached, gone bool
	at             time.Time
}

func watchAttachments(ctx context.Context, t *testing.T, s *stack.Stack) *attachments {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	t.Cleanup(stop)
	events, err := s.WatchFromNow(ctx, &storagev1.VolumeAttachmentList{}, "")
	if err != nil {
		t.Fatal(err)
	}
	a := &attachments{seen: make(chan attachmentChange, 1000), was: map[[2]string]attachmentChange{}}
	go func() {
		defer events.Stop()
		for e := range events.ResultChan() {
			if va, ok := e.Object.(*storagev1.VolumeAttachment); ok {
				a.seen <- attachmentChange{*va.Spec.Source.PersistentVolumeName, va.Spec.NodeName, va.Status.Attached, e.Type == apiwatch.Deleted, time.Now()}
			}
		}
	}()
	return a
}

// between is how long after a volume was gone from one node it was attached to
// another one.
func (a *attachments) between(ctx context.Context, t *testing.T, s *stack.Stack, pv, from, to string) time.Duration {
	t.Helper()
	var left, joined attachmentChange
	err := s.WaitFor(ctx, fmt.Sprintf("volume %s to go from %s to %s", pv, from, to), func(context.Context) (bool, error) {
		for {
			select {
			case c := <-a.seen:
				if c.gone || c.attached {
					a.was[[2]string{c.pv, c.node}] = c
				}
				continue
			default:
			}
			left, joined = a.was[[2]string{pv, from}], a.was[[2]string{pv, to}]
			return left.gone && joined.attached, nil
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return joined.at.Sub(left.at)
}

// TestFivePodsOnOneSharedClaim: CDI clones from one RWX claim with several pods on
// several nodes at once. They take turns by node, and all finish.
func TestFivePodsOnOneSharedClaim(t *testing.T) {
	ctx, s, ns := setUp(t)
	if _, err := s.CreateRWXClaim(ctx, ns, "source", nil); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	var pods []*corev1.Pod
	for i := range 5 {
		pod := lab.NewPod(ns, fmt.Sprintf("clone-%d", i), nodeNames[i%len(nodeNames)], "source")
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		if err := s.Client.Create(ctx, pod); err != nil {
			t.Fatal(err)
		}
		pods = append(pods, pod)
	}
	var turns []string
	finished := map[string]bool{}
	bounded, cancel := context.WithTimeout(ctx, 3*lab.DefaultWait)
	defer cancel()
	err := s.WaitFor(bounded, "all pods to have had the claim", func(ctx context.Context) (bool, error) {
		for _, pod := range pods {
			if err := s.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return false, err
			}
			if pod.Status.Phase == corev1.PodRunning && !finished[pod.Name] {
				finished[pod.Name] = true
				turns = append(turns, fmt.Sprintf("%s on %s after %.1f s", pod.Name, pod.Spec.NodeName, time.Since(started).Seconds()))
				s.Node(pod.Spec.NodeName).Kubelet.Exit(pod.UID, false)
			}
		}
		return len(finished) == len(pods), nil
	})
	if err != nil {
		t.Fatalf("%v; only %v", err, turns)
	}
	for _, pod := range pods {
		if err := s.WaitPod(ctx, pod, corev1.PodSucceeded); err != nil {
			t.Error(err)
		}
	}
	t.Logf("all finished: %s", strings.Join(turns, ", "))
	if err := s.WaitAttached(ctx, volumeOf(ctx, t, s, ns, "source")); err != nil {
		t.Error(err)
	}
}

// TestAFirstStartAsksNothingExtra: while a VM starts for the first time the plugin
// reads nothing of the API and writes nothing to it, its Lease aside; csi-attacher
// does what it does for any driver.
func TestAFirstStartAsksNothingExtra(t *testing.T) {
	ctx, s, ns := setUp(t)
	claim, err := s.CreateRWXClaim(ctx, ns, "vm", nil)
	if err != nil {
		t.Fatal(err)
	}
	waitNothingDetaches(ctx, t, s)
	mark, err := s.MarkAudit()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := s.CreateVMI(ctx, lab.NewVMI(ns, "vm").WithDisk(claim.Name))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitVMIRunning(ctx, vm); err != nil {
		t.Fatal(err)
	}
	asked, err := s.AuditSince(mark, audit.User(stack.PluginUser), func(e audit.Event) bool { return e.Object.Resource != "leases" })
	if err != nil {
		t.Fatal(err)
	}
	by := func(agent string) audit.Filter {
		return func(e audit.Event) bool { return strings.HasPrefix(e.Agent, agent+"/") }
	}
	plugin, attacher := asked.Where(by("rds-csi-plugin")), asked.Where(by("csi-attacher"))
	t.Logf("the plugin asked %d times, csi-attacher %v", len(plugin), attacher.CountBy(func(e audit.Event) string { return e.Verb + " " + e.Resource() }))
	if len(plugin) > 0 {
		t.Errorf("the plugin asked for\n%s", plugin)
	}
	// One service account is for all of the pod's programs: nobody else may have asked by it.
	known := len(plugin) + len(attacher) + len(asked.Where(by("csi-provisioner"))) + len(asked.Where(by("csi-resizer")))
	if len(attacher) == 0 || known != len(asked) {
		t.Errorf("not all requests are of known programs, so nothing is proven:\n%s", asked)
	}
}

// waitNothingDetaches waits until what earlier tests left is released: to detach the
// plugin asks the API, as it must.
func waitNothingDetaches(ctx context.Context, t *testing.T, s *stack.Stack) {
	t.Helper()
	err := s.WaitFor(ctx, "attachments that are being deleted to be gone", func(ctx context.Context) (bool, error) {
		var list storagev1.VolumeAttachmentList
		err := s.Client.List(ctx, &list)
		return !slices.ContainsFunc(list.Items, func(va storagev1.VolumeAttachment) bool { return va.DeletionTimestamp != nil }), err
	})
	if err != nil {
		t.Fatal(err)
	}
}
