package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// TestTheStandbyTakesOver: of two replicas one leads and reports. Whether the
// leader is killed, frozen past its Lease, or asked to end, the other takes over
// in the middle of migrations: what the leader said stays said, what fell due
// meanwhile is said once, and only the leader shows the domain's metrics.
func TestTheStandbyTakesOver(t *testing.T) {
	ctx, s, ns := setUp(t)
	s.ExchangeOperators(ctx, t, stack.OperatorOptions{Restart: true}, stack.OperatorOptions{Restart: true})
	leader := waitLeader(ctx, t, s, nil)
	dual, late, over := threeVMs(ctx, t, s, ns, 10*time.Second)
	vmims := migrateAll(ctx, t, s, dual, late, over)
	waitAllDual(ctx, t, s, vmims)

	// Killed: nobody leads until its Lease expires. One migration passes its deadline
	// meanwhile, another one ends.
	killed := time.Now()
	leader.Kill()
	release(ctx, t, s, over, vmims["over"])
	leader = waitLeader(ctx, t, s, leader)
	t.Logf("killed: the standby led after %s", time.Since(killed).Round(100*time.Millisecond))
	waitCondition(ctx, t, s, vmims["over"], dualattach.ConditionMigrated, "True", "Completed")
	waitCondition(ctx, t, s, vmims["late"], dualattach.ConditionTimedOut, "True", "DualAttached")
	wantLeads(ctx, t, s, leader, 2)
	restart(ctx, t, s)

	// Frozen: when it wakes up it believes to lead still, until it looks.
	frozen := time.Now()
	asleep := leader
	asleep.Freeze()
	leader = waitLeader(ctx, t, s, asleep)
	t.Logf("frozen: the standby led after %s", time.Since(frozen).Round(100*time.Millisecond))
	release(ctx, t, s, late, vmims["late"])
	asleep.Thaw()
	waitCondition(ctx, t, s, vmims["late"], dualattach.ConditionTimedOut, "False", dualattach.ReasonResolved)
	if err := s.WaitFor(ctx, "the sleeper to end, having lost its Lease", func(context.Context) (bool, error) { return asleep.Starts() > 1, nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitOperator(ctx, asleep); err != nil {
		t.Fatal(err)
	}
	wantLeads(ctx, t, s, leader, 1)

	// Asked to end: the Lease is handed over.
	stopped := time.Now()
	former := leader
	if err := former.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	leader = waitLeader(ctx, t, s, former)
	t.Logf("asked to end: the standby led after %s", time.Since(stopped).Round(100*time.Millisecond))
	release(ctx, t, s, dual, vmims["dual"])
	waitCondition(ctx, t, s, vmims["dual"], dualattach.ConditionMigrated, "True", "Completed")
	wantLeads(ctx, t, s, leader, 0)

	wantConditions(t, vmims["dual"], "False/SourceReleased", "True/Completed", "False/WithinDeadline")
	wantConditions(t, vmims["over"], "False/SourceReleased", "True/Completed", "False/WithinDeadline")
	waitCondition(ctx, t, s, vmims["late"], dualattach.ConditionMigrated, "True", "Completed")
	wantConditions(t, vmims["late"], "False/SourceReleased", "True/Completed", "False/Resolved")
	wantEventsOnce(ctx, t, s, ns, "dual", "MigrationStarted", "MigrationCompleted")
	wantEventsOnce(ctx, t, s, ns, "over", "MigrationStarted", "MigrationCompleted")
	wantEventsOnce(ctx, t, s, ns, "late", "MigrationStarted", "MigrationFailed", "StorageMigrationTimedOut", "MigrationCompleted")
}

// waitLeader waits until an operator other than the last leader leads: it has the
// Lease, and shows the domain's metrics.
func waitLeader(ctx context.Context, t *testing.T, s *stack.Stack, last *stack.Operator) *stack.Operator {
	t.Helper()
	var leader *stack.Operator
	err := s.WaitFor(ctx, "another operator to lead", func(ctx context.Context) (bool, error) {
		for _, o := range s.Operators {
			if o == last || !o.Running() {
				continue
			}
			series, err := s.Scrape(ctx, o)
			if err != nil {
				return false, err
			}
			if _, leads := series.Find(report.MetricActive, nil); leads {
				leader = o
			}
		}
		return leader != nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return leader
}

// wantLeads checks that this operator alone shows the domain's series, with as many
// migrations under way.
func wantLeads(ctx context.Context, t *testing.T, s *stack.Stack, leader *stack.Operator, active int) {
	t.Helper()
	err := s.WaitFor(ctx, fmt.Sprintf("the leader to show %d migrations", active), func(ctx context.Context) (bool, error) {
		series, err := s.Scrape(ctx, leader)
		return series.Value(report.MetricActive, nil) == float64(active), err
	})
	if err != nil {
		t.Error(err)
	}
	for _, o := range s.Operators {
		if o == leader || !o.Running() {
			continue
		}
		series, err := s.Scrape(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{report.MetricActive, report.MetricMigrations, report.MetricDeadline, report.MetricDualAttached, report.MetricTimeouts} {
			if n := len(series[name].GetMetric()); n > 0 {
				t.Errorf("%s, which does not lead, shows %d series of %s", o.Name(), n, name)
			}
		}
		if series.Value(report.MetricArrayUp, map[string]string{"array": stack.ArrayName}) != 1 {
			t.Errorf("%s does not show that the array answers", o.Name())
		}
	}
}

// restart runs the operators again that were killed.
func restart(ctx context.Context, t *testing.T, s *stack.Stack) {
	t.Helper()
	for _, o := range s.Operators {
		if o.Running() {
			continue
		}
		if err := o.Run(); err != nil {
			t.Fatal(err)
		}
		if err := s.WaitOperator(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
}

// wantEventsOnce: exactly these events of ours are about a claim or a VMI of a
// name, each made once.
func wantEventsOnce(ctx context.Context, t *testing.T, s *stack.Stack, namespace, about string, reasons ...string) {
	t.Helper()
	wantEvents(ctx, t, s, namespace, about, reasons...)
	made := eventsAbout(ctx, t, s, namespace, about)
	for _, reason := range reasons {
		if made[reason] != 1 {
			t.Errorf("%d events %s about %s, want 1", made[reason], reason, about)
		}
		delete(made, reason)
	}
	delete(made, dualattach.EventDelayed) // due only if somebody leads at 80 %
	if len(made) > 0 {
		t.Errorf("also about %s: %v", about, made)
	}
}

// eventsAbout counts our events about a claim or a VMI of a name, by reason.
func eventsAbout(ctx context.Context, t *testing.T, s *stack.Stack, namespace, about string) map[string]int {
	t.Helper()
	var events corev1.EventList
	if err := s.Client.List(ctx, &events, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	made := map[string]int{}
	for _, e := range events.Items {
		if e.InvolvedObject.Name == about && e.Source.Component == "rds-csi-operator" {
			made[e.Reason] += int(e.Count)
		}
	}
	return made
}
