package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

func TestAMigrationThatSucceeds(t *testing.T) {
	ctx, s, ns := setUp(t)
	vm := s.MustStartVM(ctx, t, ns, "vm")
	before := s.MustScrape(ctx, t)
	vmim := migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	waitCondition(ctx, t, s, vmim, dualattach.ConditionDualAttached, "True", dualattach.ReasonLiveMigration)
	s.WantMetric(ctx, t, report.MetricActive, nil, before.Value(report.MetricActive, nil)+1)
	s.WantMetric(ctx, t, report.MetricDualAttached, map[string]string{"namespace": ns, "persistentvolumeclaim": "vm"}, 1)

	release(ctx, t, s, vm, vmim)
	waitCondition(ctx, t, s, vmim, dualattach.ConditionMigrated, "True", "Completed")
	wantConditions(t, vmim, "False/SourceReleased", "True/Completed", "False/WithinDeadline")
	wantEvents(ctx, t, s, ns, "vm", "MigrationStarted", "MigrationCompleted")
	s.WantMetric(ctx, t, report.MetricMigrations, map[string]string{"result": "success"}, before.Value(report.MetricMigrations, map[string]string{"result": "success"})+1)
	s.WantMetric(ctx, t, report.MetricActive, nil, before.Value(report.MetricActive, nil))
}

// TestAMigrationThatHangs: at the deadline (within ten seconds; one, with -bars) and with
// nothing else going on, the hang is on the VMIM, the claim, the VMI and in the metrics; the
// VMI's condition survives KubeVirt's own writes; and all is resolved when the migration ends after all.
func TestAMigrationThatHangs(t *testing.T) {
	ctx, s, ns := setUp(t)
	const limit = 15 * time.Second
	mark, err := s.MarkAudit()
	if err != nil {
		t.Fatal(err)
	}
	vm := s.MustStartVM(ctx, t, ns, "vm", limitedTo(limit))
	before := s.MustScrape(ctx, t)
	vmim := migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	waitCondition(ctx, t, s, vmim, dualattach.ConditionDualAttached, "True", dualattach.ReasonLiveMigration)
	labels := map[string]string{"namespace": ns, "vmi": "vm", "migration": vmim.Name, "stage": "DualAttached"}
	// The array's publication time becomes known with its next view.
	deadline := s.SettledMetric(ctx, t, report.MetricDeadline, labels)

	waitCondition(ctx, t, s, vmim, dualattach.ConditionTimedOut, "True", "DualAttached")
	s.WantMetric(ctx, t, report.MetricTimeouts, map[string]string{"stage": "DualAttached"}, before.Value(report.MetricTimeouts, map[string]string{"stage": "DualAttached"})+1)
	late := float64(time.Now().UnixMilli())/1000 - deadline
	most := 10.0 // a machine that stalls is no failure
	if *bars {
		most = 1
	}
	if late < 0 || late > most {
		t.Errorf("escalated %.3f s after the deadline, want 0 to %g s", late, most)
	}
	t.Logf("condition, events and counter were there %.3f s after the deadline", late)
	wantEvents(ctx, t, s, ns, "vm", "MigrationStarted", "MigrationDelayed", "MigrationFailed")
	wantEvents(ctx, t, s, ns, "vm", "StorageMigrationTimedOut")
	message := conditionOf(vmim, dualattach.ConditionTimedOut).Message
	for _, part := range []string{"node-", dualattach.TimeoutAnnotation, "delete vmim " + vmim.Name} {
		if !strings.Contains(message, part) {
			t.Errorf("the condition's message does not name %q: %s", part, message)
		}
	}

	version := waitInstance(ctx, t, s, vm, "True/DualAttached", message)

	release(ctx, t, s, vm, vmim)
	waitCondition(ctx, t, s, vmim, dualattach.ConditionMigrated, "True", "Completed")
	wantConditions(t, vmim, "False/SourceReleased", "True/Completed", "False/Resolved")
	waitInstance(ctx, t, s, vm, "False/Resolved", "")
	s.WantMetric(ctx, t, report.MetricInstanceWrites, stored, before.Value(report.MetricInstanceWrites, stored)+2)
	wantKeptByKubeVirt(t, s, mark, vm, version)
	s.WantMetric(ctx, t, report.MetricMigrations, map[string]string{"result": "timeout"}, before.Value(report.MetricMigrations, map[string]string{"result": "timeout"})+1)
	s.WantMetric(ctx, t, report.MetricMigrations, map[string]string{"result": "success"}, before.Value(report.MetricMigrations, map[string]string{"result": "success"}))
}

// limitedTo sets the administrator's limit on a VM's migrations.
func limitedTo(limit time.Duration) func(lab.VMIBuilder) lab.VMIBuilder {
	return func(b lab.VMIBuilder) lab.VMIBuilder {
		return b.WithAnnotation(dualattach.TimeoutAnnotation, limit.String())
	}
}

func migrate(ctx context.Context, t *testing.T, s *stack.Stack, vm *lab.VMI, course handler.Course) *lab.VMIM {
	t.Helper()
	vmim, err := s.Migrate(ctx, vm, lab.Following(course))
	if err != nil {
		t.Fatal(err)
	}
	return vmim
}

// release lets a migration go on that is held before Switch, once it is.
func release(ctx context.Context, t *testing.T, s *stack.Stack, vm *lab.VMI, vmim *lab.VMIM) {
	t.Helper()
	if err := s.WaitStep(ctx, vmim, handler.Switch); err != nil {
		t.Fatal(err)
	}
	s.Release(vm)
}

func conditionOf(m *lab.VMIM, of kubevirtv1.VirtualMachineInstanceMigrationConditionType) kubevirtv1.VirtualMachineInstanceMigrationCondition {
	for _, c := range m.Status.Conditions {
		if c.Type == of {
			return c
		}
	}
	return kubevirtv1.VirtualMachineInstanceMigrationCondition{}
}

// waitCondition waits for a condition of ours and leaves the VMIM as read.
func waitCondition(ctx context.Context, t *testing.T, s *stack.Stack, m *lab.VMIM, of kubevirtv1.VirtualMachineInstanceMigrationConditionType, status corev1.ConditionStatus, reason string) {
	t.Helper()
	err := s.WaitFor(ctx, string(of)+"="+string(status)+"/"+reason+" on VMIM "+m.Name, func(ctx context.Context) (bool, error) {
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(m), m); err != nil {
			return false, err
		}
		c := conditionOf(m, of)
		return c.Status == status && c.Reason == reason, nil
	})
	if err != nil {
		t.Fatalf("%v; its conditions are %v", err, summary(m))
	}
}

func summary(m *lab.VMIM) []string {
	var all []string
	for _, of := range []kubevirtv1.VirtualMachineInstanceMigrationConditionType{dualattach.ConditionDualAttached, dualattach.ConditionMigrated, dualattach.ConditionTimedOut} {
		c := conditionOf(m, of)
		all = append(all, string(c.Status)+"/"+c.Reason)
	}
	return all
}

func wantConditions(t *testing.T, m *lab.VMIM, want ...string) {
	t.Helper()
	if got := summary(m); !slices.Equal(got, want) {
		t.Errorf("conditions of VMIM %s (dual attached, migrated, timed out): %v, want %v", m.Name, got, want)
	}
}

// wantEvents waits for events about a claim or a VMI of a name.
func wantEvents(ctx context.Context, t *testing.T, s *stack.Stack, namespace, about string, reasons ...string) {
	t.Helper()
	for _, reason := range reasons {
		err := s.WaitFor(ctx, "event "+reason+" on "+about, func(ctx context.Context) (bool, error) {
			var events corev1.EventList
			err := s.Client.List(ctx, &events, client.InNamespace(namespace))
			return slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
				return e.InvolvedObject.Name == about && e.Reason == reason && e.Source.Component == "rds-csi-operator"
			}), err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
