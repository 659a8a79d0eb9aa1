package attachment

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

var (
	noon      = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	limits    = unexplained.Limits{Settle: 30 * time.Second, Release: 3 * time.Minute, ReleaseNotReady: 7 * time.Minute}
	eventKind = schema.GroupResource{Resource: "events"}
)

// store keeps events as the API server does. Any call but a creation and a read of
// one panics: the reconciler makes no other.
type store struct {
	client.Writer
	client.Reader
	events map[string]corev1.Event
	log    []string // what was asked, in order
	fails  error
}

// Create implements client.Writer.
func (s *store) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	e := o.(*corev1.Event)
	s.log = append(s.log, "make "+e.Reason)
	if s.fails != nil {
		return s.fails
	}
	if _, exists := s.events[e.Name]; exists {
		return apierrors.NewAlreadyExists(eventKind, e.Name)
	}
	s.events[e.Name] = *e
	return nil
}

// Get implements client.Reader.
func (s *store) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	s.log = append(s.log, "read")
	if s.fails != nil {
		return s.fails
	}
	e, exists := s.events[key.Name]
	if !exists {
		return apierrors.NewNotFound(eventKind, key.Name)
	}
	*o.(*corev1.Event) = e
	return nil
}

// asked is what was asked since the last time.
func (s *store) asked() []string {
	log := s.log
	s.log = nil
	return log
}

// shift is one process that looks at one volume.
type shift struct {
	*Reconciler
	clock *testclock.FakePassiveClock
	nodes []string // of migrations
}

func begin(s *store, now time.Time) *shift {
	x := &shift{clock: testclock.NewFakePassiveClock(now)}
	x.Reconciler = New(nil, s, s, func(string) []string { return x.nodes }, func() unexplained.Limits { return limits }, x.clock)
	return x
}

// look acts on a volume that two strangers use, unless changed.
func (x *shift) look(t *testing.T, change ...func(*gather.Volume)) time.Time {
	t.Helper()
	next, err := x.act(t.Context(), x.volume(change...))
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func (x *shift) volume(change ...func(*gather.Volume)) *gather.Volume {
	v := &gather.Volume{Name: "pv-disk", UID: "uid-pv", Handle: "pvc-1", Claim: corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: "shop", Name: "disk"}}
	v.Snapshot = unexplained.Snapshot{Now: x.clock.Now(), Claim: "disk", Slot: "pvc-1", Sharing: unexplained.LiveMigration,
		Attachments: []unexplained.Attachment{
			{Name: "csi-a", UID: "va-a", Node: "node-a", NodeID: "node-a", Attached: true, Ready: true},
			{Name: "csi-b", UID: "va-b", Node: "node-b", NodeID: "node-b", Attached: true, Ready: true}},
		Pods: []unexplained.Pod{{Name: "x", UID: "uid-x", Node: "node-a"}, {Name: "y", UID: "uid-y", Node: "node-b"}}}
	for _, f := range change {
		f(v)
	}
	return v
}

func alone(v *gather.Volume) {
	v.Snapshot.Attachments, v.Snapshot.Pods = v.Snapshot.Attachments[:1], v.Snapshot.Pods[:1]
}

func newStore() *store { return &store{events: map[string]corev1.Event{}} }

const dualAttached = `
# HELP rds_csi_volume_unexplained_dual_attached Claims whose RDS volume live pods use on two nodes, which no migration explains (1).
# TYPE rds_csi_volume_unexplained_dual_attached gauge
rds_csi_volume_unexplained_dual_attached{namespace="shop",persistentvolumeclaim="disk"} 1
`

func wantGauge(t *testing.T, x *shift, want string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(x.Collector())
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), report.MetricUnexplained); err != nil {
		t.Error(err)
	}
}

func wantAsked(t *testing.T, what string, s *store, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, s.asked()); diff != "" {
		t.Errorf("%s: asked (-want +got):\n%s", what, diff)
	}
}

// TestAct: one event when it has lasted, the same when the cluster has forgotten it, one
// when it is over; the gauge follows, and nothing is asked in between.
func TestAct(t *testing.T) {
	s := newStore()
	x := begin(s, noon)
	if next := x.look(t); !next.Equal(noon.Add(limits.Settle)) {
		t.Errorf("the next look is due at %s", next)
	}
	wantAsked(t, "first look", s, "read")
	wantGauge(t, x, "")
	x.clock.SetTime(noon.Add(limits.Settle))
	x.look(t)
	wantAsked(t, "settled", s, "make UnexplainedDualAttach")
	wantGauge(t, x, dualAttached)
	x.clock.SetTime(noon.Add(time.Hour))
	next := x.look(t)
	if next.Before(noon.Add(time.Hour)) {
		t.Errorf("the next look is due at %s", next)
	}
	wantAsked(t, "an hour later", s)
	wantGauge(t, x, dualAttached)
	clear(s.events)
	x.clock.SetTime(next)
	x.look(t)
	wantAsked(t, "forgotten", s, "make UnexplainedDualAttach")
	x.look(t, alone)
	wantAsked(t, "over", s, "make DualAttachResolved")
	wantGauge(t, x, "")
}

// TestRestart: another process takes up at once what was said, says it no second time,
// and takes it back.
func TestRestart(t *testing.T) {
	s := newStore()
	x := begin(s, noon)
	x.look(t)
	x.clock.SetTime(noon.Add(limits.Settle))
	x.look(t)
	s.asked()
	x = begin(s, noon.Add(time.Minute))
	x.look(t)
	wantAsked(t, "after a restart", s, "read")
	wantGauge(t, x, dualAttached)
	x.look(t, alone)
	wantAsked(t, "over", s, "make DualAttachResolved")
}

// TestRestartBefore: what was not said yet is not taken for said.
func TestRestartBefore(t *testing.T) {
	s := newStore()
	begin(s, noon).look(t)
	x := begin(s, noon.Add(time.Minute))
	x.look(t)
	x.look(t, alone)
	wantAsked(t, "two first looks", s, "read", "read")
}

// TestFails: what could not be said is said the next time; where nobody is left to
// tell, it is done.
func TestFails(t *testing.T) {
	down := errors.New("no answer")
	terminating := apierrors.NewForbidden(eventKind, "", errors.New("going"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for name, tc := range map[string]struct {
		with error
		is   error
		then []string
	}{
		"no answer":          {down, down, []string{"make UnexplainedDualAttach"}},
		"no such namespace":  {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "shop"), nil, nil},
		"namespace is going": {terminating, nil, nil},
		"forbidden":          {apierrors.NewForbidden(eventKind, "", nil), apierrors.NewForbidden(eventKind, "", nil), []string{"make UnexplainedDualAttach"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore()
			x := begin(s, noon)
			x.look(t)
			x.clock.SetTime(noon.Add(limits.Settle))
			s.fails = tc.with
			_, err := x.act(t.Context(), x.volume())
			if (err == nil) != (tc.is == nil) {
				t.Errorf("err = %v", err)
			}
			s.fails = nil
			s.asked()
			x.look(t)
			wantAsked(t, "the next look", s, tc.then...)
		})
	}
}

// TestFirstLookFails: without knowing what was said before, nothing is decided.
func TestFirstLookFails(t *testing.T) {
	s := newStore()
	s.fails = errors.New("no answer")
	x := begin(s, noon)
	if _, err := x.act(t.Context(), x.volume()); !errors.Is(err, s.fails) {
		t.Errorf("err = %v", err)
	}
	if _, looked := x.table.memory("pv-disk"); looked {
		t.Error("that was no look")
	}
}

// TestMigrating: what a migration explains is the other reconciler's.
func TestMigrating(t *testing.T) {
	s := newStore()
	x := begin(s, noon)
	x.nodes = []string{"node-a", "node-b"}
	vm := func(v *gather.Volume) { v.Snapshot.Pods[0].VM, v.Snapshot.Pods[1].VM = "web", "web" }
	x.look(t, vm)
	x.clock.SetTime(noon.Add(time.Hour))
	x.look(t, vm)
	wantAsked(t, "a migration of an hour", s)
}

// TestDivergence: the series are there from zero, and count what stands.
func TestDivergence(t *testing.T) {
	s := newStore()
	x := begin(s, noon)
	published := func(v *gather.Volume) {
		alone(v)
		v.Snapshot.Told = unexplained.Told{ObservedAt: x.clock.Now(), Exported: true,
			Ledger: rds.ParseLedger("rds1 g3 node-a=1760000000 node-b=1760000000")}
	}
	x.look(t, published)
	x.clock.SetTime(noon.Add(time.Minute))
	x.look(t, published)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(x.Collector())
	const want = `
# HELP rds_csi_array_divergence Attachments of RDS volumes that are not as they should be, by what is the matter.
# TYPE rds_csi_array_divergence gauge
rds_csi_array_divergence{kind="exported"} 0
rds_csi_array_divergence{kind="lingering"} 0
rds_csi_array_divergence{kind="node_gone"} 0
rds_csi_array_divergence{kind="not_attached"} 1
rds_csi_array_divergence{kind="not_exported"} 0
rds_csi_array_divergence{kind="not_published"} 0
rds_csi_array_divergence{kind="too_many_nodes"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), report.MetricDivergence); err != nil {
		t.Error(err)
	}
	x.table.forget("pv-disk")
	if n := testutil.CollectAndCount(x.Collector(), report.MetricUnexplained); n != 0 {
		t.Errorf("%d series of a volume that is gone", n)
	}
}

// TestStirred: a new view wakes those about which it tells something, and those that
// wait for any.
func TestStirred(t *testing.T) {
	told := func(comment string) unexplained.Told {
		return unexplained.Told{ObservedAt: noon, Exported: true, Ledger: rds.ParseLedger(comment)}
	}
	const agreed = "rds1 g3 node-a=1760000000"
	for name, tc := range map[string]struct {
		was, is unexplained.Told
		want    int
	}{
		"the same":        {told(agreed), told(agreed), 0},
		"another ledger":  {told(agreed), told("rds1 g4"), 1},
		"no export":       {told(agreed), unexplained.Told{ObservedAt: noon, Ledger: rds.ParseLedger(agreed)}, 1},
		"outage":          {told(agreed), unexplained.Told{}, 1},
		"something waits": {told("rds1 g3 node-b=1760000000"), told("rds1 g3 node-b=1760000000"), 1},
		"lost":            {told(""), told("somebody's"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			x := begin(newStore(), noon)
			x.look(t, alone, func(v *gather.Volume) { v.Snapshot.Told = tc.was })
			got := x.table.stirred(func(handle string) unexplained.Told {
				if handle != "pvc-1" {
					t.Errorf("asked for %s", handle)
				}
				return tc.is
			})
			if len(got) != tc.want {
				t.Errorf("%v", got)
			}
		})
	}
}
