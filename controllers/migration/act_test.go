package migration

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	testclock "k8s.io/utils/clock/testing"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
)

// recorder is a Writer that keeps what was written, in order. Any call but a
// creation and a patch of a status panics: the operator makes no other.
type recorder struct {
	client.Writer
	log         []string
	conditions  []dualattach.Condition // what a status patch is to store
	eventError  error
	statusError error
}

func (r *recorder) Status() client.SubResourceWriter { return &statusRecorder{recorder: r} }

type statusRecorder struct {
	client.SubResourceWriter
	recorder *recorder
}

// Create implements client.Writer: events.
func (r *recorder) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	e := o.(*corev1.Event)
	r.log = append(r.log, "event "+e.Reason+" on "+e.InvolvedObject.Kind+" "+e.InvolvedObject.Name)
	return r.eventError
}

// Patch implements client.SubResourceWriter: the VMIM's status.
func (w *statusRecorder) Patch(_ context.Context, o client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
	r := w.recorder
	r.log = append(r.log, "status of "+o.GetName())
	if r.statusError != nil {
		return r.statusError
	}
	m := o.(*kubevirtv1.VirtualMachineInstanceMigration)
	*m = *report.Remembered(m, r.conditions, noon)
	m.ResourceVersion = "6"
	return nil
}

// acting is a reconciler in the middle of a migration that passes its deadline.
type acting struct {
	*Reconciler
	writer *recorder
	in     *gather.Instance
	e      *entry
	s      *dualattach.Snapshot
	a      dualattach.Assessment
}

func passing(t *testing.T) *acting {
	t.Helper()
	w := &recorder{conditions: []dualattach.Condition{
		migrated(corev1.ConditionUnknown, "DualAttached"), timedOut(corev1.ConditionTrue, "DualAttached")}}
	x := &acting{writer: w, Reconciler: New(nil, w, nil, dualattach.DefaultLimits, testclock.NewFakePassiveClock(noon), nil, nil)}
	x.in = shows(vmim("a", "5", 0))
	x.in.VMI = &kubevirtv1.VirtualMachineInstance{}
	x.in.VMI.Name = web.Name
	x.e = x.table.track(x.in, time.Time{}, noon)[0]
	x.e.known.Claims = []gather.Claim{{Name: "disk", PV: "pv-disk"}}
	x.s = &dualattach.Snapshot{Now: noon, Migration: x.e.known.Migration, Instance: x.in.VMI}
	x.a = assessed(dualattach.DualAttached, dualattach.Timeout, true)
	x.a.Conditions = w.conditions
	x.a.Events = []dualattach.Event{
		{Type: corev1.EventTypeWarning, Reason: dualattach.EventFailed, Claim: "disk", Step: "DualAttached"},
		{Type: corev1.EventTypeWarning, Reason: dualattach.EventTimedOut, Step: "DualAttached"},
		{Type: corev1.EventTypeWarning, Reason: dualattach.EventFailed, Claim: "gone", Step: "DualAttached"},
	}
	return x
}

func (x *acting) act(t *testing.T) error {
	return x.Reconciler.act(t.Context(), x.in, x.e, x.s, x.a)
}

// wrote checks all that was written, in order.
func (x *acting) wrote(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, x.writer.log); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
}

// counted checks all counters that are not zero.
func (x *acting) counted(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, counts(t, x.metrics)); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

var spoken = []string{"event MigrationFailed on PersistentVolumeClaim disk", "event StorageMigrationTimedOut on VirtualMachineInstance web"}

// TestActOrder: events, then the conditions, which commit them, then the counters.
func TestActOrder(t *testing.T) {
	x := passing(t)
	if err := x.act(t); err != nil {
		t.Fatal(err)
	}
	x.wrote(t, append(spoken, "status of a")...)
	x.counted(t, "migrations_total{timeout} 1", "timeouts_total{DualAttached} 1")
	if x.e.known.Migration.ResourceVersion != "6" {
		t.Error("the stored version is not what is known now")
	}

	x.writer.log, x.s.Migration = nil, x.e.known.Migration
	if err := x.act(t); err != nil || x.writer.log != nil {
		t.Errorf("the second time: %v, %v", x.writer.log, err)
	}
}

// TestActFails: what fails is not passed over, and nothing behind it happens.
func TestActFails(t *testing.T) {
	down := errors.New("no answer")
	cases := map[string]struct {
		reason  string
		prepare func(*recorder)
		log     []string
		is      error
	}{
		"event": {"Without the event no condition: it would never be made.",
			func(w *recorder) { w.eventError = down }, spoken[:1], down},
		"status": {"Without the condition no count: it would be counted twice.",
			func(w *recorder) { w.statusError = down }, append(spoken, "status of a"), down},
		"status is stale": {"Decide anew.",
			func(w *recorder) { w.statusError = apierrors.NewConflict(schema.GroupResource{}, "a", nil) }, append(spoken, "status of a"), jsonpatch.ErrStale},
		"status of a VMIM that is gone": {"Decide anew, knowing that.",
			func(w *recorder) { w.statusError = apierrors.NewNotFound(schema.GroupResource{}, "a") }, append(spoken, "status of a"), jsonpatch.ErrStale},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x := passing(t)
			tc.prepare(x.writer)
			if err := x.act(t); !errors.Is(err, tc.is) {
				t.Errorf("%s: %v", tc.reason, err)
			}
			if diff := cmp.Diff(tc.log, x.writer.log); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if got := counts(t, x.metrics); got != nil {
				t.Errorf("%s: counted %v", tc.reason, got)
			}
			if gone := strings.HasSuffix(name, "gone"); gone == x.e.known.VanishedAt.IsZero() {
				t.Errorf("vanished at %s", x.e.known.VanishedAt)
			}
		})
	}
}

// TestActOnVanished: nothing can be written on a VMIM that is gone; what was decided
// is remembered instead, and the object as gathered stays as it was.
func TestActOnVanished(t *testing.T) {
	x := passing(t)
	x.e.known.VanishedAt, x.s.VanishedAt = noon, noon
	if err := x.act(t); err != nil {
		t.Fatal(err)
	}
	x.wrote(t, spoken...)
	if !dualattach.Counted(x.e.known.Migration) || dualattach.Counted(x.s.Migration) {
		t.Error("the entry must remember the deadline, and nobody else")
	}
}

// TestActWithheld: where the VMIM must not be written yet, all else is said and counted.
func TestActWithheld(t *testing.T) {
	x := passing(t)
	x.a.Withheld = true
	if err := x.act(t); err != nil {
		t.Fatal(err)
	}
	x.wrote(t, spoken...)
	x.counted(t, "migrations_total{timeout} 1", "timeouts_total{DualAttached} 1")
	x.writer.log, x.a.Withheld = nil, false
	if err := x.act(t); err != nil {
		t.Fatal(err)
	}
	x.wrote(t, "status of a")
	x.counted(t, "migrations_total{timeout} 1", "timeouts_total{DualAttached} 1")
}

// TestActEndWithheld: an end that must not be written yet is told, and counted when it is
// written: a process that dies in between counts nothing twice.
func TestActEndWithheld(t *testing.T) {
	x := passing(t)
	x.a = assessed(dualattach.Detached, dualattach.Failed, false)
	x.a.Withheld, x.a.Conditions = true, x.writer.conditions
	x.a.Events = []dualattach.Event{{Type: corev1.EventTypeWarning, Reason: dualattach.EventFailed, Claim: "disk"}}
	for range 2 {
		if err := x.act(t); err != nil {
			t.Fatal(err)
		}
	}
	x.wrote(t, spoken[:1]...)
	x.counted(t)
	if len(x.table.entries) != 1 {
		t.Error("it is not watched any more")
	}
	x.writer.log, x.a.Withheld = nil, false
	if err := x.act(t); err != nil {
		t.Fatal(err)
	}
	x.wrote(t, "status of a")
	x.counted(t, "duration_seconds 1", "migrations_total{failed} 1")
	if len(x.table.entries) != 0 {
		t.Error("it is still watched")
	}
}

// TestActForgets: what is over needs no entry and no gauge.
func TestActForgets(t *testing.T) {
	final := func(s *dualattach.Snapshot) { s.Migration.Status.Phase = kubevirtv1.MigrationFailed }
	for name, tc := range map[string]struct {
		a       dualattach.Assessment
		prepare func(*dualattach.Snapshot)
		kept    bool
	}{
		"under way":              {assessed(dualattach.DualAttached, "", false), nil, true},
		"over":                   {assessed(dualattach.Completed, dualattach.Success, false), nil, false},
		"reported":               {dualattach.Assessment{Stage: dualattach.Completed, Reported: true}, nil, false},
		"not involved yet":       {dualattach.Assessment{Stage: dualattach.NotInvolved}, nil, true},
		"over, withheld":         {dualattach.Assessment{Stage: dualattach.Completed, Withheld: true}, nil, true},
		"not involved, final":    {dualattach.Assessment{Stage: dualattach.NotInvolved}, final, false},
		"not involved, vanished": {dualattach.Assessment{Stage: dualattach.NotInvolved}, func(s *dualattach.Snapshot) { s.VanishedAt = noon }, false},
	} {
		t.Run(name, func(t *testing.T) {
			x := passing(t)
			x.a = tc.a
			if tc.prepare != nil {
				tc.prepare(x.s)
			}
			if err := x.act(t); err != nil {
				t.Fatal(err)
			}
			if kept := len(x.table.entries) == 1; kept != tc.kept {
				t.Errorf("kept: %t", kept)
			}
		})
	}
}

// TestNoInstance: an event about a VMI that is gone is not made, and none about one
// that came after it under its name.
func TestNoInstance(t *testing.T) {
	x := passing(t)
	x.s.Instance = nil
	if err := x.act(t); err != nil {
		t.Fatal(err)
	}
	x.wrote(t, spoken[0], "status of a")
}

// TestNamespaceGone: a migration whose namespace was deleted ends like any other, though
// nobody can be told: it is counted, and forgotten.
func TestNamespaceGone(t *testing.T) {
	x := passing(t)
	x.writer.eventError = apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, web.Namespace)
	x.e.known.VanishedAt, x.s.VanishedAt, x.s.Instance = noon, noon, nil
	x.a = assessed(dualattach.Detached, dualattach.Failed, false)
	x.a.Events = []dualattach.Event{{Type: corev1.EventTypeWarning, Reason: dualattach.EventFailed, Claim: "disk"}}
	if err := x.act(t); err != nil {
		t.Fatal(err)
	}
	x.counted(t, "duration_seconds 1", "migrations_total{failed} 1")
	if len(x.table.entries) != 0 {
		t.Error("it is still watched")
	}
}
