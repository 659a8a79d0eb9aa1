package scale

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

var (
	vms    = flag.Int("vms", 0, "VMs in the cluster; 0: nothing is measured")
	atOnce = flag.Int("at-once", 50, "VMs that migrate at the same time")
	rounds = flag.Int("rounds", 4, "migrations of each of these, one after the other")
	steady = flag.Duration("steady", 5*time.Minute, "how long nothing happens, at the end")
)

const (
	maxP95   = time.Second
	maxRSS   = 150_000_000
	maxShare = 0.2 // of one core

	namespace = "scale"
	creators  = 6 // VMs being made at a time; more would only poll the API server
)

// TestScale: fifty migrations at once among a thousand VMs, then nothing at all. The
// operator is built as users get it and polls the array as often as by default.
func TestScale(t *testing.T) {
	if *vms == 0 {
		t.Skip("it runs by `make test-scale`, with a thousand VMs unless told otherwise")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute+*steady)
	defer cancel()
	s := start(ctx, t)
	began := time.Now()
	makeVMs(ctx, t, s)
	t.Logf("%d VMs run after %s", *vms, time.Since(began).Round(time.Second))

	mark, err := s.MarkAudit()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("Migrations", func(t *testing.T) { migrations(ctx, t, s) })
	t.Run("Steady", func(t *testing.T) { nothing(ctx, t, s) })
	lists, err := s.AuditSince(mark, audit.User(stack.OperatorUser), audit.Lists())
	if err != nil {
		t.Fatal(err)
	}
	if len(lists) > 0 {
		t.Errorf("listed after start-up:\n%s", lists)
	}
}

func start(ctx context.Context, t *testing.T) *stack.Stack {
	t.Helper()
	var nodes []string
	for i := range 10 {
		nodes = append(nodes, fmt.Sprintf("node-%d", i))
	}
	s := stack.MustStart(ctx, t, stack.Options{
		Lab: lab.Options{
			Nodes:    nodes,
			KubeVirt: lab.KubeVirtOptions{ParallelMigrations: 200, ParallelOutbound: 200},
			Progress: t.Logf,
		},
		OperatorArgs: []string{"--poll-interval=10s", "--log-level=0"},
	})
	if err := s.CreateNamespace(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	return s
}

func nameOf(i int) string { return fmt.Sprintf("vm-%04d", i) }

// makeVMs makes all VMs and waits until they run. It watches them: polling a
// thousand would take longer than they need.
func makeVMs(ctx context.Context, t *testing.T, s *stack.Stack) {
	t.Helper()
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return awaitRunning(ctx, s, *vms) })
	todo := make(chan int)
	all.Go(func() error {
		defer close(todo)
		for i := range *vms {
			select {
			case todo <- i:
			case <-ctx.Done():
				return nil
			}
		}
		return nil
	})
	for range creators {
		all.Go(func() error {
			for i := range todo {
				if _, err := s.CreateRWXClaim(ctx, namespace, nameOf(i), nil); err != nil {
					return err
				}
				if _, err := s.CreateVMI(ctx, lab.NewVMI(namespace, nameOf(i)).WithDisk(nameOf(i))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

func awaitRunning(ctx context.Context, s *stack.Stack, want int) error {
	events, err := s.WatchFromNow(ctx, &kubevirtv1.VirtualMachineInstanceList{}, namespace)
	if err != nil {
		return err
	}
	defer events.Stop()
	running := map[string]bool{}
	for len(running) < want {
		select {
		case e, ok := <-events.ResultChan():
			if !ok {
				return errors.New("the watch of the VMIs ended")
			}
			if vmi, ok := e.Object.(*lab.VMI); ok && e.Type != apiwatch.Bookmark && ready(vmi) {
				running[vmi.Name] = true
			}
		case <-ctx.Done():
			return fmt.Errorf("%d of %d VMs run: %w", len(running), want, context.Cause(ctx))
		case <-s.Context().Done():
			return context.Cause(s.Context())
		}
	}
	return nil
}

func ready(vmi *lab.VMI) bool {
	for _, c := range vmi.Status.Conditions {
		if c.Type == kubevirtv1.VirtualMachineInstanceReady {
			return vmi.IsRunning() && c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// migrations measures while many VMs migrate at once.
func migrations(ctx context.Context, t *testing.T, s *stack.Stack) {
	watchCtx, stop := context.WithCancel(ctx)
	defer stop()
	seen, err := s.Watch(watchCtx, namespace)
	if err != nil {
		t.Fatal(err)
	}
	before := usageNow(t, s)
	all, groupCtx := errgroup.WithContext(ctx)
	for i := range *atOnce {
		all.Go(func() error {
			vm := lab.NewVMI(namespace, nameOf(i**vms / *atOnce)).Build()
			return s.MigrateInTurn(groupCtx, seen, vm, *rounds, handler.Succeed().Taking(handler.Switch, 2*time.Second))
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	after := usageNow(t, s)
	latencies := seen.Latencies()
	if len(latencies) < *atOnce**rounds {
		t.Fatalf("measured %d migrations, want %d", len(latencies), *atOnce**rounds)
	}
	p50, p95, most := stack.Percentiles(latencies)
	took := after.at.Sub(before.at)
	t.Logf("%d migrations, %d at once among %d VMs, in %s: attached → storageDualAttached=True p50 %s, p95 %s, max %s",
		len(latencies), *atOnce, *vms, took.Round(time.Second), p50, p95, most)
	t.Logf("the operator meanwhile: %s, %.1f %% of one core", after, 100*after.share(before))
	if p95 > maxP95 {
		t.Errorf("p95 is %s, the bar %s", p95, maxP95)
	}
	if after.peak > maxRSS {
		t.Errorf("the operator took %d MB, the bar is %d MB", after.peak/1e6, int64(maxRSS/1e6))
	}
	if share := after.share(before); share > maxShare {
		t.Errorf("the operator took %.1f %% of a core, the bar is %.0f %%", 100*share, 100*maxShare)
	}
}

// nothing lets time pass and counts what the operator asks of the API server.
func nothing(ctx context.Context, t *testing.T, s *stack.Stack) {
	s.WantMetric(ctx, t, report.MetricActive, nil, 0)
	mark, err := s.MarkAudit()
	if err != nil {
		t.Fatal(err)
	}
	before := usageNow(t, s)
	timer := time.NewTimer(*steady)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	case <-s.Context().Done():
		t.Fatal(context.Cause(s.Context()))
	}
	after := usageNow(t, s)
	events, err := s.AuditSince(mark, audit.User(stack.OperatorUser))
	if err != nil {
		t.Fatal(err)
	}
	leases := events.Where(audit.Resource("leases"))
	writes := events.Where(audit.Writes(), func(e audit.Event) bool { return e.Object.Resource != "leases" })
	lists := events.Where(audit.Lists())
	t.Logf("%s with %d VMs and nothing going on: %d writes, %d lists, %d requests about the Lease, others by verb %v; %s, %.2f %% of one core",
		*steady, *vms, len(writes), len(lists), len(leases), others(events), after, 100*after.share(before))
	if len(leases) == 0 {
		t.Error("not even the Lease was renewed: nothing is proven")
	}
	if len(writes)+len(lists) > 0 {
		t.Errorf("with nothing going on the operator did:\n%s%s", writes, strings.TrimSpace("\n"+lists.String()))
	}
	if after.peak > maxRSS {
		t.Errorf("the operator took %d MB, the bar is %d MB", after.peak/1e6, int64(maxRSS/1e6))
	}
}

func others(events audit.Events) map[string]int {
	return events.Where(func(e audit.Event) bool { return e.Object.Resource != "leases" }).CountBy(func(e audit.Event) string { return e.Verb })
}

func usageNow(t *testing.T, s *stack.Stack) usage {
	t.Helper()
	u, err := usageOf(s.Operators[0].PID())
	if err != nil {
		t.Fatal(err)
	}
	return u
}
