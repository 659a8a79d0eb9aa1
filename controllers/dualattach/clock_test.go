package dualattach

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// TestClockStart tells when each stage's clock starts, as seconds from the target
// pod's creation; nil for no clock.
func TestClockStart(t *testing.T) {
	seconds := func(n int) *int { return &n }
	seenAt := func(n int, status corev1.ConditionStatus) func(*Snapshot) {
		return func(s *Snapshot) {
			s.Migration.Status.Conditions = append(s.Migration.Status.Conditions, kubevirtv1.VirtualMachineInstanceMigrationCondition{
				Type: ConditionDualAttached, Status: status, LastTransitionTime: *stamp(n)})
		}
	}
	cases := map[string]struct {
		reason string
		args   *builder
		stage  Stage
		want   *int
	}{
		"attaching": {
			reason: "The target pod's creation.",
			args:   migration(), stage: AttachingTarget, want: seconds(0),
		},
		"attaching, target unknown": {
			reason: "Without a target pod nothing is late yet.",
			args:   migration().do(func(s *Snapshot) { s.Target = Side{} }), stage: AttachingTarget, want: nil,
		},
		"dual: the array's time": {
			reason: "The array knows best when it was told, also after a restart.",
			args:   migration().volumes(volume("disk", a, b).published(20)).do(seenAt(30, corev1.ConditionTrue)),
			stage:  DualAttached, want: seconds(20),
		},
		"dual: the array's last time": {
			reason: "The stage begins with the last of several volumes.",
			args:   migration().volumes(volume("x", a, b).published(20), volume("y", a, b).published(25), volume("z", a, b).published(22)),
			stage:  DualAttached, want: seconds(25),
		},
		"dual: the array knows one volume of two": {
			reason: "A ledger that is unknown never counts for another one.",
			args:   migration().volumes(volume("x", a, b).published(20), volume("y", a, b)).do(seenAt(30, corev1.ConditionTrue)),
			stage:  DualAttached, want: seconds(30),
		},
		"dual: first seen": {
			reason: "Else the condition keeps when we saw it first.",
			args:   migration().on(a, b).do(seenAt(30, corev1.ConditionTrue)),
			stage:  DualAttached, want: seconds(30),
		},
		"dual: first seen elsewhere": {
			reason: "A condition that is False remembers no dual attachment.",
			args:   migration().on(a, b).do(seenAt(30, corev1.ConditionFalse)),
			stage:  DualAttached, want: seconds(5),
		},
		"dual: the target's attachment": {
			reason: "Else the creation of the target's attachment, never of the older source's.",
			args:   migration().on(a, b), stage: DualAttached, want: seconds(5),
		},
		"dual: a re-used attachment": {
			reason: "A migrated back soon: the old attachment, from hours ago, starts no clock.",
			args: migration().on(a, b).do(func(s *Snapshot) {
				s.Volumes[0].Attachments[1].Created = at(-72 * 3600)
			}),
			stage: DualAttached, want: seconds(0),
		},
		"dual: an old publication": {
			reason: "The same for the array's time.",
			args:   migration().volumes(volume("disk", a, b).published(-72 * 3600)), stage: DualAttached, want: seconds(0),
		},
		"releasing the source": {
			reason: "The VMIM's own time of success.",
			args:   migration().on(a, b).handedOff(40).succeeded(100), stage: ReleasingSource, want: seconds(100),
		},
		"releasing the target": {
			reason: "The VMIM's own time of failure.",
			args:   migration().on(a, b).failed(100), stage: ReleasingTarget, want: seconds(100),
		},
		"releasing the target, VMIM vanished": {
			reason: "When it was found to be gone.",
			args:   migration().on(a, b).vanished(120), stage: ReleasingTarget, want: seconds(120),
		},
		"releasing the target, VMIM vanished during the copy": {
			reason: "The VMI still tells when the copy ended.",
			args: migration().on(a, b).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) {
				st.EndTimestamp, st.Completed, st.Failed = stamp(110), true, true
			}).vanished(120),
			stage: ReleasingTarget, want: seconds(110),
		},
		"releasing the source, VMIM vanished": {
			reason: "A success that only the VMI still tells of.",
			args: migration().on(a, b).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) {
				st.EndTimestamp, st.Completed = stamp(110), true
			}).vanished(120),
			stage: ReleasingSource, want: seconds(110),
		},
		"releasing, no time but the deletion": {
			reason: "A VMIM without any other time is being deleted since then.",
			args: migration().on(a, b).do(func(s *Snapshot) {
				s.Migration.Status.Phase = kubevirtv1.MigrationFailed
				s.Migration.DeletionTimestamp = stamp(130)
			}),
			stage: ReleasingTarget, want: seconds(130),
		},
		"releasing, no time at all": {
			reason: "Better no clock than a wrong one.",
			args:   migration().on(a, b).do(func(s *Snapshot) { s.Migration.Status.Phase = kubevirtv1.MigrationFailed }),
			stage:  ReleasingTarget, want: nil,
		},
		"completed": {
			reason: "What is over has no clock.",
			args:   migration().on(b).succeeded(100), stage: Completed, want: nil,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := StageOf(tc.args.facts()); got != tc.stage {
				t.Fatalf("%s: the stage is %s, the case is about %s", tc.reason, got, tc.stage)
			}
			var got *int
			if start := tc.args.clockStart(tc.stage); !start.IsZero() {
				got = seconds(int(start.Sub(noon) / time.Second))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if tc.stage.Final() && tc.args.deadline(tc.stage).Set() {
				t.Errorf("%s has a deadline", tc.stage)
			}
		})
	}
}

// TestDualAttachedSinceIsStable: with an unknown ledger the clock starts where the
// condition first said so and stays there.
func TestDualAttachedSinceIsStable(t *testing.T) {
	x := migration().on(a, b).annotate("60").decided(30)
	for _, now := range []int{31, 60, 89, 90, 500} {
		got := Decide(x.now(now).Snapshot)
		if want := at(90); !got.Deadline.At.Equal(want) || got.Overdue() != (now >= 90) {
			t.Errorf("%d s: deadline %s, overdue %t; want %s", now, got.Deadline.At, got.Overdue(), want)
		}
		x.decided(now)
	}
	x.volumes(volume("disk", a, b)).do(func(s *Snapshot) { s.Volumes[0].Ledger = rds.Ledger{Problem: "stale"} })
	if got := Decide(x.now(600).Snapshot).Deadline.Start; !got.Equal(at(30)) {
		t.Errorf("a stale view moved the clock to %s", got)
	}
}

// TestNextAt: the requeue is the exact moment at which time alone changes the answer.
func TestNextAt(t *testing.T) {
	limit := Deadline{Start: at(0), At: at(100)}
	cases := map[string]struct {
		d    Deadline
		now  int
		want time.Time
	}{
		"no deadline":         {Deadline{}, 10, time.Time{}},
		"before the warning":  {limit, 10, at(80)},
		"at the warning":      {limit, 80, at(100)},
		"after the warning":   {limit, 99, at(100)},
		"at the deadline":     {limit, 100, time.Time{}},
		"after the deadline":  {limit, 101, time.Time{}},
		"nothing was allowed": {Deadline{Start: at(50), At: at(50)}, 10, at(50)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := nextAt(tc.d, at(tc.now)); !got.Equal(tc.want) {
				t.Errorf("nextAt = %s, want %s", got, tc.want)
			}
		})
	}
}
