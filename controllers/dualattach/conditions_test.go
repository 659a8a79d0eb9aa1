package dualattach

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

const (
	yes     = corev1.ConditionTrue
	no      = corev1.ConditionFalse
	unknown = corev1.ConditionUnknown
)

// TestConditions: what a VMIM shows, for every stage, in time and late.
func TestConditions(t *testing.T) {
	inTime := mark{no, ReasonWithinDeadline}
	attaching := func() *builder { return migration() }
	dual := func() *builder { return migration().on(a, b).handedOff(40).annotate("100") }
	source := func() *builder { return migration().on(a, b).handedOff(40).succeeded(100) }
	target := func() *builder { return migration().on(a, b).failed(100) }
	cases := map[string]struct {
		reason string
		args   *builder
		stage  Stage
		want   marks
	}{
		"attaching": {
			args: attaching(), stage: AttachingTarget,
			want: marks{mark{no, ReasonAwaitingTarget}, mark{unknown, "AttachingTarget"}, inTime},
		},
		"attaching, late": {
			args: attaching().now(960), stage: AttachingTarget,
			want: marks{mark{no, ReasonAwaitingTarget}, mark{unknown, "AttachingTarget"}, mark{yes, "AttachingTarget"}},
		},
		"dual": {
			args: dual(), stage: DualAttached,
			want: marks{mark{yes, ReasonLiveMigration}, mark{unknown, "DualAttached"}, inTime},
		},
		"dual, late": {
			args: dual().now(105), stage: DualAttached,
			want: marks{mark{yes, ReasonLiveMigration}, mark{unknown, "DualAttached"}, mark{yes, "DualAttached"}},
		},
		"dual, after a late attachment": {
			reason: "A passed deadline stays until the end, with the stage that was late.",
			args:   attaching().decided(960).on(a, b).handedOff(960), stage: DualAttached,
			want: marks{mark{yes, ReasonLiveMigration}, mark{unknown, "DualAttached"}, mark{yes, "AttachingTarget"}},
		},
		"dual, both late": {
			reason: "The latest stage that was late gives the reason.",
			args:   attaching().decided(960).on(a, b).annotate("60").now(1100), stage: DualAttached,
			want: marks{mark{yes, ReasonLiveMigration}, mark{unknown, "DualAttached"}, mark{yes, "DualAttached"}},
		},
		"releasing the source": {
			args: source().now(110), stage: ReleasingSource,
			want: marks{mark{yes, "ReleasingSource"}, mark{unknown, "ReleasingSource"}, inTime},
		},
		"releasing the source, late": {
			args: source().now(280), stage: ReleasingSource,
			want: marks{mark{yes, "ReleasingSource"}, mark{unknown, "ReleasingSource"}, mark{yes, "ReleasingSource"}},
		},
		"the source let go, VMIM not final": {
			reason: "One node holds the volumes, yet KubeVirt has not said how it ended.",
			args:   migration().on(b).handedOff(40), stage: ReleasingSource,
			want: marks{mark{no, ReasonSourceReleased}, mark{unknown, "ReleasingSource"}, inTime},
		},
		"releasing the target": {
			args: target().now(110), stage: ReleasingTarget,
			want: marks{mark{yes, "ReleasingTarget"}, mark{unknown, "ReleasingTarget"}, inTime},
		},
		"releasing the target, late": {
			args: target().now(280), stage: ReleasingTarget,
			want: marks{mark{yes, "ReleasingTarget"}, mark{unknown, "ReleasingTarget"}, mark{yes, "ReleasingTarget"}},
		},
		"the source let go of a failed migration": {
			reason: "Only the wrong node holds it: not dual-attached, and not well either.",
			args:   migration().on(b).failed(100), stage: ReleasingTarget,
			want: marks{mark{no, ReasonSourceReleased}, mark{unknown, "ReleasingTarget"}, inTime},
		},
		"completed": {
			args: source().on(b).now(130), stage: Completed,
			want: marks{mark{no, ReasonSourceReleased}, mark{yes, "Completed"}, inTime},
		},
		"completed, late": {
			args: source().decided(280).on(b).now(300), stage: Completed,
			want: marks{mark{no, ReasonSourceReleased}, mark{yes, "Completed"}, mark{no, ReasonResolved}},
		},
		"rolled back": {
			args: target().on(a).now(130), stage: RolledBack,
			want: marks{mark{no, ReasonTargetReleased}, mark{no, "RolledBack"}, inTime},
		},
		"rolled back, late": {
			args: target().decided(280).on(a).now(300), stage: RolledBack,
			want: marks{mark{no, ReasonTargetReleased}, mark{no, "RolledBack"}, mark{no, ReasonResolved}},
		},
		"cancelled": {
			args: target().cancelled().on(a).now(130), stage: RolledBack,
			want: marks{mark{no, ReasonTargetReleased}, mark{no, ReasonAborted}, inTime},
		},
		"cancelled, late": {
			args: target().cancelled().decided(280).on(a).now(300), stage: RolledBack,
			want: marks{mark{no, ReasonTargetReleased}, mark{no, ReasonAborted}, mark{no, ReasonResolved}},
		},
		"detached after a success": {
			args: source().on().now(130), stage: Detached,
			want: marks{mark{no, "Detached"}, mark{yes, "Detached"}, inTime},
		},
		"detached after a failure": {
			args: target().on().now(130), stage: Detached,
			want: marks{mark{no, "Detached"}, mark{no, "Detached"}, inTime},
		},
		"detached after a cancellation": {
			args: target().cancelled().on().now(130), stage: Detached,
			want: marks{mark{no, "Detached"}, mark{no, ReasonAborted}, inTime},
		},
		"detached with its VMI": {
			args: migration().decided(5).on().gone().now(130), stage: Detached,
			want: marks{mark{no, "Detached"}, mark{no, "Detached"}, inTime},
		},
		"detached, late": {
			args: target().decided(280).on().now(300), stage: Detached,
			want: marks{mark{no, "Detached"}, mark{no, "Detached"}, mark{no, ReasonResolved}},
		},
		"superseded after a success": {
			args: source().successor(a).now(130), stage: Superseded,
			want: marks{mark{no, "Superseded"}, mark{no, "Superseded"}, inTime},
		},
		"superseded after a failure": {
			args: target().successor(b).now(130), stage: Superseded,
			want: marks{mark{no, "Superseded"}, mark{no, "Superseded"}, inTime},
		},
		"superseded, late": {
			args: target().decided(280).successor(b).now(300), stage: Superseded,
			want: marks{mark{no, "Superseded"}, mark{no, "Superseded"}, mark{no, ReasonResolved}},
		},
	}
	seen := map[Stage]bool{}
	for name, tc := range cases {
		seen[tc.stage] = true
		t.Run(name, func(t *testing.T) {
			got := Decide(tc.args.Snapshot)
			if got.Stage != tc.stage {
				t.Fatalf("the stage is %s, the case is about %s", got.Stage, tc.stage)
			}
			if diff := cmp.Diff(tc.want, marksOf(got.Conditions)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			for _, x := range got.Conditions {
				if !strings.HasPrefix(x.Message, "RDS shared volume ") || !strings.Contains(x.Message, "claim disk") {
					t.Errorf("%s does not begin as ours, or does not name the claim: %s", x.Type, x.Message)
				}
			}
		})
	}
	for stage := AttachingTarget; stage <= Superseded; stage++ {
		if !seen[stage] {
			t.Errorf("no case about %s", stage)
		}
	}
}

// TestMessages: what a person needs is in the text, whatever its words.
func TestMessages(t *testing.T) {
	const cancel = "kubectl -n shop delete vmim web-1"
	cases := map[string]struct {
		reason string
		args   *builder
		kind   kubevirtv1.VirtualMachineInstanceMigrationConditionType
		want   []string
		never  []string
	}{
		"late attaching": {
			reason: "Claims in order, both nodes, elapsed, allowed, whose limit, what to look at, how to cancel.",
			args:   migration().volumes(volume("disk", a), volume("data", a)).annotate("600").now(700),
			kind:   ConditionTimedOut,
			want:   []string{"claims data, disk", a, b, "11m40s", "10m0s", TimeoutAnnotation, "describe pod launcher-b", "get volumeattachment", cancel},
		},
		"late attaching, nothing known of the target any more": {
			args: migration().do(func(s *Snapshot) { s.Target.Node, s.Target.Pod = "", "" }).now(960),
			kind: ConditionTimedOut,
			want: []string{"not known yet", "<unknown>", "KubeVirt's 15m0s", cancel},
		},
		"late dual": {
			args: migration().volumes(volume("disk", a, b).limit(60)).handedOff(40).now(70),
			kind: ConditionTimedOut,
			want: []string{"claim disk", a, b, "1m5s", "1m0s", "migrationTimeoutSeconds", "describe vmi web", cancel},
		},
		"late release of the source": {
			reason: "There is nothing left to cancel.",
			args:   migration().on(a, b).succeeded(100).notReady(a).now(520),
			kind:   ConditionTimedOut,
			want:   []string{"claim disk", a + " (source) has not released", "7m0s", "--release-deadline-not-ready", "describe node " + a, "NodeNotReady"},
			never:  []string{"delete"},
		},
		"released, and not ended": {
			reason: "No node is to blame: KubeVirt knows why.",
			args:   migration().on(b).handedOff(40).now(600),
			kind:   ConditionTimedOut,
			want:   []string{"KubeVirt has not ended the migration", "describe vmim web-1", "virt-controller's log"},
			never:  []string{"describe node"},
		},
		"late release of the target": {
			args:  migration().on(a, b).failed(100).now(280),
			kind:  ConditionTimedOut,
			want:  []string{"claim disk", b + " (target) has not released", "3m0s", "--release-deadline", "describe node " + b},
			never: []string{"delete"},
		},
		"late before, in time now": {
			args:  migration().decided(960).on(a, b).handedOff(960),
			kind:  ConditionTimedOut,
			want:  []string{"AttachingTarget had passed", "attached on both nodes"},
			never: []string{cancel},
		},
		"in time": {
			args: migration(), kind: ConditionTimedOut,
			want: []string{"2026-08-01T12:16:00Z", "16m0s", "KubeVirt's"},
		},
		"no deadline": {
			args: migration().do(func(s *Snapshot) { s.Target = Side{} }), kind: ConditionTimedOut,
			want: []string{"no deadline"}, never: []string{"until", "0001"},
		},
		"resolved": {
			args: migration().on(a, b).failed(100).decided(280).on(a).now(300), kind: ConditionTimedOut,
			want: []string{"claim disk", "over after 5m0s"},
		},
		"attaching": {
			args: migration(), kind: ConditionDualAttached, want: []string{a + " (source)", b + " (target)"},
		},
		"dual": {
			args: migration().on(a, b), kind: ConditionDualAttached, want: []string{"claim disk", a, b, "allowed until"},
		},
		"problems": {
			reason: "Faults stand beside the fact that they concern.",
			args:   migration().volumes(volume("disk", a).fails(b, "no path to the array")), kind: ConditionDualAttached,
			want: []string{"AttachError", "no path to the array"},
		},
		"superseded": {
			args: migration().on(a, b).failed(100).successor(b), kind: ConditionDualAttached, want: []string{"newer migration or start", b},
		},
		"under way, target unknown": {
			args: migration().do(func(s *Snapshot) { s.Target = Side{} }), kind: ConditionMigrated,
			want: []string{a, "a node not known yet", "attaching"},
		},
		"completed": {
			args: migration().on(b).succeeded(100).now(130), kind: ConditionMigrated, want: []string{"from " + a + " to " + b, "2m10s"},
		},
		"failed": {
			reason: "KubeVirt's own reason is handed on.",
			args: migration().on(a).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) {
				st.FailureReason = "target pod is down"
			}).failed(100).now(130),
			kind: ConditionMigrated, want: []string{a, b, "2m10s", "target pod is down"},
		},
		"cancelled": {
			args: migration().on(a).failed(100).cancelled().now(130), kind: ConditionMigrated, want: []string{"cancelled", "2m10s"},
		},
		"superseded, how it ended": {
			args: migration().on(a, b).succeeded(100).successor(a), kind: ConditionMigrated, want: []string{"newer migration or start"},
		},
		"detached, how it ended": {
			args: migration().on().succeeded(100), kind: ConditionMigrated, want: []string{"nothing is attached"},
		},
		"never a target pod": {
			reason: "It lasted since the VMIM was made.",
			args:   migration().do(func(s *Snapshot) { s.Target = Side{} }).failed(20).now(25), kind: ConditionMigrated, want: []string{"30s"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			text := messageOf(Decide(tc.args.Snapshot).Conditions, tc.kind)
			for _, want := range tc.want {
				if !strings.Contains(text, want) {
					t.Errorf("%s: %q is missing in: %s", tc.reason, want, text)
				}
			}
			for _, never := range tc.never {
				if strings.Contains(text, never) {
					t.Errorf("%s: %q has no place in: %s", tc.reason, never, text)
				}
			}
		})
	}
}

// TestOrphanMessage: claims that are gone cannot be named.
func TestOrphanMessage(t *testing.T) {
	x := migration().decided(10).volumes().failed(100).now(110)
	if text := messageOf(Decide(x.Snapshot).Conditions, ConditionMigrated); !strings.Contains(text, "claims that are gone") {
		t.Errorf("message: %s", text)
	}
}

// TestDuration is never negative, whatever the clocks say.
func TestDuration(t *testing.T) {
	x := migration().now(-30)
	if got := x.Duration(); got != 0 {
		t.Errorf("Duration before the start = %s", got)
	}
	if text := messageOf(Decide(migration().on(b).succeeded(0).now(0).Snapshot).Conditions, ConditionMigrated); strings.Contains(text, "after") {
		t.Errorf("nothing lasts 0 s: %s", text)
	}
	if got := x.now(90).Duration(); got != 90*time.Second {
		t.Errorf("Duration = %s", got)
	}
}

// TestStuckClaims: of several volumes, those that a stage waits for are named, in the
// warning and in what is said at the deadline.
func TestStuckClaims(t *testing.T) {
	// "disk" goes as it should, "data" does not.
	attaching := func() *builder { return migration().volumes(volume("disk", a, b), volume("data", a)) }
	source := func() *builder {
		return migration().volumes(volume("disk", b), volume("data", a, b)).handedOff(40).succeeded(100)
	}
	target := func() *builder { return migration().volumes(volume("disk", a), volume("data", a, b)).failed(100) }
	cases := map[string]struct {
		args          *builder
		delayed, late int
		want          string
		waits         string
	}{
		"one does not attach":         {attaching(), 800, 960, "node-b (target) has not got claim data attached", "(claim data)"},
		"the source keeps one":        {source(), 250, 280, "node-a (source) has not released claim data", "(claim data)"},
		"the target keeps one":        {target(), 250, 280, "node-b (target) has not released claim data", "(claim data)"},
		"none attaches":               {migration(), 800, 960, "node-b (target) has not got it attached", "attaching on the target for"},
		"the source gone too soon":    {migration().on(b).handedOff(40), 500, 550, "KubeVirt has not ended the migration", "releasing it for"},
		"dual, for want of any other": {migration().on(a, b), 800, 960, "attached on node-a (source) and node-b (target)", "both nodes for"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, e := range Decide(tc.args.now(tc.delayed).Snapshot).Events {
				if e.Reason == EventDelayed && !strings.Contains(e.Message, tc.waits) {
					t.Errorf("%q is missing in: %s", tc.waits, e.Message)
				}
			}
			if text := messageOf(Decide(tc.args.now(tc.late).Snapshot).Conditions, ConditionTimedOut); !strings.Contains(text, tc.want) {
				t.Errorf("%q is missing in: %s", tc.want, text)
			}
		})
	}
}
