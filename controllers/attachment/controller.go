package attachment

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
)

// Migrating lists the nodes of the migrations under way that share a volume.
type Migrating func(volume string) []string

// Reconciler looks at the attachments of one volume at a time.
type Reconciler struct {
	gather    *gather.Gatherer
	events    events
	migrating Migrating
	limits    func() unexplained.Limits
	clock     clock.PassiveClock
	table     *table
}

// New makes a reconciler that makes events with w. reader is asked, past the cache,
// for the events that an earlier process made; limits at each decision, as they can change.
func New(g *gather.Gatherer, w client.Writer, reader client.Reader, migrating Migrating, limits func() unexplained.Limits, c clock.PassiveClock) *Reconciler {
	return &Reconciler{gather: g, events: events{w, reader, c}, migrating: migrating, limits: limits, clock: c, table: newTable()}
}

// Collector gives the gauges.
func (r *Reconciler) Collector() prometheus.Collector { return newMetrics(r.table) }

// Reconcile gathers, decides and acts for one volume, and comes back when time
// alone changes the answer.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	v, err := r.gather.Volume(ctx, req.Name, r.clock.Now())
	if err != nil {
		return reconcile.Result{}, err
	}
	if v == nil {
		r.table.forget(req.Name)
		return reconcile.Result{}, nil
	}
	next, err := r.act(ctx, v)
	if err != nil || next.IsZero() {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: max(time.Millisecond, next.Sub(r.clock.Now()))}, nil
}

// act decides and says what was decided; what was said is remembered afterwards, so
// that a failure repeats what is idempotent. next is when to look again, or zero.
func (r *Reconciler) act(ctx context.Context, v *gather.Volume) (next time.Time, err error) {
	a, err := r.decide(ctx, v)
	if err != nil {
		return time.Time{}, err
	}
	for _, event := range a.Events {
		if err := r.events.make(ctx, v, event); err != nil {
			return time.Time{}, err
		}
		log.FromContext(ctx).Info(event.Message, "reason", event.Reason, "claim", v.Claim.Namespace+"/"+v.Claim.Name)
	}
	r.table.keep(v, a)
	return a.NextAt, nil
}

// decide takes up what this process remembers of the volume or, at the first look,
// what an earlier one said of it.
func (r *Reconciler) decide(ctx context.Context, v *gather.Volume) (unexplained.Assessment, error) {
	memory, looked := r.table.memory(v.Name)
	s := v.Snapshot
	s.Limits, s.Memory, s.Migrating = r.limits(), memory, r.migrating(v.Name)
	a := unexplained.Decide(s)
	if looked || len(a.Pending) == 0 {
		return a, nil
	}
	var err error
	if s.Memory, err = Recall(ctx, r.events.reader, v, a.Pending); err != nil {
		return a, err
	}
	return unexplained.Decide(s), nil
}
