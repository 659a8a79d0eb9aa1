package migration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	testclock "k8s.io/utils/clock/testing"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// instances is an InstanceWriter that answers as told.
type instances struct {
	log    []string
	result vmicondition.Result
	err    error
}

func (w *instances) Write(_ context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (vmicondition.Result, error) {
	w.log = append(w.log, fmt.Sprintf("%s %s=%s/%s", vmi.Name, c.Type, c.Status, c.Reason))
	return w.result, w.err
}

func late(stage dualattach.Stage) []dualattach.Assessment {
	return []dualattach.Assessment{{Stage: stage, Conditions: []dualattach.Condition{timedOut(corev1.ConditionTrue, stage.String())}}}
}

func speaking(w *instances) (*Reconciler, *testclock.FakePassiveClock, *gather.Instance) {
	c := testclock.NewFakePassiveClock(noon)
	in := &gather.Instance{Key: web, VMI: &kubevirtv1.VirtualMachineInstance{}}
	in.VMI.Name, in.VMI.UID, in.VMI.ResourceVersion = web.Name, "vmi", "7"
	return New(nil, nil, w, dualattach.DefaultLimits, c, nil, nil), c, in
}

// TestSpeak: what each result of a write means for the next look.
func TestSpeak(t *testing.T) {
	down := errors.New("no answer")
	cases := map[string]struct {
		reason string
		writer instances
		held   bool
		again  time.Duration
		err    error
		counts []string
	}{
		"stored":    {"Said and counted; the rest waits until it is seen.", instances{result: vmicondition.Stored}, true, staleRetry, nil, []string{"rds_csi_vmi_condition_writes_total{stored} 1"}},
		"unneeded":  {"Nothing was written, nothing is counted.", instances{}, false, 0, nil, nil},
		"forbidden": {"No failure; the grant is waited for.", instances{result: vmicondition.Forbidden}, false, 0, nil, []string{"rds_csi_vmi_condition_writes_total{forbidden} 1"}},
		"reverted":  {"No failure either; KubeVirt may be set right.", instances{result: vmicondition.Reverted}, false, refusedRetry, nil, []string{"rds_csi_vmi_condition_writes_total{reverted} 1"}},
		"stale":     {"Decide anew.", instances{err: fmt.Errorf("x: %w", jsonpatch.ErrStale)}, true, staleRetry, nil, nil},
		"gone":      {"Nothing is left to write on.", instances{err: apierrors.NewNotFound(schema.GroupResource{}, "web")}, false, 0, nil, nil},
		"no answer": {"That is a failure.", instances{err: down}, false, 0, down, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r, _, in := speaking(&tc.writer)
			held, again, err := r.speak(t.Context(), in, late(dualattach.DualAttached))
			if held != tc.held {
				t.Errorf("%s: held %v, want %v", tc.reason, held, tc.held)
			}
			if !errors.Is(err, tc.err) {
				t.Errorf("%s: %v", tc.reason, err)
			}
			want := time.Time{}
			if tc.again > 0 {
				want = noon.Add(tc.again)
			}
			if !again.Equal(want) {
				t.Errorf("%s: again at %s, want %s", tc.reason, again, want)
			}
			if diff := cmp.Diff(tc.counts, counts(t, r.metrics)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff([]string{"web StorageMigrationTimedOut=True/DualAttached"}, tc.writer.log); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSpeakOnce: what is forbidden is not asked for again until it may be granted, what
// was reverted not before its time, nor a stored condition while the cache is behind;
// another one is written at once.
func TestSpeakOnce(t *testing.T) {
	w := &instances{result: vmicondition.Forbidden}
	r, clock, in := speaking(w)
	step := func(what string, writes int, assessments []dualattach.Assessment) {
		t.Helper()
		if _, _, err := r.speak(t.Context(), in, assessments); err != nil {
			t.Fatal(err)
		}
		if len(w.log) != writes {
			t.Errorf("%s: %d writes, want %d: %v", what, len(w.log), writes, w.log)
		}
	}
	step("nothing to say", 0, nil)
	step("forbidden", 1, late(dualattach.DualAttached))
	in.VMI.ResourceVersion = "8"
	clock.SetTime(noon.Add(2 * refusedRetry))
	step("still forbidden", 1, late(dualattach.DualAttached))
	w.result = vmicondition.Reverted
	step("another stage, reverted", 2, late(dualattach.ReleasingSource))
	if got := r.instancesForbidden(t.Context(), nil); len(got) != 0 {
		t.Errorf("%v may not say what they should", got)
	}
	clock.SetTime(noon.Add(3*refusedRetry - time.Second))
	step("too soon", 2, late(dualattach.ReleasingSource))
	w.result = vmicondition.Forbidden
	clock.SetTime(noon.Add(3 * refusedRetry))
	step("tried again, forbidden", 3, late(dualattach.ReleasingSource))
	if got := r.instancesForbidden(t.Context(), nil); len(got) != 1 || got[0].NamespacedName != web {
		t.Errorf("%v may not say what they should, want %s", got, web)
	}
	w.result = vmicondition.Stored
	step("granted meanwhile", 4, late(dualattach.ReleasingSource))
	step("the cache is behind", 4, late(dualattach.ReleasingSource))
	in.VMI.ResourceVersion = "9"
	step("somebody took it away", 5, late(dualattach.ReleasingSource))
	in.VMI.UID = "another"
	step("another VMI of the name", 6, late(dualattach.ReleasingSource))
	w.result = vmicondition.Forbidden
	in.VMI.ResourceVersion = "10"
	step("revoked", 7, late(dualattach.ReleasingSource))
	in.VMI.Annotations = map[string]string{dualattach.TimedOutAnnotation: "x"}
	w.result = ""
	step("over, the note is to go", 7, nil)
	clock.SetTime(noon.Add(3*refusedRetry + quiet))
	step("over, the note goes", 8, nil)
	in.VMI.Annotations = nil
	w.result = vmicondition.Forbidden
	step("the next migration, late in the same stage", 9, late(dualattach.ReleasingSource))
	in.VMI = nil
	step("gone", 9, late(dualattach.ReleasingSource))
	if len(r.table.said) != 0 {
		t.Error("a VMI that is gone is still known")
	}
}

// TestHold: the rest waits for the VMI, but not for ever.
func TestHold(t *testing.T) {
	for name, w := range map[string]instances{
		"stored, and never seen": {result: vmicondition.Stored},
		"stale again and again":  {err: jsonpatch.ErrStale},
	} {
		t.Run(name, func(t *testing.T) {
			r, clock, in := speaking(&w)
			for _, step := range []struct {
				after time.Duration
				held  bool
			}{{0, true}, {maxHold / 2, true}, {maxHold, false}, {2 * maxHold, false}} {
				clock.SetTime(noon.Add(step.after))
				if held, _, err := r.speak(t.Context(), in, late(dualattach.DualAttached)); held != step.held || err != nil {
					t.Errorf("after %s: held %v, want %v; error %v", step.after, held, step.held, err)
				}
			}
		})
	}
}

// TestQuiet: good news wait until the VMI has been left alone for a while, but not for
// ever; nothing else waits for them.
func TestQuiet(t *testing.T) {
	for name, steps := range map[string][]struct {
		after   time.Duration
		version string
		writes  int
	}{
		"left alone":                    {{0, "7", 0}, {quiet - 1, "7", 0}, {quiet, "7", 1}},
		"written by KubeVirt meanwhile": {{0, "7", 0}, {quiet / 2, "8", 0}, {quiet, "8", 0}, {quiet * 3 / 2, "8", 1}},
		"written all the time":          {{0, "7", 0}, {maxQuiet - 1, "8", 0}, {maxQuiet, "9", 1}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &instances{result: vmicondition.Stored}
			r, clock, in := speaking(w)
			in.VMI.Status.Conditions = []kubevirtv1.VirtualMachineInstanceCondition{{Type: dualattach.ConditionInstanceTimedOut, Status: corev1.ConditionTrue}}
			for _, step := range steps {
				clock.SetTime(noon.Add(step.after))
				in.VMI.ResourceVersion = step.version
				held, next, err := r.speak(t.Context(), in, nil)
				if held || err != nil || !next.After(clock.Now()) {
					t.Errorf("after %s: held %v, next at %s, error %v", step.after, held, next, err)
				}
				if len(w.log) != step.writes {
					t.Errorf("after %s: written %v, want %d writes", step.after, w.log, step.writes)
				}
			}
		})
	}
}

// TestSameName: the decision and the writer speak of the same condition.
func TestSameName(t *testing.T) {
	if got := vmicondition.StorageMigrationTimedOut.String(); got != string(dualattach.ConditionInstanceTimedOut) {
		t.Errorf("the writer writes %s", got)
	}
}

// TestSooner: zero is never.
func TestSooner(t *testing.T) {
	one, two, never := noon, noon.Add(1), time.Time{}
	for _, x := range [][3]time.Time{{one, two, one}, {two, one, one}, {one, never, one}, {never, one, one}, {never, never, never}} {
		if got := sooner(x[0], x[1]); !got.Equal(x[2]) {
			t.Errorf("sooner(%s, %s) = %s", x[0], x[1], got)
		}
	}
}
