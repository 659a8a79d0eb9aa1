package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// TestEndings plays every ending of a migration that disturbs no other one, all at
// once, each in a namespace and, where nodes die, on nodes of its own. What KubeVirt
// does on its side is real but for virt-handler's part (test/lab/handler).
func TestEndings(t *testing.T) {
	play(t, slices.Concat(failures, releases, repetitions, volumes, bystanders))
}

// scenario is one ending.
type scenario struct {
	name string
	play func(*scene)
}

// play runs scenarios at once, and then checks that each migration was counted
// exactly once and that none is under way any more.
func play(t *testing.T, scenarios []scenario) {
	before := shared.MustScrape(t.Context(), t)
	owed := &bill{results: map[dualattach.Result]int{}, timeouts: map[dualattach.Stage]int{}}
	t.Run("of", func(t *testing.T) {
		for _, s := range scenarios {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				sc := newScene(t, owed)
				s.play(sc)
				sc.checkEnd()
			})
		}
	})
	if t.Failed() {
		return // what the scenarios owed is not known
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, result := range dualattach.Results() {
		labels := map[string]string{"result": string(result)}
		shared.WantMetric(ctx, t, report.MetricMigrations, labels, before.Value(report.MetricMigrations, labels)+float64(owed.results[result]))
	}
	for _, stage := range dualattach.UnderWay() {
		labels := map[string]string{"stage": stage.String()}
		shared.WantMetric(ctx, t, report.MetricTimeouts, labels, before.Value(report.MetricTimeouts, labels)+float64(owed.timeouts[stage]))
	}
	shared.WantMetric(ctx, t, report.MetricActive, nil, before.Value(report.MetricActive, nil))
	t.Logf("counted: results %v, timeouts %v", owed.results, owed.timeouts)
}

// bill is what all scenarios together owe the counters.
type bill struct {
	mu       sync.Mutex
	results  map[dualattach.Result]int
	timeouts map[dualattach.Stage]int
}

// scene is the stage of one scenario: a namespace, nodes and VMs of its own, and
// the words to say what is to be seen. Each word fails the test where it is not.
type scene struct {
	*stack.Stack
	t    *testing.T
	ctx  context.Context
	ns   string
	mark lab.AuditMark
	owed *bill
}

func newScene(t *testing.T, owed *bill) *scene {
	t.Helper()
	ctx, s, ns := setUp(t)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(cancel)
	mark, err := s.MarkAudit()
	if err != nil {
		t.Fatal(err)
	}
	return &scene{Stack: s, t: t, ctx: ctx, ns: ns, mark: mark, owed: owed}
}

func (sc *scene) must(err error) {
	sc.t.Helper()
	if err != nil {
		sc.t.Fatal(err)
	}
}

// ownTaint keeps other scenarios' pods away from a scene's own nodes.
const ownTaint = "e2e.rds.srvlab.io/own"

// node adds a node that only this scene's VMs use.
func (sc *scene) node(role string) *lab.Node {
	sc.t.Helper()
	node, err := sc.AddNode(sc.ctx, strings.Trim(sc.ns[max(0, len(sc.ns)-50):], "-")+"-"+role,
		lab.WithTaints(corev1.Taint{Key: ownTaint, Value: sc.ns, Effect: corev1.TaintEffectNoSchedule}))
	sc.must(err)
	sc.t.Cleanup(func() {
		if err := node.Remove(context.Background()); err != nil {
			sc.t.Error(err)
		}
	})
	return node
}

// vm starts a VM named vm, by default with the one disk of the claim vm.
func (sc *scene) vm(change ...func(lab.VMIBuilder) lab.VMIBuilder) *lab.VMI {
	sc.t.Helper()
	vm := sc.MustStartVM(sc.ctx, sc.t, sc.ns, "vm", append(change, sc.tolerating)...)
	sc.t.Cleanup(func() {
		if err := sc.Client.Delete(context.Background(), vm); client.IgnoreNotFound(err) != nil {
			sc.t.Error(err)
		}
		if sc.t.Failed() {
			return // it may be stuck, and has said enough
		}
		if err := sc.WaitVMIGone(context.Background(), vm); err != nil {
			sc.t.Error(err)
		}
	})
	return vm
}

// tolerating lets a VM run on the scene's own nodes.
func (sc *scene) tolerating(b lab.VMIBuilder) lab.VMIBuilder {
	return b.Where(func(vmi *lab.VMI) {
		vmi.Spec.Tolerations = append(vmi.Spec.Tolerations, corev1.Toleration{Key: ownTaint, Value: sc.ns})
	})
}

func on(node *lab.Node) func(lab.VMIBuilder) lab.VMIBuilder {
	return func(b lab.VMIBuilder) lab.VMIBuilder { return b.PreferNode(node.Name) }
}

func withDisk(claim string) func(lab.VMIBuilder) lab.VMIBuilder {
	return func(b lab.VMIBuilder) lab.VMIBuilder { return b.WithDisk(claim) }
}

// claim makes a shared volume and its claim and gives the volume's slot.
func (sc *scene) claim(name string) (slot string) {
	sc.t.Helper()
	_, err := sc.CreateRWXClaim(sc.ctx, sc.ns, name, nil)
	sc.must(err)
	return sc.slot(name)
}

func (sc *scene) slot(claim string) string {
	sc.t.Helper()
	var pv corev1.PersistentVolume
	sc.must(sc.Client.Get(sc.ctx, client.ObjectKey{Name: sc.pv(claim)}, &pv))
	return pv.Spec.CSI.VolumeHandle
}

func (sc *scene) pv(claim string) string {
	sc.t.Helper()
	var pvc corev1.PersistentVolumeClaim
	sc.must(sc.Client.Get(sc.ctx, client.ObjectKey{Namespace: sc.ns, Name: claim}, &pvc))
	return pvc.Spec.VolumeName
}

// migrate begins a migration.
func (sc *scene) migrate(vm *lab.VMI, course handler.Course, options ...lab.MigrateOption) *lab.VMIM {
	sc.t.Helper()
	vmim, err := sc.Migrate(sc.ctx, vm, append(options, lab.Following(course))...)
	sc.must(err)
	return vmim
}

// holdDual begins a migration and holds it while both nodes have the volumes.
func (sc *scene) holdDual(vm *lab.VMI, options ...lab.MigrateOption) *lab.VMIM {
	sc.t.Helper()
	vmim := sc.migrate(vm, handler.HoldingAt(handler.Switch), options...)
	sc.must(sc.WaitStep(sc.ctx, vmim, handler.Switch))
	sc.shows(vmim, dual)
	return vmim
}

// resume lets a migration go on once it is held before a step.
func (sc *scene) resume(vm *lab.VMI, vmim *lab.VMIM, step handler.Step) {
	sc.t.Helper()
	sc.must(sc.WaitStep(sc.ctx, vmim, step))
	sc.Release(vm)
}

// limitIn has the VM's migration run out of time that much later than now, by an
// administrator's limit; it is warned about if the operator finds it between 80 % of the
// limit and its end, so the rest is to be long enough for a machine that stalls.
func (sc *scene) limitIn(vm *lab.VMI, vmim *lab.VMIM, rest time.Duration) {
	sc.t.Helper()
	target, err := sc.TargetPod(sc.ctx, vmim)
	sc.must(err)
	sc.limit(vm, time.Since(target.CreationTimestamp.Time).Round(time.Second)+rest)
}

// limit sets the administrator's limit on the VM's migrations.
func (sc *scene) limit(vm *lab.VMI, limit time.Duration) {
	sc.t.Helper()
	sc.must(sc.Client.Patch(sc.ctx, vm, limitPatch(limit)))
}

// limitPatch sets the administrator's limit on a VMI.
func limitPatch(limit time.Duration) client.Patch {
	annotation := strings.ReplaceAll(dualattach.TimeoutAnnotation, "/", "~1")
	return client.RawPatch(types.JSONPatchType, fmt.Appendf(nil, `[{"op":"add","path":"/metadata/annotations/%s","value":%q}]`, annotation, limit))
}

func (sc *scene) delete(o client.Object) {
	sc.t.Helper()
	sc.must(sc.Client.Delete(sc.ctx, o))
}

// gone waits until a VMIM is.
func (sc *scene) gone(vmim *lab.VMIM) {
	sc.t.Helper()
	sc.must(sc.WaitFor(sc.ctx, "VMIM "+vmim.Name+" to be gone", func(ctx context.Context) (bool, error) {
		err := sc.Client.Get(ctx, client.ObjectKeyFromObject(vmim), vmim)
		return client.IgnoreNotFound(err) == nil && err != nil, client.IgnoreNotFound(err)
	}))
}

// goneOrLeft waits until a VMIM is gone, as its VMI is, or until KubeVirt has left it
// behind: it did not take its finalizer off in time, and without the VMI never will. Who
// reads such a VMIM is to find the end there.
func (sc *scene) goneOrLeft(vmim *lab.VMIM) {
	sc.t.Helper()
	var left bool
	sc.must(sc.WaitFor(sc.ctx, "VMIM "+vmim.Name+" to be gone, or left by KubeVirt with its end told", func(ctx context.Context) (bool, error) {
		err := sc.Client.Get(ctx, client.ObjectKeyFromObject(vmim), vmim)
		if err != nil {
			left = false
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		}
		left = vmim.DeletionTimestamp != nil && vmim.IsFinal() && slices.Contains(vmim.Finalizers, kubevirtv1.VirtualMachineInstanceMigrationFinalizer)
		return left && slices.Contains([]conditions{detached, rolledBack}, conditions(summary(vmim))), nil
	}))
	if left {
		sc.t.Logf("KubeVirt has left VMIM %s behind, with its finalizer", vmim.Name)
	}
}

// The conditions of a VMIM, as "status/reason" of dual attached, migrated, timed out.
type conditions [3]string

// What most migrations show under way, and at their ends.
var (
	attaching  = conditions{"False/AwaitingTarget", "Unknown/AttachingTarget", "False/WithinDeadline"}
	dual       = conditions{"True/LiveMigration", "Unknown/DualAttached", "False/WithinDeadline"}
	releasing  = conditions{"True/ReleasingSource", "Unknown/ReleasingSource", "False/WithinDeadline"}
	completed  = conditions{"False/SourceReleased", "True/Completed", "False/WithinDeadline"}
	rolledBack = conditions{"False/TargetReleased", "False/RolledBack", "False/WithinDeadline"}
	detached   = conditions{"False/Detached", "False/Detached", "False/WithinDeadline"}
	superseded = conditions{"False/Superseded", "False/Superseded", "False/WithinDeadline"}
)

// late is the same past a deadline.
func (c conditions) late(stage dualattach.Stage) conditions {
	c[2] = "True/" + stage.String()
	return c
}

// resolved is the same, over after a deadline had passed.
func (c conditions) resolved() conditions {
	c[2] = "False/Resolved"
	return c
}

// shows waits until a VMIM's conditions are one of those, and reads it.
func (sc *scene) shows(vmim *lab.VMIM, want ...conditions) {
	sc.t.Helper()
	err := sc.WaitFor(sc.ctx, fmt.Sprintf("VMIM %s to show %v", vmim.Name, want), func(ctx context.Context) (bool, error) {
		err := sc.Client.Get(ctx, client.ObjectKeyFromObject(vmim), vmim)
		return slices.Contains(want, conditions(summary(vmim))), err
	})
	if err != nil {
		sc.t.Fatalf("%v; it shows %v", err, summary(vmim))
	}
}

// says checks the message of a VMIM's condition, as last read.
func (sc *scene) says(vmim *lab.VMIM, of kubevirtv1.VirtualMachineInstanceMigrationConditionType, parts ...string) {
	sc.t.Helper()
	sc.contains(string(of)+" of VMIM "+vmim.Name, conditionOf(vmim, of).Message, parts)
}

func (sc *scene) contains(what, text string, parts []string) {
	sc.t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			sc.t.Errorf("%s does not say %q: %s", what, part, text)
		}
	}
}

// hears waits until our events about a claim or a VMI have exactly these reasons.
func (sc *scene) hears(kind, name string, reasons ...string) {
	sc.t.Helper()
	slices.Sort(reasons)
	var got []string
	err := sc.WaitFor(sc.ctx, fmt.Sprintf("the events %v on %s %s", reasons, kind, name), func(ctx context.Context) (bool, error) {
		events, err := sc.events(ctx, kind, name)
		if err != nil {
			return false, err
		}
		got = nil
		for _, e := range events {
			got = append(got, e.Reason)
		}
		slices.Sort(got)
		return slices.Equal(got, reasons), nil
	})
	if err != nil {
		sc.t.Errorf("%v; they are %v", err, got)
	}
}

// events are ours about an object.
func (sc *scene) events(ctx context.Context, kind, name string) ([]corev1.Event, error) {
	var list corev1.EventList
	err := sc.Client.List(ctx, &list, client.InNamespace(sc.ns))
	return slices.DeleteFunc(list.Items, func(e corev1.Event) bool {
		return e.Source.Component != "rds-csi-operator" || e.InvolvedObject.Kind != kind || e.InvolvedObject.Name != name
	}), err
}

// claimHears is hears about a claim.
func (sc *scene) claimHears(claim string, reasons ...string) {
	sc.t.Helper()
	sc.hears("PersistentVolumeClaim", claim, reasons...)
}

// told checks that some event of a reason on a claim says all of it.
func (sc *scene) told(claim, reason string, parts ...string) {
	sc.t.Helper()
	events, err := sc.events(sc.ctx, "PersistentVolumeClaim", claim)
	sc.must(err)
	var texts []string
	for _, e := range events {
		if e.Reason == reason && !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(e.Message, part) }) {
			return
		}
		texts = append(texts, e.Reason+": "+e.Message)
	}
	sc.t.Errorf("no event %s on claim %s says %q; there are:\n%s", reason, claim, parts, strings.Join(texts, "\n"))
}

// overdue waits until a VMIM and the VMI say that a stage lasts too long, and why.
func (sc *scene) overdue(vm *lab.VMI, vmim *lab.VMIM, under conditions, stage dualattach.Stage, parts ...string) {
	sc.t.Helper()
	sc.shows(vmim, under.late(stage))
	sc.says(vmim, dualattach.ConditionTimedOut, parts...)
	// One may be told a second after the other, so their words differ in that.
	waitInstance(sc.ctx, sc.t, sc.Stack, vm, "True/"+stage.String(), "")
	sc.must(sc.Client.Get(sc.ctx, client.ObjectKeyFromObject(vm), vm))
	said, _ := instanceCondition(vm)
	sc.contains("the condition of VMI "+vm.Name, said.Message, parts)
	sc.hears("VirtualMachineInstance", vm.Name, "StorageMigrationTimedOut")
	sc.owed.mu.Lock()
	defer sc.owed.mu.Unlock()
	sc.owed.timeouts[stage]++
}

// resolves waits until the VMI says that it is over.
func (sc *scene) resolves(vm *lab.VMI) {
	sc.t.Helper()
	waitInstance(sc.ctx, sc.t, sc.Stack, vm, "False/Resolved", "")
}

// counts says how the scene's migrations are to be counted.
func (sc *scene) counts(results ...dualattach.Result) {
	sc.owed.mu.Lock()
	defer sc.owed.mu.Unlock()
	for _, result := range results {
		sc.owed.results[result]++
	}
}

// series are the gauges about the scene's namespace, as "name/what".
func (sc *scene) series(ctx context.Context) []string {
	sc.t.Helper()
	all := sc.MustScrape(ctx, sc.t)
	var found []string
	for name, labels := range map[string][]string{report.MetricDeadline: {"migration", "stage"}, report.MetricDualAttached: {"persistentvolumeclaim"}} {
		for _, m := range all[name].GetMetric() {
			got := map[string]string{}
			for _, l := range m.GetLabel() {
				got[l.GetName()] = l.GetValue()
			}
			if got["namespace"] != sc.ns {
				continue
			}
			id := name
			for _, label := range labels {
				id += "/" + got[label]
			}
			found = append(found, id)
		}
	}
	slices.Sort(found)
	return found
}

// measures waits until exactly these gauges speak of the scene: "dual/claim",
// "deadline/vmim/stage".
func (sc *scene) measures(want ...string) {
	sc.t.Helper()
	full := make([]string, 0, len(want))
	for _, w := range want {
		w = strings.Replace(w, "dual/", report.MetricDualAttached+"/", 1)
		full = append(full, strings.Replace(w, "deadline/", report.MetricDeadline+"/", 1))
	}
	slices.Sort(full)
	var got []string
	if err := sc.WaitFor(sc.ctx, fmt.Sprintf("the gauges %v", full), func(ctx context.Context) (bool, error) {
		got = sc.series(ctx)
		return slices.Equal(got, full), nil
	}); err != nil {
		sc.t.Errorf("%v; there are %v", err, got)
	}
}

// checkEnd: nothing is under way any more, and KubeVirt is unharmed.
func (sc *scene) checkEnd() {
	sc.t.Helper()
	if sc.t.Failed() {
		return
	}
	sc.measures()
	events, err := sc.AuditSince(sc.mark, audit.Writes(), func(e audit.Event) bool { return e.Object.Namespace == sc.ns })
	sc.must(err)
	sc.checkPlaces(events)
	sc.checkInstances(events)
}

// checkPlaces: the operator writes events, VMIMs' statuses and VMIs' conditions only.
func (sc *scene) checkPlaces(events audit.Events) {
	sc.t.Helper()
	for _, e := range events.Where(audit.User(stack.OperatorUser)) {
		switch e.Verb + " " + e.Resource() {
		case "create events", "patch virtualmachineinstancemigrations/status", "patch virtualmachineinstances":
		default:
			sc.t.Errorf("the operator wrote where it must not: %s", e)
		}
	}
}

// checkInstances: our writes on a VMI change our condition and nothing else, and
// each may cost KubeVirt at most one refused write of its own.
func (sc *scene) checkInstances(events audit.Events) {
	sc.t.Helper()
	type version struct {
		vmi  lab.VMI
		ours bool
	}
	stored := map[string]map[string]version{} // by name, then by resource version
	ours, refused := 0, 0
	for _, e := range events.Where(audit.Resource("virtualmachineinstances"), func(e audit.Event) bool { return e.Verb != "delete" }) {
		mine := e.User.Name == stack.OperatorUser
		switch {
		case e.Failed():
			if !mine && ours > 0 && guardsWithoutOurs(e) {
				refused++
				sc.t.Logf("KubeVirt writes again: %s", e)
			}
			continue
		case mine:
			ours++
		}
		var v version
		sc.must(json.Unmarshal(e.ResponseObject.Raw, &v.vmi))
		v.ours = mine
		if stored[v.vmi.Name] == nil {
			stored[v.vmi.Name] = map[string]version{}
		}
		if _, known := stored[v.vmi.Name][v.vmi.ResourceVersion]; !known { // a write that changes nothing repeats one
			stored[v.vmi.Name][v.vmi.ResourceVersion] = v
		}
	}
	if refused > ours {
		sc.t.Errorf("%d writes of KubeVirt's were refused for %d of ours", refused, ours)
	}
	for name, versions := range stored {
		var before version
		for _, key := range slices.SortedFunc(maps.Keys(versions), func(a, b string) int { return compareVersions(sc.t, a, b) }) {
			now := versions[key]
			if was, is := theirs(before.vmi), theirs(now.vmi); now.ours && was != is {
				sc.t.Errorf("a write of ours changed VMI %s at %s:\n%s\n%s", name, key, was, is)
			}
			before = now
		}
	}
}

// theirs is all of a VMI but our condition and what every write changes.
func theirs(vmi lab.VMI) string {
	vmi.ResourceVersion, vmi.ManagedFields, vmi.Generation = "", nil, 0
	vmi.Status.Conditions = slices.DeleteFunc(slices.Clone(vmi.Status.Conditions), func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
		return c.Type == dualattach.ConditionInstanceTimedOut
	})
	text, err := json.Marshal(vmi)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func compareVersions(t *testing.T, a, b string) int {
	t.Helper()
	order, err := resourceversion.CompareResourceVersion(a, b)
	if err != nil {
		t.Fatal(err)
	}
	return order
}

// checkSilence: the operator wrote nothing at all about the scene, though it has
// looked at it: it knows the array's views that came since.
func (sc *scene) checkSilence() {
	sc.t.Helper()
	sc.SettledMetric(sc.ctx, sc.t, report.MetricActive, nil)
	events, err := sc.AuditSince(sc.mark, audit.Writes(), audit.User(stack.OperatorUser), func(e audit.Event) bool { return e.Object.Namespace == sc.ns })
	sc.must(err)
	if len(events) > 0 {
		sc.t.Errorf("what was to be left alone was written about:\n%s", events)
	}
}
