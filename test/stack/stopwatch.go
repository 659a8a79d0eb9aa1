package stack

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// Latency is how long after its target's attachment a migration's
// storageDualAttached=True was seen.
type Latency struct {
	Took      time.Duration
	Migration string
	At        time.Time // of the attachment
}

// Stopwatch notes when a watching client saw what: polling would be the heaviest
// load of all. The watches may deliver in any order, so it is put together at the end.
type Stopwatch struct {
	mu       sync.Mutex
	attached map[types.UID]attachment
	seen     map[types.UID]*sighting
	volumes  map[string]string // by claim
}

type attachment struct {
	pv string
	at time.Time
}

// sighting is one VMIM: when it was first seen, and when with the condition.
type sighting struct {
	name, claim      string
	first, dual      time.Time
	escalated, ended once
}

// once is a channel that is closed once.
type once struct {
	ch   chan struct{}
	over bool
}

func (o *once) close() {
	if !o.over {
		o.over = true
		close(o.ch)
	}
}

// Watch begins to watch attachments and the claims and migrations of a namespace,
// until ctx ends.
func (s *Stack) Watch(ctx context.Context, namespace string) (*Stopwatch, error) {
	w := &Stopwatch{attached: map[types.UID]attachment{}, seen: map[types.UID]*sighting{}, volumes: map[string]string{}}
	for _, kind := range []struct {
		list      client.ObjectList
		saw       func(client.Object, apiwatch.EventType)
		namespace string
	}{
		{&storagev1.VolumeAttachmentList{}, w.sawAttachment, ""},
		{&corev1.PersistentVolumeClaimList{}, w.sawClaim, namespace},
		{&kubevirtv1.VirtualMachineInstanceMigrationList{}, w.sawMigration, namespace},
	} {
		events, err := s.WatchFromNow(ctx, kind.list, kind.namespace)
		if err != nil {
			return nil, err
		}
		if err := meta.EachListItem(kind.list, func(o runtime.Object) error {
			kind.saw(o.(client.Object), apiwatch.Added)
			return nil
		}); err != nil {
			return nil, err
		}
		go func() {
			defer events.Stop()
			for e := range events.ResultChan() {
				if o, ok := e.Object.(client.Object); ok && e.Type != apiwatch.Bookmark {
					kind.saw(o, e.Type)
				}
			}
		}()
	}
	return w, nil
}

// WatchFromNow reads the list and watches what changes since. A watch that the API
// server ends, as it may when it has much to do, is taken up again where it ended.
func (s *Stack) WatchFromNow(ctx context.Context, list client.ObjectList, namespace string) (apiwatch.Interface, error) {
	in := client.InNamespace(namespace)
	if err := s.Client.List(ctx, list, in); err != nil {
		return nil, err
	}
	kind := list.DeepCopyObject().(client.ObjectList)
	return toolswatch.NewRetryWatcherWithContext(ctx, list.GetResourceVersion(), &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
			return s.Client.Watch(ctx, kind, in, &client.ListOptions{Raw: &options})
		},
	})
}

// MigrateInTurn migrates a VM so many times, each time after the storage side of the
// last migration is over. It waits for the watch: polling would be the heaviest load
// of all.
func (s *Stack) MigrateInTurn(ctx context.Context, w *Stopwatch, vm *lab.VMI, times int, course handler.Course) error {
	for i := range times {
		vmim, err := s.Migrate(ctx, vm, lab.Following(course), lab.Named(fmt.Sprintf("%s-%d", vm.Name, i)))
		if err != nil {
			return err
		}
		select {
		case <-w.Ended(vmim.UID):
		case <-ctx.Done():
			return fmt.Errorf("migration %s was not reported: %w", vmim.Name, context.Cause(ctx))
		}
	}
	return nil
}

// Ended is closed when the ending of a migration is on its VMIM, or that is gone.
func (w *Stopwatch) Ended(uid types.UID) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sighting(uid).ended.ch
}

// Escalated is closed when a VMIM says storageMigrationTimedOut=True.
func (w *Stopwatch) Escalated(uid types.UID) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sighting(uid).escalated.ch
}

func (w *Stopwatch) sighting(uid types.UID) *sighting {
	if w.seen[uid] == nil {
		w.seen[uid] = &sighting{escalated: once{ch: make(chan struct{})}, ended: once{ch: make(chan struct{})}}
	}
	return w.seen[uid]
}

func (w *Stopwatch) sawClaim(o client.Object, _ apiwatch.EventType) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.volumes[o.GetName()] = o.(*corev1.PersistentVolumeClaim).Spec.VolumeName
}

func (w *Stopwatch) sawAttachment(o client.Object, _ apiwatch.EventType) {
	va := o.(*storagev1.VolumeAttachment)
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.attached[va.UID]; va.Status.Attached && !known {
		w.attached[va.UID] = attachment{*va.Spec.Source.PersistentVolumeName, time.Now()}
	}
}

func (w *Stopwatch) sawMigration(o client.Object, what apiwatch.EventType) {
	m := o.(*kubevirtv1.VirtualMachineInstanceMigration)
	says := func(of kubevirtv1.VirtualMachineInstanceMigrationConditionType) bool {
		return slices.ContainsFunc(m.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceMigrationCondition) bool {
			return c.Type == of && c.Status == corev1.ConditionTrue
		})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sighting(m.UID)
	if s.first.IsZero() {
		s.name, s.claim, s.first = m.Name, m.Spec.VMIName, time.Now()
	}
	if s.dual.IsZero() && says(dualattach.ConditionDualAttached) {
		s.dual = time.Now()
	}
	if says(dualattach.ConditionTimedOut) {
		s.escalated.close()
	}
	if dualattach.Reported(m) || what == apiwatch.Deleted {
		s.ended.close()
	}
}

// Latencies are those of all migrations that were dual attached. The attachment of
// a migration is the first of its volume since the VMIM was seen; the last VM's start
// came before that. Claims have the names of their VMs.
func (w *Stopwatch) Latencies() []Latency {
	w.mu.Lock()
	defer w.mu.Unlock()
	var taken []Latency
	for _, s := range w.seen {
		var at time.Time
		for _, a := range w.attached {
			if a.pv == w.volumes[s.claim] && a.at.After(s.first) && (at.IsZero() || a.at.Before(at)) {
				at = a.at
			}
		}
		if !at.IsZero() && !s.dual.IsZero() {
			taken = append(taken, Latency{max(0, s.dual.Sub(at)), s.name, at})
		}
	}
	slices.SortFunc(taken, func(a, b Latency) int { return cmp.Compare(a.Took, b.Took) })
	return taken
}

// Percentiles are the median, the 95th percentile and the most of sorted latencies.
func Percentiles(sorted []Latency) (p50, p95, most time.Duration) {
	if len(sorted) == 0 {
		return 0, 0, 0
	}
	return sorted[len(sorted)/2].Took, sorted[len(sorted)*95/100].Took, sorted[len(sorted)-1].Took
}
