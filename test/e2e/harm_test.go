package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/harm"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

const (
	harmVMs    = 20 // migrating at once
	harmRounds = 10 // of each VM
	// harmLimit is the deadline that all of them pass.
	harmLimit = 2 * time.Second
)

// TestDoesNoHarm drives 200 migrations past their deadline under the real
// virt-controller and virt-api, some of which then succeed, some fail and some are
// cancelled. The condition is written on the VMIs while KubeVirt writes there too.
// Nothing of KubeVirt's may fail or change for it: no guard, no abort, no condition;
// and the operator writes nowhere but in its four places. The audit log is judged
// from the lab's start, so all tests before this one count as well.
func TestDoesNoHarm(t *testing.T) {
	ctx, s, ns := setUp(t)
	watchCtx, stop := context.WithCancel(ctx)
	defer stop()
	seen, err := s.Watch(watchCtx, ns)
	if err != nil {
		t.Fatal(err)
	}
	before := s.MustScrape(ctx, t)
	all, groupCtx := errgroup.WithContext(ctx)
	for i := range harmVMs {
		all.Go(func() error { return outlastDeadlines(groupCtx, s, seen, ns, i) })
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	s.WantMetric(ctx, t, report.MetricActive, nil, 0)
	const total = harmVMs * harmRounds
	s.WantMetric(ctx, t, report.MetricMigrations, map[string]string{"result": "timeout"},
		before.Value(report.MetricMigrations, map[string]string{"result": "timeout"})+total)
	written := s.MustScrape(ctx, t).Value(report.MetricInstanceWrites, stored) - before.Value(report.MetricInstanceWrites, stored)
	// A next migration that hangs before the last is resolved needs no write.
	if written < total {
		t.Errorf("wrote the VMIs' condition %v times for %d migrations past their deadline", written, total)
	}
	wantNoFailedAborts(ctx, t, s, ns)
	wantNoHarm(t, s)
	t.Logf("%d migrations escalated, %v writes of the VMIs' condition", total, written)
}

// outlastDeadlines migrates a VM again and again, each time past the deadline. The
// times around it differ, so that writes of ours and of KubeVirt's meet.
func outlastDeadlines(ctx context.Context, s *stack.Stack, seen *stack.Stopwatch, ns string, number int) error {
	name := fmt.Sprintf("vm-%02d", number)
	vm, err := s.StartVM(ctx, ns, name, limitedTo(harmLimit))
	if err != nil {
		return err
	}
	for round := range harmRounds {
		late := harmLimit + time.Duration((number*7+round*3)%20)*50*time.Millisecond
		course := handler.HoldingAt(handler.Switch).Taking(handler.Switch, late)
		kind := (number + round) % 5
		if kind == 0 {
			course.FailAt = handler.Switch
		}
		vmim, err := s.Migrate(ctx, vm, lab.Following(course), lab.Named(fmt.Sprintf("%s-%d", name, round)))
		if err != nil {
			return err
		}
		if err := seeThrough(ctx, s, seen, vm, vmim, kind == 1); err != nil {
			return fmt.Errorf("migration %s: %w", vmim.Name, err)
		}
	}
	return nil
}

// seeThrough waits until a migration is past its deadline and then over, cancelling
// it in between if asked to, or letting it go on.
func seeThrough(ctx context.Context, s *stack.Stack, seen *stack.Stopwatch, vm *lab.VMI, vmim *lab.VMIM, cancel bool) error {
	select {
	case <-seen.Escalated(vmim.UID):
	case <-seen.Ended(vmim.UID):
		return errors.New("it was over before its deadline")
	case <-ctx.Done():
		return fmt.Errorf("it did not escalate: %w", ctx.Err())
	}
	// Until then KubeVirt's own writers get in each other's way now and then.
	if err := s.WaitStep(ctx, vmim, handler.Switch); err != nil {
		return err
	}
	if cancel {
		if err := s.Client.Delete(ctx, vmim.DeepCopy()); err != nil {
			return err
		}
	} else {
		s.Release(vm)
	}
	select {
	case <-seen.Ended(vmim.UID):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("its end was not reported: %w", ctx.Err())
	}
}

func wantNoFailedAborts(ctx context.Context, t *testing.T, s *stack.Stack, ns string) {
	t.Helper()
	var events corev1.EventList
	if err := s.Client.List(ctx, &events, client.InNamespace(ns)); err != nil {
		t.Fatal(err)
	}
	aborts := 0
	for _, e := range events.Items {
		switch e.Reason {
		case "FailedAbortMigration":
			t.Errorf("%s on %s: %s", e.Reason, e.InvolvedObject.Name, e.Message)
		case "SuccessfulAbortMigration":
			aborts++
		}
	}
	if aborts == 0 {
		t.Error("KubeVirt aborted no migration: nothing is proven")
	}
	t.Logf("%d migrations aborted by KubeVirt, none in vain", aborts)
}

func wantNoHarm(t *testing.T, s *stack.Stack) {
	t.Helper()
	events, err := s.Audit()
	if err != nil {
		t.Fatal(err)
	}
	r := harm.Examine(events, stack.OperatorUser)
	if r.Changes == 0 || r.Writes["VMI"] == 0 {
		t.Error("KubeVirt changed none of its conditions, or the operator wrote none of its own: nothing is proven")
	}
	t.Logf("%d requests; the operator's writes by place: %v; KubeVirt changed its conditions %d times, %d guards of its patches failed, %d things of ours did harm",
		len(events), r.Writes, r.Changes, r.Guards, len(r.Harm))
	if len(r.Harm) > 0 {
		t.Errorf("harm:\n%s", strings.Join(r.Harm[:min(len(r.Harm), 20)], "\n"))
	}
}
