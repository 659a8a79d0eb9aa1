package vmireport

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

var midday = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

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

func timedOutIn(stage string) vmicondition.Condition {
	return vmicondition.Condition{Type: vmicondition.StorageMigrationTimedOut, Status: corev1.ConditionTrue, Reason: stage}
}

var resolvedNow = vmicondition.Condition{Type: vmicondition.StorageMigrationTimedOut, Status: corev1.ConditionFalse, Reason: "Resolved"}

func speaking(w *instances) (*Speaker, *testclock.FakePassiveClock, *kubevirtv1.VirtualMachineInstance) {
	c := testclock.NewFakePassiveClock(midday)
	vmi := &kubevirtv1.VirtualMachineInstance{}
	vmi.Namespace, vmi.Name, vmi.UID, vmi.ResourceVersion = "shop", "web", "vmi", "7"
	return NewSpeaker(w, c), c, vmi
}

// TestSay: what each result of a write means for the next look.
func TestSay(t *testing.T) {
	down := errors.New("no answer")
	cases := map[string]struct {
		reason  string
		writer  instances
		held    bool
		again   time.Duration
		err     error
		counted vmicondition.Result
	}{
		"stored":    {"Said and counted; the rest waits until it is seen.", instances{result: vmicondition.Stored}, true, staleRetry, nil, vmicondition.Stored},
		"unneeded":  {"Nothing was written, nothing is counted.", instances{}, false, 0, nil, ""},
		"forbidden": {"No failure; the grant is waited for.", instances{result: vmicondition.Forbidden}, false, 0, nil, vmicondition.Forbidden},
		"reverted":  {"No failure either; KubeVirt may be set right.", instances{result: vmicondition.Reverted}, false, refusedRetry, nil, vmicondition.Reverted},
		"stale":     {"Decide anew.", instances{err: fmt.Errorf("x: %w", jsonpatch.ErrStale)}, true, staleRetry, nil, ""},
		"gone":      {"Nothing is left to write on.", instances{err: apierrors.NewNotFound(schema.GroupResource{}, "web")}, false, 0, nil, ""},
		"no answer": {"That is a failure.", instances{err: down}, false, 0, down, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s, _, vmi := speaking(&tc.writer)
			held, again, err := s.Say(t.Context(), vmi, timedOutIn("DualAttached"))
			if held != tc.held {
				t.Errorf("%s: held %v, want %v", tc.reason, held, tc.held)
			}
			if !errors.Is(err, tc.err) {
				t.Errorf("%s: %v", tc.reason, err)
			}
			want := time.Time{}
			if tc.again > 0 {
				want = midday.Add(tc.again)
			}
			if !again.Equal(want) {
				t.Errorf("%s: again at %s, want %s", tc.reason, again, want)
			}
			for _, result := range vmicondition.Results() {
				want := 0.0
				if result == tc.counted {
					want = 1
				}
				if got := testutil.ToFloat64(s.writes.WithLabelValues(string(result))); got != want {
					t.Errorf("%s: counted %v as %s", tc.reason, got, result)
				}
			}
			if diff := cmp.Diff([]string{"web StorageMigrationTimedOut=True/DualAttached"}, tc.writer.log); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSayOnce: what is forbidden is not asked for again until it may be granted, what
// was reverted not before its time, nor a stored condition while the cache is behind;
// another one is written at once.
func TestSayOnce(t *testing.T) {
	w := &instances{result: vmicondition.Forbidden}
	s, clock, vmi := speaking(w)
	key := types.NamespacedName{Namespace: "shop", Name: "web"}
	step := func(what string, writes int, c vmicondition.Condition) {
		t.Helper()
		if _, _, err := s.Say(t.Context(), vmi, c); err != nil {
			t.Fatal(err)
		}
		if len(w.log) != writes {
			t.Errorf("%s: %d writes, want %d: %v", what, len(w.log), writes, w.log)
		}
	}
	forbidden := func(of vmicondition.Type, want int) {
		t.Helper()
		if got := s.Forbidden(of); len(got) != want || (want > 0 && got[0] != key) {
			t.Errorf("%v may not say %s", got, of)
		}
	}
	step("forbidden", 1, timedOutIn("DualAttached"))
	vmi.ResourceVersion = "8"
	clock.SetTime(midday.Add(2 * refusedRetry))
	step("still forbidden", 1, timedOutIn("DualAttached"))
	w.result = vmicondition.Reverted
	step("another stage, reverted", 2, timedOutIn("ReleasingSource"))
	forbidden(vmicondition.StorageMigrationTimedOut, 0)
	clock.SetTime(midday.Add(3*refusedRetry - time.Second))
	step("too soon", 2, timedOutIn("ReleasingSource"))
	w.result = vmicondition.Forbidden
	clock.SetTime(midday.Add(3 * refusedRetry))
	step("tried again, forbidden", 3, timedOutIn("ReleasingSource"))
	forbidden(vmicondition.StorageDualAttachUnexplained, 0)
	forbidden(vmicondition.StorageMigrationTimedOut, 1)
	w.result = vmicondition.Stored
	step("granted meanwhile", 4, timedOutIn("ReleasingSource"))
	step("the cache is behind", 4, timedOutIn("ReleasingSource"))
	other := timedOutIn("ReleasingSource")
	other.Type = vmicondition.StorageDualAttachUnexplained
	step("another condition", 5, other)
	step("which does not hide the first", 5, timedOutIn("ReleasingSource"))
	vmi.ResourceVersion = "9"
	step("somebody took it away", 6, timedOutIn("ReleasingSource"))
	vmi.UID = "another"
	step("another VMI of the name", 7, timedOutIn("ReleasingSource"))
	w.result = vmicondition.Forbidden
	vmi.ResourceVersion = "10"
	step("revoked", 8, timedOutIn("ReleasingSource"))
	w.result = Unneeded
	step("over, the note is to go", 8, resolvedNow)
	clock.SetTime(midday.Add(3*refusedRetry + quiet))
	step("over, the note goes", 9, resolvedNow)
	w.result = vmicondition.Forbidden
	step("the next migration, late in the same stage", 10, timedOutIn("ReleasingSource"))
	s.Forget(key, vmicondition.StorageMigrationTimedOut)
	s.Forget(key, vmicondition.StorageDualAttachUnexplained)
	if len(s.said) != 0 {
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
			s, clock, vmi := speaking(&w)
			for _, step := range []struct {
				after time.Duration
				held  bool
			}{{0, true}, {maxHold / 2, true}, {maxHold, false}, {2 * maxHold, false}} {
				clock.SetTime(midday.Add(step.after))
				if held, _, err := s.Say(t.Context(), vmi, timedOutIn("DualAttached")); held != step.held || err != nil {
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
			s, clock, vmi := speaking(w)
			for _, step := range steps {
				clock.SetTime(midday.Add(step.after))
				vmi.ResourceVersion = step.version
				held, next, err := s.Say(t.Context(), vmi, resolvedNow)
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
