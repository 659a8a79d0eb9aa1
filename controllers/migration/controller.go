package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
)

// staleRetry is how soon a write is tried again after somebody else's; the watch
// usually brings the change sooner.
const staleRetry = 50 * time.Millisecond

// Writer is what the reconciler writes with: events and VMIM status. What the VMI
// says is a Speaker's.
type Writer interface {
	client.Writer
	client.StatusClient
}

// Reconciler follows the migrations of one VMI at a time.
type Reconciler struct {
	gather  *gather.Gatherer
	writer  Writer
	speaker Speaker
	limits  func() dualattach.Limits
	clock   clock.PassiveClock
	since   func() time.Time
	lastRun func() time.Time
	table   *table
	metrics *metrics
}

// New makes a reconciler. limits are asked for at each decision, as they can change.
// since tells when this process began to lead: what was over by then and bears no mark
// of ours is history. lastRun tells until when another one did, zero where none ever
// did: what ended between the two is not.
func New(g *gather.Gatherer, w Writer, s Speaker, limits func() dualattach.Limits, c clock.PassiveClock, since, lastRun func() time.Time) *Reconciler {
	t := newTable()
	return &Reconciler{gather: g, writer: w, speaker: s, limits: limits, clock: c, since: since, lastRun: lastRun, table: t, metrics: newMetrics(t)}
}

// Collector gives the domain's metrics.
func (r *Reconciler) Collector() prometheus.Collector { return r.metrics }

// Migrating lists the nodes of the migrations under way that share a volume: what is
// to be said of its attachments there is said here. Safe for concurrent use.
func (r *Reconciler) Migrating(volume string) []string { return r.table.nodesSharing(volume) }

// Reconcile gathers and decides for every migration of a VMI that is not reported
// yet, lets the VMI say what they mean for it, then acts, and comes back when time
// alone changes the answer.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	in, err := r.gather.Instance(ctx, req.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	verdicts, err := r.decide(ctx, in)
	if err != nil {
		return reconcile.Result{}, err
	}
	held, next, unsaid := r.speak(ctx, in, verdicts.assessments())
	if held {
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	}
	for _, d := range verdicts {
		switch err := r.act(ctx, in, d.entry, d.snapshot, d.assessment); {
		case errors.Is(err, jsonpatch.ErrStale):
			log.FromContext(ctx).V(1).Info("written meanwhile, deciding again", "migration", d.snapshot.Migration.Name, "reason", err.Error())
			return reconcile.Result{RequeueAfter: staleRetry}, nil
		case err != nil:
			return reconcile.Result{}, err
		}
		next = sooner(next, d.assessment.NextAt)
	}
	if unsaid != nil || next.IsZero() {
		return reconcile.Result{}, unsaid
	}
	return reconcile.Result{RequeueAfter: max(time.Millisecond, next.Sub(r.clock.Now()))}, nil
}

// verdict is what was decided about one migration, and on what.
type verdict struct {
	entry      *entry
	snapshot   *dualattach.Snapshot
	assessment dualattach.Assessment
}

type verdicts []verdict

// assessments are those of the VMI's own migrations: some may be of one that had its
// name before.
func (vs verdicts) assessments() []dualattach.Assessment {
	var all []dualattach.Assessment
	for _, d := range vs {
		if d.snapshot.Instance != nil {
			all = append(all, d.assessment)
		}
	}
	return all
}

// decide looks at every migration of a VMI that is watched, oldest first.
func (r *Reconciler) decide(ctx context.Context, in *gather.Instance) (verdicts, error) {
	var all verdicts
	for _, e := range r.table.track(in, r.lastRun(), r.clock.Now()) {
		s, err := r.snapshot(ctx, in, e)
		if err != nil {
			return nil, err
		}
		s.Since, s.Limits = r.since(), r.limits()
		all = append(all, verdict{e, &s, dualattach.Decide(s)})
	}
	return all, nil
}

// sooner is the earlier of two times, zero being never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// snapshot gathers on a copy, as the watches read the entry meanwhile.
func (r *Reconciler) snapshot(ctx context.Context, in *gather.Instance, e *entry) (dualattach.Snapshot, error) {
	var known gather.Known
	r.table.update(func() { known = e.known })
	s, err := r.gather.Snapshot(ctx, in, &known, r.clock.Now())
	r.table.update(func() {
		e.known.InstanceUID, e.known.Source, e.known.Target = known.InstanceUID, known.Source, known.Target
		e.known.Claims, e.known.Copied = known.Claims, known.Copied
	})
	return s, err
}

// act says what was decided: events first, then the conditions, which commit it,
// then the counters. A crash in between repeats what is idempotent and may lose
// one increment, never double anything.
func (r *Reconciler) act(ctx context.Context, in *gather.Instance, e *entry, s *dualattach.Snapshot, a dualattach.Assessment) error {
	before := s.Migration
	if a.Conditions != nil {
		if err := r.makeEvents(ctx, e, s, a); err != nil {
			return err
		}
		if err := r.writeConditions(ctx, e, s, a); err != nil {
			return err
		}
	}
	if a.Stage != e.stage && a.Conditions != nil {
		log.FromContext(ctx).Info("storage migration entered a stage", "migration", before.Name, "stage", a.Stage.String(),
			"source", s.Source.Node, "target", s.Target.Node, "deadline", a.Deadline.At, "result", string(a.Result))
	}
	r.table.update(func() { r.metrics.count(e, before, s, a) })
	// That a migration copied blocks does not show when it is over: it is remembered.
	none := a.Stage == dualattach.NotInvolved && (!s.VanishedAt.IsZero() || before.IsFinal() && !s.CopiesBlocks())
	if a.Reported || !a.Withheld && (a.Stage.Final() || none) {
		r.table.forget(in.Key, before.UID)
	}
	return nil
}

// writeConditions writes what the VMIM lacks, unless that is withheld: it comes when
// KubeVirt has moved the VMIM on. A VMIM that is gone bears no conditions; its migration is watched
// to its end all the same, and what was decided is remembered here instead.
func (r *Reconciler) writeConditions(ctx context.Context, e *entry, s *dualattach.Snapshot, a dualattach.Assessment) error {
	if a.Withheld {
		return nil
	}
	if !s.VanishedAt.IsZero() {
		r.table.update(func() { e.known.Migration = report.Remembered(s.Migration, a.Conditions, s.Now) })
		return nil
	}
	stored, _, err := report.Conditions(ctx, r.writer, s.Migration, a.Conditions, s.Now)
	if apierrors.IsNotFound(err) {
		r.table.update(func() { e.known.VanishedAt = s.Now })
		return fmt.Errorf("%w: it is gone", jsonpatch.ErrStale)
	}
	if err != nil {
		return err
	}
	r.table.update(func() { e.known.Migration = newer(e.known.Migration, stored) })
	return nil
}

// makeEvents makes those events that this process has not made yet.
func (r *Reconciler) makeEvents(ctx context.Context, e *entry, s *dualattach.Snapshot, a dualattach.Assessment) error {
	for _, event := range a.Events {
		id := event.Reason + "/" + event.Step + "/" + event.Claim
		about, ok := e.object(s, event.Claim)
		if e.made[id] || !ok {
			continue
		}
		if _, err := report.Event(ctx, r.writer, event, about, s.Migration.UID, r.clock.Now()); err != nil {
			return err
		}
		e.made[id] = true
	}
	return nil
}

// object is what an event is about: a claim, or the migration's VMI. ok is false when
// it is gone or was never seen.
func (e *entry) object(s *dualattach.Snapshot, claim string) (about corev1.ObjectReference, ok bool) {
	if claim == "" {
		if s.Instance == nil {
			return about, false
		}
		return corev1.ObjectReference{APIVersion: kubevirtv1.GroupVersion.String(), Kind: kubevirtv1.VirtualMachineInstanceGroupVersionKind.Kind,
			Namespace: s.Instance.Namespace, Name: s.Instance.Name, UID: s.Instance.UID}, true
	}
	for _, c := range e.known.Claims {
		if c.Name == claim {
			return corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: s.Migration.Namespace, Name: c.Name, UID: c.UID}, true
		}
	}
	return about, false
}

// count moves the entry on and counts what happened. before is the VMIM without
// this decision's conditions: what they already said was counted.
func (m *metrics) count(e *entry, before *kubevirtv1.VirtualMachineInstanceMigration, s *dualattach.Snapshot, a dualattach.Assessment) {
	uncommitted := a.Withheld && a.Stage.Final() // counted when it is
	if a.Conditions != nil && !uncommitted {
		if a.Result != "" && !e.counted && !dualattach.Counted(before) {
			m.migrations.WithLabelValues(string(a.Result)).Inc()
		}
		e.counted = e.counted || a.Result != ""
		if a.Overdue() && !e.late[a.Late] {
			e.late[a.Late] = true
			if dualattach.TimedOutIn(before) != a.Late {
				m.timeouts.WithLabelValues(a.Late.String()).Inc()
			}
		}
		if a.Stage.Final() {
			m.duration.Observe(s.Duration().Seconds())
		}
	}
	if a.Stage != e.stage {
		if e.underWay() {
			m.stageDuration.WithLabelValues(e.stage.String()).Observe(s.Now.Sub(e.entered).Seconds())
		}
		e.entered = s.Now
	}
	e.stage, e.latest = a.Stage, a
}
