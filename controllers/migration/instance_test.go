package migration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// speaker keeps what VMIs were made to say, or that they were forgotten.
type speaker struct {
	log []string
	err error
}

func (s *speaker) Say(_ context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (bool, time.Time, error) {
	s.log = append(s.log, fmt.Sprintf("%s %s=%s/%s: %s", vmi.Name, c.Type, c.Status, c.Reason, c.Message))
	return true, noon, s.err
}

func (s *speaker) Forbidden(of vmicondition.Type) []types.NamespacedName {
	s.log = append(s.log, "forbidden "+of.String())
	return []types.NamespacedName{web}
}

func (s *speaker) Forget(vmi types.NamespacedName, of vmicondition.Type) {
	s.log = append(s.log, "forget "+vmi.Name+" "+of.String())
}

func late(stage dualattach.Stage) []dualattach.Assessment {
	c := timedOut(corev1.ConditionTrue, stage.String())
	c.Message = "late"
	return []dualattach.Assessment{{Stage: stage, Conditions: []dualattach.Condition{c}}}
}

// TestSpeak: what was decided about a VMI is said, and one that is gone is forgotten.
func TestSpeak(t *testing.T) {
	s := &speaker{}
	r := New(nil, nil, s, dualattach.DefaultLimits, nil, nil, nil)
	in := &gather.Instance{Key: web, VMI: &kubevirtv1.VirtualMachineInstance{}}
	in.VMI.Name = web.Name
	step := func(what string, assessments []dualattach.Assessment, want ...string) {
		t.Helper()
		s.log = nil
		held, again, err := r.speak(t.Context(), in, assessments)
		if said := s.log != nil && in.VMI != nil; !errors.Is(err, s.err) || held != said || again.Equal(noon) != said {
			t.Errorf("%s: held %t, again at %s, err = %v", what, held, again, err)
		}
		if diff := cmp.Diff(want, s.log); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	step("nothing to say", nil)
	step("late", late(dualattach.DualAttached), "web StorageMigrationTimedOut=True/DualAttached: late")
	s.err = errors.New("no answer")
	step("no answer", late(dualattach.DualAttached), "web StorageMigrationTimedOut=True/DualAttached: late")
	s.err, in.VMI = nil, nil
	step("gone", late(dualattach.DualAttached), "forget web StorageMigrationTimedOut")
	s.log = nil
	if got := r.instancesForbidden(t.Context(), nil); len(got) != 1 || got[0].NamespacedName != web || s.log[0] != "forbidden StorageMigrationTimedOut" {
		t.Errorf("%v may not say what they should (%v)", got, s.log)
	}
}

// TestSaysItsOwn: a VMI says nothing of migrations of the one that had its name before.
func TestSaysItsOwn(t *testing.T) {
	late := late(dualattach.ReleasingTarget)[0]
	former := verdict{nil, &dualattach.Snapshot{}, late}
	own := verdict{nil, &dualattach.Snapshot{Instance: &kubevirtv1.VirtualMachineInstance{}}, late}
	if got := (verdicts{former, own}).assessments(); len(got) != 1 {
		t.Errorf("%d of two, want its own", len(got))
	}
}

// TestKeepsWhose: whose a migration is, as once seen, stays known.
func TestKeepsWhose(t *testing.T) {
	r := New(&gather.Gatherer{}, nil, nil, nil, testclock.NewFakePassiveClock(noon), nil, nil)
	in := shows(vmim("a", "5", 0))
	in.VMI = &kubevirtv1.VirtualMachineInstance{}
	in.VMI.UID = "uid-vmi"
	e := r.table.track(in, time.Time{}, noon)[0]
	for _, uid := range []types.UID{"uid-vmi", "uid-anew"} {
		in.VMI.UID = uid
		s, err := r.snapshot(t.Context(), in, e)
		if err != nil || (s.Instance != nil) != (uid == "uid-vmi") {
			t.Errorf("%s is the migration's: %t, %v", uid, s.Instance != nil, err)
		}
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
