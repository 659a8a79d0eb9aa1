package dualattach

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// ends is what a table says of an assessment.
type ends struct {
	Stage    Stage
	Result   Result
	Reported bool
}

func endsOf(x *builder) ends {
	got := Decide(x.Snapshot)
	return ends{got.Stage, got.Result, got.Reported}
}

// TestResult: one per migration, at the first deadline passed or at the end.
func TestResult(t *testing.T) {
	cases := map[string]struct {
		reason string
		args   *builder
		want   ends
	}{
		"under way": {"Nothing has ended.",
			migration(), ends{AttachingTarget, "", false}},
		"not accepted yet": {"A VMIM without a phase is KubeVirt's alone for now.",
			func() *builder { x := migration(); x.Migration.Status.Phase = kubevirtv1.MigrationPhaseUnset; return x }(), ends{Undecided, "", false}},
		"overdue": {"A passed deadline is the result, though the end is not known.",
			migration().now(960), ends{AttachingTarget, Timeout, false}},
		"overdue before, in time now": {"It stays the result.",
			migration().decided(960).on(a, b).handedOff(960).now(970), ends{DualAttached, Timeout, false}},
		"completed": {"The guest moved and the source let go.",
			migration().on(b).succeeded(100), ends{Completed, Success, false}},
		"completed late": {"Even then the timeout was first.",
			migration().on(a, b).succeeded(100).decided(280).on(b).now(300), ends{Completed, Timeout, false}},
		"the target left": {"Which attachment left decides: this is no success.",
			migration().on(a).failed(100), ends{RolledBack, Failed, false}},
		"cancelled": {"KubeVirt marks the VMIM.",
			migration().on(a).failed(100).cancelled(), ends{RolledBack, Aborted, false}},
		"cancelled during the copy": {"KubeVirt marks the VMI's migration state.",
			migration().on(a).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) { st.AbortRequested = true }).failed(100),
			ends{RolledBack, Aborted, false}},
		"another migration was cancelled": {"The mark on the state of another UID is not about this one.",
			migration().on(a).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) {
				st.AbortRequested, st.MigrationUID = true, otherMigration
			}).failed(100), ends{RolledBack, Failed, false}},
		"VMIM vanished": {"Deleting a VMIM is how a migration is cancelled.",
			migration().on(a).vanished(100), ends{RolledBack, Aborted, false}},
		"VMIM vanished after it failed": {"It failed by itself; then it was cleared away.",
			migration().on(a).failed(100).vanished(110), ends{RolledBack, Failed, false}},
		"VMIM vanished after it succeeded": {"The success stays.",
			migration().on(b).succeeded(100).vanished(110), ends{Completed, Success, false}},
		"VMIM vanished, success on the VMI only": {"The VMI's state still names it.",
			migration().on(b).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) { st.Completed = true }).vanished(110),
			ends{Completed, Success, false}},
		"VMIM vanished, failure on the VMI only": {"The same for a failure: it went by its deletion.",
			migration().on(a).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) { st.Completed, st.Failed = true, true }).vanished(110),
			ends{RolledBack, Aborted, false}},
		"VMI gone": {"Nothing is attached any more, and nobody asked for it.",
			migration().on().gone(), ends{Detached, Failed, false}},
		"VMI final, still attached": {"What is attached is not over.",
			migration().on(a).do(func(s *Snapshot) { s.Instance.Status.Phase = kubevirtv1.Failed }), ends{AttachingTarget, "", false}},
		"everything left after a success": {"The guest had moved.",
			migration().on().succeeded(100), ends{Detached, Success, false}},
		"everything left after a cancellation": {"It had not moved.",
			migration().on().failed(100).cancelled(), ends{Detached, Aborted, false}},
		"superseded after a success": {"The guest had moved.",
			migration().on(a, b).succeeded(100).successor(a), ends{Superseded, Success, false}},
		"superseded after a failure": {"It had not.",
			migration().on(a, b).failed(100).successor(b), ends{Superseded, Failed, false}},
		"superseded by the VM, started anew": {"Its VMI is gone, and what is attached is another's.",
			migration().on(b).failed(100).gone().successor(b), ends{Superseded, Failed, false}},
		"a newer migration elsewhere": {"Only one to the node that is to let go supersedes.",
			migration().on(a, b).failed(100).successor(c), ends{ReleasingTarget, "", false}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, endsOf(tc.args)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if tc.want.Stage.Final() {
				tc.args.decided(400)
				want := tc.want
				want.Reported = true
				if diff := cmp.Diff(want, endsOf(tc.args.now(4000))); diff != "" {
					t.Errorf("read back from the conditions (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestLate: a deadline is told once, also where its clock runs on in the next stage.
func TestLate(t *testing.T) {
	limited := func() *builder { return migration().on(a, b).handedOff(40).annotate("100").decided(10) }
	for name, tc := range map[string]struct {
		reason string
		args   *builder
		late   Stage
		told   []string // events now
	}{
		"in time":               {"Nothing has passed.", limited().now(50), Undecided, nil},
		"dual":                  {"The first time.", limited().now(120), DualAttached, []string{EventFailed, EventTimedOut}},
		"dual, told":            {"It is on the VMIM.", limited().decided(120).now(130), DualAttached, nil},
		"then the source left":  {"KubeVirt sees that in a moment: no news.", limited().decided(120).on(b).now(130), DualAttached, nil},
		"the source left first": {"Then it is KubeVirt that is late.", limited().on(b).now(130), ReleasingSource, []string{EventFailed, EventTimedOut}},
		"and it is seen to end": {"The release has a clock of its own.", limited().decided(120).on(a, b).succeeded(130).now(400), ReleasingSource, []string{EventFailed, EventTimedOut}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Decide(tc.args.Snapshot)
			var told []string
			for _, e := range got.Events {
				if e.Reason != EventStarted {
					told = append(told, e.Reason)
				}
			}
			if got.Late != tc.late || !slices.Equal(told, tc.told) {
				t.Errorf("%s late in %s, told %q", tc.reason, got.Late, told)
			}
			if want := (mark{corev1.ConditionTrue, tc.late.String()}); tc.late != Undecided && marksOf(got.Conditions).TimedOut != want {
				t.Errorf("%s the condition says %v", tc.reason, marksOf(got.Conditions).TimedOut)
			}
		})
	}
}

// TestReported: what is on the VMIM is over, and says nothing more.
func TestReported(t *testing.T) {
	x := migration().on(b).succeeded(100)
	if Reported(x.Migration) || Started(x.Migration) || Counted(x.Migration) {
		t.Error("nothing was written yet")
	}
	x.decided(110)
	if !Reported(x.Migration) || !Started(x.Migration) || !Counted(x.Migration) {
		t.Error("the ending was written")
	}
	want := Assessment{Stage: Completed, Result: Success, Reported: true}
	if diff := cmp.Diff(want, Decide(x.on(a, b).now(5000).Snapshot)); diff != "" {
		t.Errorf("after the ending (-want +got):\n%s", diff)
	}
}

// TestMemory: what the conditions tell a restarted operator.
func TestMemory(t *testing.T) {
	x := migration().decided(10)
	if Reported(x.Migration) || !Started(x.Migration) || Counted(x.Migration) || TimedOutIn(x.Migration) != Undecided {
		t.Errorf("under way: %+v", readRecord(x.Migration))
	}
	x.decided(960)
	if Reported(x.Migration) || !Counted(x.Migration) || TimedOutIn(x.Migration) != AttachingTarget {
		t.Errorf("overdue: %+v", readRecord(x.Migration))
	}
	x.on(a).failed(970).decided(980)
	if !Reported(x.Migration) || !Counted(x.Migration) || TimedOutIn(x.Migration) != Undecided {
		t.Errorf("resolved: %+v", readRecord(x.Migration))
	}
}

// TestHistory: what was over when we began to watch, and bears no mark of ours, is
// left alone.
func TestHistory(t *testing.T) {
	since := func(n int) func(*Snapshot) { return func(s *Snapshot) { s.Since = at(n) } }
	nothing := ends{Undecided, "", true}
	cases := map[string]struct {
		reason string
		args   *builder
		want   ends
	}{
		"over before": {"Nothing is written, announced or counted.",
			migration().on(b).succeeded(100).do(since(101)), nothing},
		"failed before, still attached": {"The same, whatever is left.",
			migration().on(a, b).failed(100).do(since(101)), nothing},
		"over before, with our mark": {"What was begun is ended.",
			migration().on(a, b).decided(50).on(b).succeeded(100).do(since(101)), ends{Completed, Success, false}},
		"over since": {"It ended before our first look at it, but we were there.",
			migration().on(b).succeeded(100).do(since(99)), ends{Completed, Success, false}},
		"under way before": {"An operator that starts in between takes it over.",
			migration().on(a, b).do(since(101)), ends{DualAttached, "", false}},
		"vanished": {"It vanished under our eyes.",
			migration().on(a).vanished(120).do(since(101)), ends{RolledBack, Aborted, false}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, endsOf(tc.args)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			got := Decide(tc.args.Snapshot)
			if tc.want == nothing && (got.Conditions != nil || got.Events != nil) {
				t.Errorf("%s: %+v", tc.reason, got)
			}
		})
	}
}

// TestNotInvolved: what does not share volumes of ours is none of our business.
func TestNotInvolved(t *testing.T) {
	cases := map[string]struct {
		reason string
		args   *builder
		want   Stage
	}{
		"no shared volume": {"Nothing of ours moves.", migration().volumes(), NotInvolved},
		"source unknown":   {"The VMI does not run anywhere yet.", migration().do(func(s *Snapshot) { s.Source = Side{} }), NotInvolved},
		"decentralized, sending": {"Another cluster gets a copy.",
			migration().do(func(s *Snapshot) { s.Migration.Spec.SendTo = &kubevirtv1.VirtualMachineInstanceMigrationSource{} }), NotInvolved},
		"decentralized, receiving": {"The same on the other side.",
			migration().do(func(s *Snapshot) { s.Migration.Spec.Receive = &kubevirtv1.VirtualMachineInstanceMigrationTarget{} }), NotInvolved},
		"volume migration": {"Blocks are copied to other claims.",
			migration().do(func(s *Snapshot) { s.Migration.Labels = map[string]string{kubevirtv1.VolumesUpdateMigration: "web"} }), NotInvolved},
		"volumes migrate": {"The VMI tells so after the hand-off.",
			migration().handedOff(40).do(migratesVolumes), NotInvolved},
		"volumes migrated last time": {"Before the hand-off that is about the previous migration.",
			migration().do(migratesVolumes), AttachingTarget},
		"volumes migrate next time": {"What a VMI is to migrate is not about a migration that is over.",
			migration().on(a, b).handedOff(40).succeeded(100).do(migratesVolumes), ReleasingSource},
		"volumes were migrated": {"Of one that was seen to copy blocks, the VMI says nothing when it is over.",
			migration().on(b).succeeded(100).do(func(s *Snapshot) { s.Copied = true }), NotInvolved},
		"shared": {"The usual case.", migration(), AttachingTarget},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Decide(tc.args.Snapshot)
			if got.Stage != tc.want {
				t.Errorf("%s: the stage is %s, want %s", tc.reason, got.Stage, tc.want)
			}
			if tc.want == NotInvolved && !cmp.Equal(got, Assessment{Stage: NotInvolved}) {
				t.Errorf("%s: nothing is to be said, got %+v", tc.reason, got)
			}
		})
	}
}

// TestWithdrawn: what turns out late to copy blocks is taken back, once and for all,
// without a result and without an event.
func TestWithdrawn(t *testing.T) {
	withdrawn := mark{corev1.ConditionFalse, "NotInvolved"}
	cases := map[string]struct {
		reason  string
		args    *builder
		result  Result
		timeout string
	}{
		"attaching": {"The hand-off tells.",
			migration().decided(10).handedOff(40), "", ReasonWithinDeadline},
		"dual": {"The same with both attached.",
			migration().on(a, b).decided(10).handedOff(40), "", ReasonWithinDeadline},
		"late already": {"A passed deadline was counted, and is resolved.",
			migration().on(a, b).annotate("60").decided(100).handedOff(110), Timeout, ReasonResolved},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Decide(tc.args.do(migratesVolumes).Snapshot)
			if got.Stage != NotInvolved || got.Result != tc.result || got.Events != nil || got.Deadline.Set() || !got.NextAt.IsZero() {
				t.Errorf("%s: %+v", tc.reason, got)
			}
			want := marks{withdrawn, withdrawn, mark{corev1.ConditionFalse, tc.timeout}}
			if diff := cmp.Diff(want, marksOf(got.Conditions)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			store(&tc.args.Snapshot, got.Conditions)
			for what, x := range map[string]*builder{"at once": tc.args, "when it is over": tc.args.do(func(s *Snapshot) { s.Instance.Status.MigratedVolumes = nil }).succeeded(200)} {
				if again := Decide(x.Snapshot); !cmp.Equal(again, Assessment{Stage: NotInvolved, Result: tc.result, Reported: true}) {
					t.Errorf("%s, decided again %s: %+v", tc.reason, what, again)
				}
			}
		})
	}
}

func migratesVolumes(s *Snapshot) {
	s.Instance.Status.MigratedVolumes = []kubevirtv1.StorageMigratedVolumeInfo{{VolumeName: "disk"}}
}

// TestOrphan: volumes that go out of sight, with their pods and claims, do not
// leave a migration under way for ever.
func TestOrphan(t *testing.T) {
	cases := map[string]struct {
		reason string
		args   *builder
		want   ends
	}{
		"attaching": {"Under way it stays where it was.",
			migration().decided(10).volumes(), ends{AttachingTarget, "", false}},
		"dual": {"The clock goes on from the condition.",
			migration().on(a, b).annotate("60").decided(30).volumes().now(90), ends{DualAttached, Timeout, false}},
		"ended": {"Nothing is left to watch.",
			migration().on(a, b).decided(30).volumes().succeeded(100), ends{Detached, Success, false}},
		"vanished": {"The same.",
			migration().on(a, b).decided(30).volumes().vanished(100), ends{Detached, Aborted, false}},
		"never seen": {"Without a mark of ours there is nothing to end.",
			migration().volumes().failed(100), ends{NotInvolved, "", false}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, endsOf(tc.args)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestDecideChangesNothing: it is a function of the snapshot, and leaves it alone.
func TestDecideChangesNothing(t *testing.T) {
	build := func() *builder {
		return migration().volumes(volume("z", a, b, c).published(20), volume("y", b, a)).handedOff(40).cancelled().decided(50).now(5000)
	}
	x := build()
	first := Decide(x.Snapshot)
	if diff := cmp.Diff(build().Snapshot, x.Snapshot); diff != "" {
		t.Errorf("the snapshot changed (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(first, Decide(x.Snapshot)); diff != "" {
		t.Errorf("the second answer is another one (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"y", "z"}, first.DualAttachedClaims); diff != "" {
		t.Errorf("DualAttachedClaims (-want +got):\n%s", diff)
	}
}

// TestResultsAndLimits are what flags and metrics begin with.
func TestResultsAndLimits(t *testing.T) {
	if diff := cmp.Diff([]Result{Success, Failed, Aborted, Timeout}, Results()); diff != "" {
		t.Errorf("Results() (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Limits{Unbounded: 3600 * time.Second, Release: 180 * time.Second, ReleaseNotReady: 420 * time.Second}, DefaultLimits()); diff != "" {
		t.Errorf("DefaultLimits() (-want +got):\n%s", diff)
	}
}

// TestForeignConditions: KubeVirt's own conditions are not taken for ours.
func TestForeignConditions(t *testing.T) {
	x := migration().do(func(s *Snapshot) {
		s.Migration.Status.Conditions = []kubevirtv1.VirtualMachineInstanceMigrationCondition{
			{Type: "migrationRejectedByResourceQuota", Status: corev1.ConditionTrue, Reason: "Completed"}}
	})
	if got := readRecord(x.Migration); got != (record{}) {
		t.Errorf("readRecord = %+v", got)
	}
}
