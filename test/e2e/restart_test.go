package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// plot is a course of a migration with all that the operator writes of it, in
// the parts in which the test lets the world move on.
type plot struct {
	name      string
	fails     bool // the migration, where the VM would move
	attaching []string
	dual      []string
	late      []string
	releasing []string
	over      []string
	// conditions are those of the VMIM in the end (dual attached, migrated, timed
	// out), none where it is gone.
	conditions []string
}

func (s plot) writes() []string {
	return slices.Concat(s.attaching, s.dual, s.late, s.releasing, s.over)
}

var (
	onAttaching = []string{"event MigrationStarted", "VMIM AttachingTarget/WithinDeadline"}
	onDual      = []string{"VMIM DualAttached/WithinDeadline"}
)

const delayed = "event MigrationDelayed"

var (
	succeeds = plot{name: "success", attaching: onAttaching, dual: onDual,
		releasing:  []string{"VMIM ReleasingSource/WithinDeadline"},
		over:       []string{"event MigrationCompleted", "VMIM Completed/WithinDeadline"},
		conditions: []string{"False/SourceReleased", "True/Completed", "False/WithinDeadline"}}
	rollsBack = plot{name: "rolled-back", fails: true, attaching: onAttaching, dual: onDual,
		releasing:  []string{"VMIM ReleasingTarget/WithinDeadline"},
		over:       []string{"event MigrationFailed", "VMIM RolledBack/WithinDeadline"},
		conditions: []string{"False/TargetReleased", "False/RolledBack", "False/WithinDeadline"}}
	hangs = plot{name: "hang", attaching: onAttaching, dual: onDual,
		late: []string{delayed, "event MigrationFailed", "event StorageMigrationTimedOut",
			"VMIM DualAttached/DualAttached", "VMI True/DualAttached"},
		releasing:  []string{"VMIM ReleasingSource/DualAttached"},
		over:       []string{"event MigrationCompleted", "VMIM Completed/Resolved", "VMI False/Resolved"},
		conditions: []string{"False/SourceReleased", "True/Completed", "False/Resolved"}}
	cancelled = plot{name: "cancelled", attaching: onAttaching, dual: onDual,
		over: []string{"event MigrationFailed"}}
)

// patient is one VM; the operator dies before and after one write about it.
type patient struct {
	plot
	vm    *lab.VMI
	vmim  *lab.VMIM
	write string
}

// restarts runs the table.
type restarts struct {
	*stack.Stack
	t        *testing.T
	ns       string
	crasher  *crasher
	patients []*patient
	operator *stack.Operator
	crashes  int
	slowest  time.Duration      // from start to ready
	counted  map[string]float64 // by result, over all lives
}

// TestTheOperatorDiesAtEveryWrite kills the operator (SIGKILL) right before and
// right after each write of each plot, all VMs side by side. Whatever it was
// about to do or did not hear of, in the end every event exists once, every VMIM
// was written once for each thing it says, a result is counted once or, where the
// crash came between the condition and the counter, not at all, and the gauges of a
// fresh process are those of the world.
func TestTheOperatorDiesAtEveryWrite(t *testing.T) {
	ctx, s, ns := setUp(t)
	r := &restarts{Stack: s, t: t, ns: ns, crasher: newCrasher(ns), counted: map[string]float64{}}
	g, err := s.NewGate()
	if err != nil {
		t.Fatal(err)
	}
	g.Watch(r.crasher.hook())
	// Alone, so that its successor need not wait for a Lease to expire.
	s.ExchangeOperators(ctx, t, stack.OperatorOptions{Gate: g, Args: []string{"--leader-election=false"}})
	r.operator = s.Operators[0]
	t.Cleanup(func() { r.neverUnmount(false) })
	started := time.Now()
	r.startVMs(ctx)
	r.attach(ctx)
	r.move(ctx, r.of(succeeds, rollsBack))
	// A VMIM that is gone bears no conditions, so its crash comes last.
	for _, p := range r.of(cancelled) {
		r.cancel(ctx, p)
	}
	r.late(ctx, r.of(hangs))
	r.move(ctx, r.of(hangs))
	r.checkEnd(ctx)
	t.Logf("%d VMs, %d crashes at %d points in %s, ready again after at most %s, counted %v",
		len(r.patients), r.crashes, len(r.crasher.hits), time.Since(started).Round(time.Second), r.slowest.Round(time.Millisecond), r.counted)
}

// startVMs starts a VM for each write of each plot and arms the crasher.
func (r *restarts) startVMs(ctx context.Context) {
	r.t.Helper()
	for _, sc := range []plot{succeeds, rollsBack, hangs, cancelled} {
		for i, write := range sc.writes() {
			p := &patient{plot: sc, write: write}
			r.patients = append(r.patients, p)
			when := before
			if sc.name == cancelled.name && slices.Contains(sc.over, write) {
				when = after // before it, it is an ending while no operator ran
			}
			r.crasher.arm(act{fmt.Sprintf("%s-%d", sc.name, i), write}, when)
		}
	}
	all, groupCtx := errgroup.WithContext(ctx)
	for _, p := range r.patients {
		all.Go(func() (err error) {
			p.vm, err = r.StartVM(groupCtx, r.ns, fmt.Sprintf("%s-%d", p.name, slices.Index(p.writes(), p.write)))
			return err
		})
	}
	if err := all.Wait(); err != nil {
		r.t.Fatal(err)
	}
}

// attach brings all migrations to be dual attached, first held where the target
// waits for its volume.
func (r *restarts) attach(ctx context.Context) {
	r.t.Helper()
	attacher := r.Process("csi-attacher")
	attacher.Freeze()
	thaw := func() { attacher.Thaw() }
	r.t.Cleanup(thaw)
	for _, p := range r.patients {
		course := handler.HoldingAt(handler.Switch)
		if p.fails {
			course.FailAt = handler.Switch
		}
		var err error
		if p.vmim, err = r.Migrate(ctx, p.vm, lab.Named(p.vm.Name), lab.Following(course)); err != nil {
			r.t.Fatal(err)
		}
	}
	r.written(ctx, "attaching", r.patients, func(p *patient) []string { return p.attaching })
	r.checkGauges(ctx, dualattach.AttachingTarget, 0)
	thaw()
	r.written(ctx, "dual attached", r.patients, func(p *patient) []string { return p.dual })
	r.checkGauges(ctx, dualattach.DualAttached, len(r.patients))
}

// of are the VMs of plots.
func (r *restarts) of(plots ...plot) (some []*patient) {
	for _, p := range r.patients {
		if slices.ContainsFunc(plots, func(s plot) bool { return s.name == p.name }) {
			some = append(some, p)
		}
	}
	return some
}

// move lets VMs move, or fail to; in between, no node unmounts.
func (r *restarts) move(ctx context.Context, some []*patient) {
	r.t.Helper()
	r.neverUnmount(true)
	for _, p := range some {
		release(ctx, r.t, r.Stack, p.vm, p.vmim)
	}
	r.written(ctx, "releasing", some, func(p *patient) []string { return p.releasing })
	r.neverUnmount(false)
	r.written(ctx, "over", some, func(p *patient) []string { return p.over })
}

// cancel deletes a VMIM. It is gone before the target lets go of the volume.
func (r *restarts) cancel(ctx context.Context, p *patient) {
	r.t.Helper()
	if err := r.WaitStep(ctx, p.vmim, handler.Switch); err != nil {
		r.t.Fatal(err)
	}
	r.neverUnmount(true)
	if err := r.Client.Delete(ctx, p.vmim); err != nil {
		r.t.Fatal(err)
	}
	err := r.WaitFor(ctx, "VMIM "+p.vmim.Name+" to be gone", func(ctx context.Context) (bool, error) {
		err := r.Client.Get(ctx, client.ObjectKeyFromObject(p.vmim), &lab.VMIM{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.neverUnmount(false)
	r.written(ctx, "cancelled", []*patient{p}, func(p *patient) []string { return p.over })
}

// late lets the deadlines of those pass that hang: soon, but with time for two
// crashes between the warning at 80 % and the deadline.
func (r *restarts) late(ctx context.Context, some []*patient) {
	r.t.Helper()
	for _, p := range some {
		r.read(ctx, p)
		elapsed := time.Since(conditionOf(p.vmim, dualattach.ConditionDualAttached).LastTransitionTime.Time)
		limit := (elapsed + 30*time.Second).Round(time.Second)
		if err := r.Client.Patch(ctx, p.vm, limitPatch(limit)); err != nil {
			r.t.Fatal(err)
		}
	}
	r.written(ctx, "late", some, func(p *patient) []string { return p.late })
}

func (r *restarts) neverUnmount(never bool) {
	for _, name := range nodeNames {
		r.Node(name).Behave(func(b *lab.Behaviour) { b.NeverUnmount = never })
	}
}

// written waits until some VMs' writes are stored, and brings the operator back
// whenever it is to die meanwhile.
func (r *restarts) written(ctx context.Context, what string, some []*patient, writes func(*patient) []string) {
	r.t.Helper()
	bounded, cancel := context.WithTimeout(ctx, 4*lab.DefaultWait)
	defer cancel()
	var waiting []string
	err := r.WaitFor(bounded, "all that is to be written while "+what, func(ctx context.Context) (bool, error) {
		if r.crasher.holds() {
			return false, r.crash(ctx)
		}
		waiting = nil
		for _, p := range some {
			if !r.crasher.done(p.vm.Name, writes(p)...) {
				waiting = append(waiting, fmt.Sprintf("%s: %v of %v", p.vm.Name, r.crasher.stored(p.vm.Name), writes(p)))
			}
		}
		return len(waiting) == 0, nil
	})
	if err != nil {
		r.t.Fatalf("%v; missing is\n%s", err, strings.Join(waiting, "\n"))
	}
}

// crash kills the operator and starts it again. Before that it has counted what
// it knows to be stored, no more and no less.
func (r *restarts) crash(ctx context.Context) error {
	err := r.WaitFor(ctx, "what was passed on to be answered", func(context.Context) (bool, error) { return r.crasher.calm(), nil })
	if err != nil {
		return err
	}
	counted := r.crasher.counted()
	var got map[string]float64
	err = r.WaitFor(ctx, fmt.Sprintf("the operator to have counted %v", counted), func(ctx context.Context) (bool, error) {
		series, err := r.Scrape(ctx, r.operator)
		got = map[string]float64{}
		for _, result := range []dualattach.Result{dualattach.Success, dualattach.Failed, dualattach.Timeout} {
			if n := series.Value(report.MetricMigrations, map[string]string{"result": string(result)}); n > 0 {
				got[string(result)] = n
			}
		}
		return maps.Equal(got, counted), err
	})
	if err != nil {
		return fmt.Errorf("%w; it counted %v", err, got)
	}
	series, err := r.Scrape(ctx, r.operator)
	if err != nil {
		return err
	}
	for _, result := range dualattach.Results() {
		r.counted[string(result)] += series.Value(report.MetricMigrations, map[string]string{"result": string(result)})
	}
	r.operator.Kill()
	r.crasher.reset()
	r.crashes++
	started := time.Now()
	if err := r.operator.Run(); err != nil {
		return err
	}
	err = r.WaitOperator(ctx, r.operator)
	r.slowest = max(r.slowest, time.Since(started))
	return err
}

// checkGauges compares a fresh process's gauges with the world and with its
// predecessor's deadlines.
func (r *restarts) checkGauges(ctx context.Context, stage dualattach.Stage, dual int) {
	r.t.Helper()
	r.waitGauges(ctx, stage, dual)
	for range 2 { // until the array's times are known, and taken into account
		r.SettledMetric(ctx, r.t, report.MetricActive, nil)
	}
	was := r.deadlines(ctx)
	r.crasher.trip()
	if err := r.crash(ctx); err != nil {
		r.t.Fatal(err)
	}
	ready := time.Now()
	r.waitGauges(ctx, stage, dual)
	r.t.Logf("gauges of %d migrations in %s right %s after the operator was ready", len(r.patients), stage, time.Since(ready).Round(time.Millisecond))
	bounded, cancel := context.WithTimeout(ctx, lab.DefaultWait)
	defer cancel()
	err := r.WaitFor(bounded, "the deadlines of before the restart", func(ctx context.Context) (bool, error) {
		return maps.Equal(was, r.deadlines(ctx)), nil
	})
	if err != nil {
		r.t.Errorf("%v:\n%v\n%v", err, was, r.deadlines(ctx))
	}
}

func (r *restarts) waitGauges(ctx context.Context, stage dualattach.Stage, dual int) {
	r.t.Helper()
	bounded, cancel := context.WithTimeout(ctx, lab.DefaultWait)
	defer cancel()
	var got string
	want := fmt.Sprintf("%d active, %d dual attached, %d deadlines of %s", len(r.patients), dual, len(r.patients), stage)
	err := r.WaitFor(bounded, want, func(ctx context.Context) (bool, error) {
		series, err := r.Scrape(ctx, r.operator)
		if err != nil {
			return false, err
		}
		got = fmt.Sprintf("%v active, %d dual attached, %d deadlines of %s", series.Value(report.MetricActive, nil),
			series.Count(report.MetricDualAttached, "namespace", r.ns), series.Count(report.MetricDeadline, "stage", stage.String()), stage)
		return got == want, nil
	})
	if err != nil {
		r.t.Fatalf("%v; there are %s", err, got)
	}
}

func (r *restarts) deadlines(ctx context.Context) map[string]float64 {
	r.t.Helper()
	series := r.MustScrape(ctx, r.t)
	deadlines := map[string]float64{}
	for _, p := range r.patients {
		for _, stage := range dualattach.UnderWay() {
			if at, ok := series.Find(report.MetricDeadline, map[string]string{"namespace": r.ns, "vmi": p.vm.Name, "migration": p.vm.Name, "stage": stage.String()}); ok {
				deadlines[p.vm.Name+" "+stage.String()] = at
			}
		}
	}
	return deadlines
}

// checkEnd looks at everything once more, after a last restart.
func (r *restarts) checkEnd(ctx context.Context) {
	r.t.Helper()
	r.crasher.trip()
	if err := r.crash(ctx); err != nil {
		r.t.Fatal(err)
	}
	r.WantMetric(ctx, r.t, report.MetricActive, nil, 0)
	r.SettledMetric(ctx, r.t, report.MetricActive, nil)
	series := r.MustScrape(ctx, r.t)
	for _, result := range dualattach.Results() {
		if n := series.Value(report.MetricMigrations, map[string]string{"result": string(result)}); n != 0 {
			r.t.Errorf("an operator that started when all was over counted %v %s", n, result)
		}
	}
	var events corev1.EventList
	if err := r.Client.List(ctx, &events, client.InNamespace(r.ns)); err != nil {
		r.t.Fatal(err)
	}
	totals := map[string]float64{}
	for _, p := range r.patients {
		r.checkPatient(ctx, p, events.Items)
		totals[p.result()]++
	}
	for result, n := range totals {
		// Of each kind one was killed between the condition and the counter.
		got := r.counted[result]
		lost := n - got
		if lost == 1 || (lost == 0 && result == string(dualattach.Aborted)) {
			continue
		}
		r.t.Errorf("%v migrations were %s, counted over all restarts: %v", n, result, got)
	}
}

// result is what the metrics call the plot's ending.
func (s plot) result() string {
	return string(map[string]dualattach.Result{succeeds.name: dualattach.Success, rollsBack.name: dualattach.Failed,
		hangs.name: dualattach.Timeout, cancelled.name: dualattach.Aborted}[s.name])
}

// checkPatient: each write stored once and in the order in which they are listed,
// each event there once, and the last word on the VMIM.
func (r *restarts) checkPatient(ctx context.Context, p *patient, events []corev1.Event) {
	r.t.Helper()
	stored := r.crasher.stored(p.vm.Name)
	optional := p.optional()
	stored = slices.DeleteFunc(stored, func(w string) bool { return slices.Contains(optional, w) })
	want := slices.DeleteFunc(p.writes(), func(w string) bool { return slices.Contains(optional, w) })
	slices.Sort(stored)
	slices.Sort(want)
	if !slices.Equal(stored, want) {
		r.t.Errorf("%s, killed at %s: stored %v, want %v", p.vm.Name, p.write, stored, want)
	}
	made := map[string]int{}
	for _, e := range events {
		if e.InvolvedObject.Name == p.vm.Name && e.Source.Component == "rds-csi-operator" {
			made["event "+e.Reason] += int(e.Count)
		}
	}
	for _, w := range p.writes() {
		if n := made[w]; strings.HasPrefix(w, "event ") && n != 1 && (n != 0 || !slices.Contains(optional, w)) {
			r.t.Errorf("%s, killed at %s: %s exists %d times", p.vm.Name, p.write, w, n)
		}
		delete(made, w)
	}
	if len(made) > 0 {
		r.t.Errorf("%s, killed at %s: also %v", p.vm.Name, p.write, made)
	}
	if p.conditions != nil {
		r.read(ctx, p)
		wantConditions(r.t, p.vmim, p.conditions...)
		return
	}
	if err := r.Client.Get(ctx, client.ObjectKeyFromObject(p.vmim), p.vmim); !apierrors.IsNotFound(err) {
		r.t.Errorf("the cancelled VMIM %s is still there: %v", p.vmim.Name, err)
	}
}

// optional are the writes that may be missing.
func (p *patient) optional() []string {
	if p.name == cancelled.name {
		return []string{"VMIM ReleasingTarget/WithinDeadline"}
	}
	return nil
}

func (r *restarts) read(ctx context.Context, p *patient) {
	r.t.Helper()
	if err := r.Client.Get(ctx, client.ObjectKeyFromObject(p.vmim), p.vmim); err != nil {
		r.t.Fatal(err)
	}
}
