package dualattach

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// ended is a VMI whose migration uid-1 from a to b ran from 10 to 40 s after noon.
func ended(change ...func(*kubevirtv1.VirtualMachineInstance)) *kubevirtv1.VirtualMachineInstance {
	vmi := migration().Instance
	vmi.Status.NodeName = b
	vmi.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{MigrationUID: "uid-1", SourceNode: a, TargetNode: b,
		StartTimestamp: stamp(10), EndTimestamp: stamp(40), Completed: true}
	for _, f := range change {
		f(vmi)
	}
	return vmi
}

func state(change func(*kubevirtv1.VirtualMachineInstanceMigrationState)) func(*kubevirtv1.VirtualMachineInstance) {
	return func(vmi *kubevirtv1.VirtualMachineInstance) { change(vmi.Status.MigrationState) }
}

func sayingLate(stage Stage) func(*kubevirtv1.VirtualMachineInstance) {
	return func(vmi *kubevirtv1.VirtualMachineInstance) {
		storeInstance(vmi, &InstanceCondition{Status: corev1.ConditionTrue, Reason: stage.String()})
	}
}

func notingLate(note string) func(*kubevirtv1.VirtualMachineInstance) {
	return func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.Annotations[TimedOutAnnotation] = note }
}

// TestLost: which migrations without a VMIM are looked into, from what the VMI says.
func TestLost(t *testing.T) {
	succeeded, failed := kubevirtv1.MigrationSucceeded, kubevirtv1.MigrationFailed
	cases := map[string]struct {
		reason     string
		vmi        *kubevirtv1.VirtualMachineInstance
		migrations []*kubevirtv1.VirtualMachineInstanceMigration
		lastRun    time.Time
		want       kubevirtv1.VirtualMachineInstanceMigrationPhase // empty: none
		late       Stage                                           // that was told already
		began      time.Time
	}{
		"ended unseen":             {"The last operator saw it begin.", ended(), nil, at(20), succeeded, 0, time.Time{}},
		"failed unseen":            {"The same for a failure.", ended(state(func(s *kubevirtv1.VirtualMachineInstanceMigrationState) { s.Failed = true })), nil, at(20), failed, 0, time.Time{}},
		"its VMIM is there":        {"That one tells more.", ended(), []*kubevirtv1.VirtualMachineInstanceMigration{migration().Migration}, at(20), "", 0, time.Time{}},
		"ended while one ran":      {"It was reported then.", ended(), nil, at(41), "", 0, time.Time{}},
		"ended in the last moment": {"The second in which the operator stopped was not watched to its end.", ended(), nil, at(40), succeeded, 0, time.Time{}},
		"began unseen as well":     {"It is lost, as the README says.", ended(), nil, at(5), "", 0, time.Time{}},
		"the copy began unseen":    {"Its target was seen to be made.", ended(), nil, at(5), succeeded, 0, at(0)},
		"all of it unseen":         {"The target's pod was made too late.", ended(), nil, at(5), "", 0, at(6)},
		"none ever ran":            {"A first install reports no history.", ended(), nil, time.Time{}, "", 0, time.Time{}},
		"under way":                {"It is not over.", ended(state(func(s *kubevirtv1.VirtualMachineInstanceMigrationState) { s.Completed = false })), nil, at(20), "", 0, time.Time{}},
		"without an end":           {"Nothing tells when.", ended(state(func(s *kubevirtv1.VirtualMachineInstanceMigrationState) { s.EndTimestamp = nil })), nil, at(20), "", 0, time.Time{}},
		"across clusters": {"It shares nothing.", ended(state(func(s *kubevirtv1.VirtualMachineInstanceMigrationState) {
			s.SourceState = &kubevirtv1.VirtualMachineInstanceMigrationSourceState{VirtualMachineInstanceCommonMigrationState: kubevirtv1.VirtualMachineInstanceCommonMigrationState{SyncAddress: ptr.To("x")}}
		})), nil, at(20), "", 0, time.Time{}},
		"VMI gone":                   {"Nothing says so any more.", nil, nil, at(20), "", 0, time.Time{}},
		"VMI final":                  {"Nobody acts on it any more.", ended(func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.Status.Phase = kubevirtv1.Failed }), nil, at(20), "", 0, time.Time{}},
		"its release hangs":          {"However long ago it ended.", ended(sayingLate(ReleasingSource)), nil, at(4000), succeeded, ReleasingSource, time.Time{}},
		"its release hangs, noted":   {"The annotation says it where the condition is not granted.", ended(notingLate("True ReleasingTarget (2026-08-01T12:00:00Z): x")), nil, at(4000), succeeded, ReleasingTarget, time.Time{}},
		"hung before the hand-off":   {"The VMI's word is of another one, or of a stage that is over.", ended(sayingLate(AttachingTarget)), nil, at(4000), "", 0, time.Time{}},
		"hung, then ended unseen":    {"Its timeout was counted.", ended(sayingLate(DualAttached)), nil, at(20), succeeded, DualAttached, time.Time{}},
		"the note corrects the rest": {"A condition that could not be set False.", ended(sayingLate(ReleasingSource), notingLate("False Resolved (2026-08-01T12:00:00Z): x")), nil, at(4000), "", 0, time.Time{}},
		"a note of nobody's":         {"It is no stage.", ended(notingLate("True")), nil, at(4000), "", 0, time.Time{}},
		"no migration":               {"Nothing to say.", migration().Instance, nil, at(20), "", 0, time.Time{}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Lost(tc.vmi, tc.migrations, tc.began, tc.lastRun)
			if (got == nil) != (tc.want == "") {
				t.Fatalf("%s: %+v", tc.reason, got)
			}
			if got == nil {
				return
			}
			if got.Status.Phase != tc.want || TimedOutIn(got) != tc.late || got.UID != "uid-1" || got.Spec.VMIName != "web" || got.Namespace != "shop" {
				t.Errorf("%s: %+v", tc.reason, got)
			}
			if diff := cmp.Diff(tc.vmi.Status.MigrationState, StateOf(got, nil)); diff != "" {
				t.Errorf("its state (-VMI +stand-in):\n%s", diff)
			}
		})
	}
}

// TestDecideLost: an ending that was not seen is reported like any other, and what was
// told before is not told or counted again.
func TestDecideLost(t *testing.T) {
	decide := func(vmi *kubevirtv1.VirtualMachineInstance, lastRun time.Time, now int, on ...string) (Assessment, *kubevirtv1.VirtualMachineInstanceMigration) {
		s := migration().now(now).on(on...).Snapshot
		s.Instance, s.Since, s.Lost, s.VanishedAt = vmi, at(now-1), true, at(now)
		s.Migration = Lost(vmi, nil, time.Time{}, lastRun)
		return Decide(s), s.Migration
	}
	reasons := func(a Assessment) []string {
		var all []string
		for _, e := range a.Events {
			all = append(all, e.Reason)
		}
		slices.Sort(all)
		return all
	}
	cases := map[string]struct {
		reason  string
		vmi     *kubevirtv1.VirtualMachineInstance
		lastRun time.Time
		now     int
		on      []string
		stage   Stage
		result  Result
		counted bool
		events  []string
	}{
		"completed":           {"The source let go meanwhile.", ended(), at(20), 100, []string{b}, Completed, Success, false, []string{EventCompleted}},
		"rolled back":         {"The target did.", ended(state(func(s *kubevirtv1.VirtualMachineInstanceMigrationState) { s.Failed = true })), at(20), 100, []string{a}, RolledBack, Failed, false, []string{EventFailed}},
		"cancelled":           {"Somebody had asked for that.", ended(state(func(s *kubevirtv1.VirtualMachineInstanceMigrationState) { s.Failed, s.AbortRequested = true, true })), at(20), 100, []string{a}, RolledBack, Aborted, false, []string{EventFailed}},
		"releasing":           {"It is watched to its end.", ended(), at(20), 100, []string{a, b}, ReleasingSource, "", false, nil},
		"hanging since":       {"The deadline passes now.", ended(), at(20), 1000, []string{a, b}, ReleasingSource, Timeout, false, []string{EventFailed, EventTimedOut}},
		"hanging still":       {"It was told before the restart.", ended(sayingLate(ReleasingSource)), at(900), 1000, []string{a, b}, ReleasingSource, Timeout, true, nil},
		"hung, released":      {"It is over after all.", ended(sayingLate(ReleasingSource)), at(900), 1000, []string{b}, Completed, Timeout, true, []string{EventCompleted}},
		"none of our volumes": {"It is not ours to report.", ended(), at(20), 100, nil, NotInvolved, "", false, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, m := decide(tc.vmi, tc.lastRun, tc.now, tc.on...)
			if tc.on == nil {
				s := migration().now(tc.now).volumes().Snapshot
				s.Instance, s.Since, s.Lost, s.VanishedAt, s.Migration = tc.vmi, at(tc.now-1), true, at(tc.now), m
				got = Decide(s)
			}
			if got.Stage != tc.stage || got.Result != tc.result || got.Reported || Counted(m) != tc.counted {
				t.Errorf("%s: stage %s, result %q, reported %t, counted before %t", tc.reason, got.Stage, got.Result, got.Reported, Counted(m))
			}
			if diff := cmp.Diff(tc.events, reasons(got)); diff != "" {
				t.Errorf("%s: events (-want +got):\n%s", tc.reason, diff)
			}
			if name == "hanging still" && DecideInstance(tc.vmi, []Assessment{got}) != nil {
				t.Error("the VMI is told something else while it hangs")
			}
		})
	}
}
