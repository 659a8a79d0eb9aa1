package handler

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

func TestCourseValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		course Course
		ok     bool
	}{
		"success":             {Succeed(), true},
		"failure":             {FailingAt(Switch), true},
		"failing to complete": {FailingAt(Complete), false},
		"hang in post-copy":   {Course{PostCopy: true, HoldAt: GoPostCopy}, true},
		"hang that never is":  {HoldingAt(GoPostCopy), false},
	} {
		if err := tc.course.Validate(); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTakingLeavesTheOriginal(t *testing.T) {
	slow := Succeed().Taking(Switch, time.Second)
	slower := slow.Taking(Switch, time.Minute)
	if slow.Takes[Switch] != time.Second || slower.Takes[Switch] != time.Minute {
		t.Errorf("%v, %v", slow.Takes, slower.Takes)
	}
}

// Every state that KubeVirt leaves to the handlers has its step.
func TestStepsInTheirOrder(t *testing.T) {
	now := metav1.Now()
	state := &kubevirtv1.VirtualMachineInstanceMigrationState{}
	post := Course{PostCopy: true}
	for _, s := range []struct {
		want   Step
		change func()
	}{
		{Prepare, func() {}},
		{Start, func() { state.TargetNodeAddress = "address" }},
		{GoPostCopy, func() { state.StartTimestamp = &now; state.Mode = kubevirtv1.MigrationPreCopy }},
		{Switch, func() { state.Mode = kubevirtv1.MigrationPostCopy }},
		{Complete, func() { state.EndTimestamp = &now }},
	} {
		s.change()
		if got := (move{state: state}).step(post); got != s.want {
			t.Errorf("step %s, want %s", got, s.want)
		}
	}
}

func TestGateHoldsUntilReleased(t *testing.T) {
	h := New(nil, nil)
	vmi := types.NamespacedName{Namespace: "ns", Name: "vm"}
	if err := h.SetCourse(vmi, HoldingAt(Start).Taking(Prepare, time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, open, wait := h.gate("uid", vmi, Prepare); open || wait <= 0 {
		t.Errorf("a step that takes an hour: open %v, wait %s", open, wait)
	}
	if _, open, wait := h.gate("uid", vmi, Start); open || wait != 0 {
		t.Errorf("held: open %v, wait %s", open, wait)
	}
	if at := h.At("uid"); at != Start {
		t.Errorf("at %s", at)
	}
	h.Release(vmi)
	if _, open, _ := h.gate("uid", vmi, Start); !open {
		t.Error("released, but not open")
	}
}
