package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

var arrayLabel = map[string]string{"array": stack.ArrayName}

// TestTheAPIServerIsAway: the operator is cut off from the API server, first for a
// moment, then for longer than its Lease. It ends rather than act on what it
// remembers, and when it is let in again, all that happened meanwhile is reported
// as promised.
func TestTheAPIServerIsAway(t *testing.T) {
	ctx, s, ns := setUp(t)
	g, err := s.NewGate()
	if err != nil {
		t.Fatal(err)
	}
	s.ExchangeOperators(ctx, t, stack.OperatorOptions{Gate: g, Restart: true})
	operator := s.Operators[0]
	waitLeader(ctx, t, s, nil)
	dual, late, over := threeVMs(ctx, t, s, ns, 10*time.Second)
	shut := func() {
		t.Helper()
		if err := g.Shut(); err != nil {
			t.Fatal(err)
		}
	}
	open := func() time.Time {
		t.Helper()
		if err := g.Open(); err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}

	// For a moment: while the targets are being attached.
	shut()
	vmims := migrateAll(ctx, t, s, dual, late, over)
	if err := s.WaitStep(ctx, vmims["late"], handler.Switch); err != nil {
		t.Fatal(err)
	}
	opened := open()
	waitAllDual(ctx, t, s, vmims)
	t.Logf("back after a moment: all said %s later", time.Since(opened).Round(time.Millisecond))
	if n := operator.Starts(); n != 1 {
		t.Errorf("the operator ended for a moment without the API server: it was started %d times", n)
	}

	// For longer: one migration ends, one passes its deadline.
	shut()
	release(ctx, t, s, over, vmims["over"])
	if err := s.WaitMigration(ctx, vmims["over"], kubevirtv1.MigrationSucceeded); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitFor(ctx, "the operator to end, having lost its Lease", func(context.Context) (bool, error) { return operator.Starts() > 1, nil }); err != nil {
		t.Fatal(err)
	}
	opened = open()
	waitCondition(ctx, t, s, vmims["over"], dualattach.ConditionMigrated, "True", "Completed")
	waitCondition(ctx, t, s, vmims["late"], dualattach.ConditionTimedOut, "True", "DualAttached")
	t.Logf("back after its Lease had expired: all said %s later", time.Since(opened).Round(time.Millisecond))
	s.WantMetric(ctx, t, report.MetricActive, nil, 2)
	for _, name := range []string{"dual", "late"} {
		s.WantMetric(ctx, t, report.MetricDualAttached, map[string]string{"namespace": ns, "persistentvolumeclaim": name}, 1)
	}
	release(ctx, t, s, dual, vmims["dual"])
	release(ctx, t, s, late, vmims["late"])
	wantAllOver(ctx, t, s, ns, vmims)
}

// threeVMs are those of the tests of outages: "late" is to pass the limit of its
// migrations, the other two are not.
func threeVMs(ctx context.Context, t *testing.T, s *stack.Stack, ns string, limit time.Duration) (dual, late, over *lab.VMI) {
	t.Helper()
	return s.MustStartVM(ctx, t, ns, "dual"), s.MustStartVM(ctx, t, ns, "late", limitedTo(limit)), s.MustStartVM(ctx, t, ns, "over")
}

// migrateAll begins migrations that are held before the VMs move, by their VMs' names.
func migrateAll(ctx context.Context, t *testing.T, s *stack.Stack, vms ...*lab.VMI) map[string]*lab.VMIM {
	t.Helper()
	vmims := map[string]*lab.VMIM{}
	for _, vm := range vms {
		vmims[vm.Name] = migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	}
	return vmims
}

func waitAllDual(ctx context.Context, t *testing.T, s *stack.Stack, vmims map[string]*lab.VMIM) {
	t.Helper()
	for _, vmim := range vmims {
		waitCondition(ctx, t, s, vmim, dualattach.ConditionDualAttached, "True", dualattach.ReasonLiveMigration)
	}
}

// wantAllOver: of three migrations "late" had passed its deadline, "dual" and
// "over" had not, and each is reported once.
func wantAllOver(ctx context.Context, t *testing.T, s *stack.Stack, ns string, vmims map[string]*lab.VMIM) {
	t.Helper()
	for name, vmim := range vmims {
		waitCondition(ctx, t, s, vmim, dualattach.ConditionMigrated, "True", "Completed")
		if name == "late" {
			wantConditions(t, vmim, "False/SourceReleased", "True/Completed", "False/Resolved")
			wantEventsOnce(ctx, t, s, ns, name, "MigrationStarted", "MigrationFailed", "StorageMigrationTimedOut", "MigrationCompleted")
			continue
		}
		wantConditions(t, vmim, "False/SourceReleased", "True/Completed", "False/WithinDeadline")
		wantEventsOnce(ctx, t, s, ns, name, "MigrationStarted", "MigrationCompleted")
	}
	s.WantMetric(ctx, t, report.MetricActive, nil, 0)
}

// TestTheArrayIsAway: the array is cut off, or hangs, in the middle of migrations.
// A stale view is never "detached": what was dual attached stays so, for a fresh
// operator that never saw the array, too; deadlines pass as ever; and what could not
// be released is reported when it is.
func TestTheArrayIsAway(t *testing.T) {
	for name, outage := range map[string]struct{ begin, end func(*stack.Stack) error }{
		"cut off": {func(s *stack.Stack) error { return s.Array.Down() }, func(s *stack.Stack) error { return s.Array.Up() }},
		"hanging": {
			func(s *stack.Stack) error {
				_, err := s.Array.Inject(routeros.Fault{Kind: routeros.HangBefore, Times: -1})
				return err
			},
			func(s *stack.Stack) error { s.Array.ClearFaults(); s.Array.CutAll(); return nil },
		},
	} {
		t.Run(name, func(t *testing.T) { testArrayOutage(t, outage.begin, outage.end) })
	}
}

func testArrayOutage(t *testing.T, begin, end func(*stack.Stack) error) {
	ctx, s, ns := setUp(t)
	s.ExchangeOperators(ctx, t, stack.OperatorOptions{Args: []string{"--leader-election=false"}})
	dual, late, over := threeVMs(ctx, t, s, ns, 15*time.Second)
	vmims := migrateAll(ctx, t, s, dual, late, over)
	waitAllDual(ctx, t, s, vmims)
	s.SettledMetric(ctx, t, report.MetricActive, nil)
	away := time.Now()
	if err := begin(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = end(s) })
	s.WantMetric(ctx, t, report.MetricArrayUp, arrayLabel, 0)
	release(ctx, t, s, over, vmims["over"])
	waitCondition(ctx, t, s, vmims["over"], dualattach.ConditionMigrated, "Unknown", "ReleasingSource")
	waitStale(ctx, t, s, away)

	stillHeld := func() {
		t.Helper()
		s.WantMetric(ctx, t, report.MetricActive, nil, 3)
		for name, vmim := range vmims {
			s.WantMetric(ctx, t, report.MetricDualAttached, map[string]string{"namespace": ns, "persistentvolumeclaim": name}, 1)
			if err := s.Client.Get(ctx, client.ObjectKeyFromObject(vmim), vmim); err != nil {
				t.Fatal(err)
			}
			if c := conditionOf(vmim, dualattach.ConditionDualAttached); c.Status != "True" {
				t.Errorf("with the array away %s says %s/%s: %s", name, c.Status, c.Reason, c.Message)
			}
		}
	}
	stillHeld()
	s.Operators[0].Kill()
	restart(ctx, t, s)
	stillHeld()
	waitCondition(ctx, t, s, vmims["late"], dualattach.ConditionTimedOut, "True", "DualAttached")
	stillHeld()

	if err := end(s); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	waitCondition(ctx, t, s, vmims["over"], dualattach.ConditionMigrated, "True", "Completed")
	t.Logf("the array was away for %s; the release was reported %s after it came back", back.Sub(away).Round(time.Second), time.Since(back).Round(100*time.Millisecond))
	s.WantMetric(ctx, t, report.MetricArrayUp, arrayLabel, 1)
	release(ctx, t, s, dual, vmims["dual"])
	release(ctx, t, s, late, vmims["late"])
	wantAllOver(ctx, t, s, ns, vmims)
}

// waitStale waits until the operator's last view of the array is older than what
// it takes for the truth: three intervals, which are of a second here.
func waitStale(ctx context.Context, t *testing.T, s *stack.Stack, away time.Time) {
	t.Helper()
	err := s.WaitFor(ctx, "the last view to be stale", func(ctx context.Context) (bool, error) {
		series, err := s.Scrape(ctx, s.Operators[0])
		observed := series.Value(report.MetricArrayObserved, arrayLabel)
		return observed > 0 && float64(time.Now().Unix())-observed > 4, err
	})
	if err != nil {
		t.Fatalf("%v (away since %s)", err, away)
	}
}

// TestKubeVirtsAPIIsAway: without virt-api every write on a VMIM fails. What is due
// is said where it can be, why the rest is not is in the log, it is tried again
// without hammering, and it is there soon after virt-api is back.
func TestKubeVirtsAPIIsAway(t *testing.T) {
	ctx, s, ns := setUp(t)
	vm := s.MustStartVM(ctx, t, ns, "late", limitedTo(15*time.Second))
	before := s.MustScrape(ctx, t)
	vmim := migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	waitCondition(ctx, t, s, vmim, dualattach.ConditionDualAttached, "True", dualattach.ReasonLiveMigration)
	mark, err := s.MarkAudit()
	if err != nil {
		t.Fatal(err)
	}
	virtAPI := s.Process("virt-api")
	away := time.Now()
	virtAPI.Kill()
	t.Cleanup(func() {
		if !virtAPI.Running() {
			_ = virtAPI.Run()
		}
	})
	wantEvents(ctx, t, s, ns, "late", "MigrationFailed", "StorageMigrationTimedOut")
	refusals := func() audit.Events {
		t.Helper()
		refused, err := s.AuditSince(mark, audit.User(stack.OperatorUser), audit.Writes(), audit.Failures(), audit.Named(ns, vmim.Name))
		if err != nil {
			t.Fatal(err)
		}
		return refused
	}
	err = s.WaitFor(ctx, "several attempts to write the condition", func(context.Context) (bool, error) { return len(refusals()) >= 8, nil })
	if err != nil {
		t.Fatal(err)
	}
	if log, err := os.ReadFile(s.Operators[0].LogFile()); err != nil || !strings.Contains(string(log), "failed calling webhook") {
		t.Errorf("the log does not say that KubeVirt's webhook fails: %v", err)
	}
	if after := s.MustScrape(ctx, t); after.Value(report.MetricTimeouts, map[string]string{"stage": "DualAttached"}) != before.Value(report.MetricTimeouts, map[string]string{"stage": "DualAttached"}) {
		t.Error("a timeout is counted that is not on the VMIM")
	}
	if err := virtAPI.Run(); err != nil {
		t.Fatal(err)
	}
	err = s.WaitFor(ctx, "virt-api to answer", func(ctx context.Context) (bool, error) {
		return s.Client.Create(ctx, lab.NewVMI(ns, "probe").Build(), client.DryRunAll) == nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	waitCondition(ctx, t, s, vmim, dualattach.ConditionTimedOut, "True", "DualAttached")
	t.Logf("virt-api was away for %s: %d attempts failed; the condition was there %s after it answered again",
		back.Sub(away).Round(time.Second), len(refusals()), time.Since(back).Round(100*time.Millisecond))
	s.WantMetric(ctx, t, report.MetricTimeouts, map[string]string{"stage": "DualAttached"}, before.Value(report.MetricTimeouts, map[string]string{"stage": "DualAttached"})+1)
	release(ctx, t, s, vm, vmim)
	wantAllOver(ctx, t, s, ns, map[string]*lab.VMIM{"late": vmim})
}

// TestKubeVirtComesLater: on a cluster without KubeVirt the plugin works and the
// operator waits and says so; when KubeVirt is installed it begins to watch,
// without a restart.
func TestKubeVirtComesLater(t *testing.T) {
	t.Parallel() // with those that have a stack of their own
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s := stack.MustStart(ctx, t, stack.Options{Race: *raceProduct, Lab: lab.Options{WithoutKubeVirt: true, Keep: *keep, Nodes: nodeNames[:2]}})
	const ns = "later"
	if err := s.CreateNamespace(ctx, ns); err != nil {
		t.Fatal(err)
	}
	waitLog(ctx, t, s, "no KubeVirt yet")
	s.WantMetric(ctx, t, report.MetricArrayUp, arrayLabel, 1)
	if n := len(s.MustScrape(ctx, t)[report.MetricActive].GetMetric()); n != 0 {
		t.Errorf("without KubeVirt: %d series of %s", n, report.MetricActive)
	}
	if _, err := s.CreateRWXClaim(ctx, ns, "shared", nil); err != nil {
		t.Fatal(err)
	}
	for _, node := range nodeNames[:2] {
		if err := s.Client.Create(ctx, lab.NewPod(ns, "on-"+node, node, "shared")); err != nil {
			t.Fatal(err)
		}
	}
	waitRefused(ctx, t, s, ns, "shared", "serves no VirtualMachineInstanceMigration")

	pid, installed := s.Operators[0].PID(), time.Now()
	if err := s.StartKubeVirt(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.GrantVMICondition(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("KubeVirt installed in %s", time.Since(installed).Round(time.Second))
	waitLog(ctx, t, s, "KubeVirt is served")
	vm := s.MustStartVM(ctx, t, ns, "vm")
	vmim := migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	waitCondition(ctx, t, s, vmim, dualattach.ConditionDualAttached, "True", dualattach.ReasonLiveMigration)
	s.WantMetric(ctx, t, report.MetricActive, nil, 1)
	release(ctx, t, s, vm, vmim)
	waitCondition(ctx, t, s, vmim, dualattach.ConditionMigrated, "True", "Completed")
	wantEventsOnce(ctx, t, s, ns, "vm", "MigrationStarted", "MigrationCompleted")
	if s.Operators[0].PID() != pid {
		t.Error("the operator was restarted")
	}
}

func waitLog(ctx context.Context, t *testing.T, s *stack.Stack, text string) {
	t.Helper()
	err := s.WaitFor(ctx, fmt.Sprintf("the operator's log to say %q", text), func(context.Context) (bool, error) {
		log, err := os.ReadFile(s.Operators[0].LogFile())
		return strings.Contains(string(log), text), err
	})
	if err != nil {
		t.Fatal(err)
	}
}
