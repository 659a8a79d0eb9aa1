package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

const (
	latencyVMs    = 20 // migrating at once
	latencyRounds = 10 // of each VM
	maxP95        = 250 * time.Millisecond
	maxLatency    = time.Second
)

// TestLatencyAndWrites drives 200 migrations, 20 at a time. From the target's
// VolumeAttachment being attached to storageDualAttached=True on the VMIM, as a
// client that watches both sees it: p95 under 250 ms, at most 1 s with -bars. And every write
// on a VMIM is worth it: each says a stage or a deadline that the one before did not.
func TestLatencyAndWrites(t *testing.T) {
	ctx, s, ns := setUp(t)
	watchCtx, stop := context.WithCancel(ctx)
	defer stop()
	seen, err := s.Watch(watchCtx, ns)
	if err != nil {
		t.Fatal(err)
	}
	mark, err := s.MarkAudit()
	if err != nil {
		t.Fatal(err)
	}

	all, groupCtx := errgroup.WithContext(ctx)
	for i := range latencyVMs {
		all.Go(func() error {
			vm, err := s.StartVM(groupCtx, ns, fmt.Sprintf("vm-%02d", i))
			if err != nil {
				return err
			}
			return s.MigrateInTurn(groupCtx, seen, vm, latencyRounds, handler.Succeed().Taking(handler.Switch, time.Second))
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	latencies := seen.Latencies()
	if len(latencies) < latencyVMs*latencyRounds {
		t.Fatalf("measured %d migrations, want %d", len(latencies), latencyVMs*latencyRounds)
	}
	p50, p95, worst := stack.Percentiles(latencies)
	t.Logf("attached → storageDualAttached=True over %d migrations: p50 %s, p95 %s, max %s", len(latencies), p50, p95, worst)
	// What else the machine does shows in these figures, so they are judged on demand.
	if *bars && (p95 > maxP95 || worst > maxLatency) {
		t.Errorf("p95 %s (bar %s), max %s (bar %s)", p95, maxP95, worst, maxLatency)
		for _, m := range latencies[len(latencies)*95/100:] {
			t.Logf("%s: %s from %s", m.Migration, m.Took, m.At.Format(time.TimeOnly+".000"))
		}
	}
	checkWrites(t, s, mark, ns)
	checkQuiet(ctx, t, s)
}

// checkWrites looks at every write of ours on a VMIM, in order.
func checkWrites(t *testing.T, s *stack.Stack, mark lab.AuditMark, ns string) {
	t.Helper()
	events, err := s.AuditSince(mark, audit.User(stack.OperatorUser))
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]string{}
	writes, refused, migrations := 0, 0, map[string]bool{}
	for _, e := range events {
		if !e.Write() || e.Resource() != "virtualmachineinstancemigrations/status" || e.Object.Namespace != ns {
			continue
		}
		if e.Failed() {
			refused++
			continue
		}
		var m kubevirtv1.VirtualMachineInstanceMigration
		if err := json.Unmarshal(e.ResponseObject.Raw, &m); err != nil {
			t.Fatalf("the answer to %s: %v", e, err)
		}
		said := conditionOf(&m, dualattach.ConditionMigrated).Reason + " " + summary(&m)[2]
		if last[string(m.UID)] == said {
			t.Errorf("VMIM %s was written twice for %s", m.Name, said)
		}
		last[string(m.UID)], migrations[string(m.UID)] = said, true
		writes++
	}
	t.Logf("%d writes on %d VMIMs, %.2f each; %d refused because the VMIM had changed meanwhile", writes, len(migrations), float64(writes)/float64(len(migrations)), refused)
	if len(migrations) < latencyVMs*latencyRounds {
		t.Errorf("wrote on %d VMIMs, want %d", len(migrations), latencyVMs*latencyRounds)
	}
}

// checkQuiet: while nothing changes nothing is written, its Lease aside, and
// nothing is listed again. Three more looks at the array pass meanwhile.
func checkQuiet(ctx context.Context, t *testing.T, s *stack.Stack) {
	t.Helper()
	mark, err := s.MarkAudit()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.SettledMetric(ctx, t, "rds_csi_migration_active_migrations", nil)
	}
	events, err := s.AuditSince(mark, audit.User(stack.OperatorUser), func(e audit.Event) bool {
		return e.Write() && e.Object.Resource != "leases" || e.List()
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) > 0 {
		t.Errorf("with nothing going on the operator did:\n%s", events)
	}
}
