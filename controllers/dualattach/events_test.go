package dualattach

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// eventsOf spells events as "Type Reason/step on claim", in the order of the list.
func eventsOf(x *builder) []string {
	var out []string
	for _, e := range Decide(x.Snapshot).Events {
		text := e.Type + " " + e.Reason
		if e.Step != "" {
			text += "/" + e.Step
		}
		if e.Claim != "" {
			text += " on " + e.Claim
		}
		out = append(out, text)
	}
	return out
}

// TestEvents: what a claim and its VMI hear, and when.
func TestEvents(t *testing.T) {
	started := "Normal MigrationStarted on disk"
	cases := map[string]struct {
		reason string
		args   *builder
		want   []string
	}{
		"target unknown": {"Nothing to tell before there is a node.",
			migration().do(func(s *Snapshot) { s.Target = Side{} }), nil},
		"target known": {"It begins.",
			migration(), []string{started}},
		"target known since the first write": {"The node may come after the first decision; the name keeps it single.",
			migration().do(func(s *Snapshot) { s.Target.Node = "" }).decided(5).do(func(s *Snapshot) { s.Target.Node = b }), []string{started}},
		"dual at first sight": {"It began while nobody looked.",
			migration().on(a, b), []string{started}},
		"dual, written": {"The condition commits that it was told.",
			migration().on(a, b).decided(20), nil},
		"every claim": {"Each claim has its own.",
			migration().volumes(volume("disk", a), volume("data", a)), []string{started, "Normal MigrationStarted on data"}},
		"just before 80 %": {"Not yet.",
			migration().on(a, b).decided(20).annotate("100").now(99), nil},
		"80 %": {"It takes long.",
			migration().on(a, b).decided(20).annotate("100").now(100), []string{"Warning MigrationDelayed/DualAttached on disk"}},
		"the deadline": {"It takes too long; the VMI hears of it as well.",
			migration().on(a, b).decided(20).annotate("100").now(120),
			[]string{"Warning MigrationFailed/DualAttached on disk", "Warning StorageMigrationTimedOut/DualAttached"}},
		"after the deadline": {"Said once: the condition commits it.",
			migration().on(a, b).decided(20).annotate("100").decided(120).now(5000), nil},
		"another stage is late": {"Each stage is told once.",
			migration().on(a, b).failed(100).decided(101).now(280),
			[]string{"Warning MigrationFailed/ReleasingTarget on disk", "Warning StorageMigrationTimedOut/ReleasingTarget"}},
		"bad annotation": {"An administrator's typing error must not go unnoticed.",
			migration().annotate("soon"), []string{started, "Warning InvalidMigrationTimeout"}},
		"bad annotation, over": {"Too late to matter.",
			migration().annotate("soon").on(b).succeeded(100), []string{"Normal MigrationCompleted on disk"}},
		"VMI gone": {"There is no annotation to read.",
			migration().gone(), []string{started}},
		"completed": {"", migration().on(b).succeeded(100), []string{"Normal MigrationCompleted on disk"}},
		"completed late": {"The end is told all the same.",
			migration().on(a, b).succeeded(100).decided(280).on(b).now(300), []string{"Normal MigrationCompleted on disk"}},
		"rolled back": {"", migration().on(a).failed(100), []string{"Warning MigrationFailed on disk"}},
		"cancelled":   {"", migration().on(a).failed(100).cancelled(), []string{"Warning MigrationFailed on disk"}},
		"superseded":  {"", migration().on(a, b).succeeded(100).successor(a), []string{"Normal MigrationCompleted on disk"}},
		"over, told":  {"", migration().on(b).succeeded(100).decided(110), nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, eventsOf(tc.args)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestEventMessages: source and target, durations and the VMIM's name are in the text.
func TestEventMessages(t *testing.T) {
	common := []string{"web-1", "web", a, b}
	cases := map[string]struct {
		args   *builder
		reason string
		want   []string
	}{
		"started":        {migration(), EventStarted, []string{"attaching on the target", "allowed until"}},
		"delayed":        {migration().on(a, b).annotate("100").now(100), EventDelayed, []string{"1m35s", "1m40s", TimeoutAnnotation}},
		"timeout":        {migration().on(a, b).annotate("100").now(120), EventFailed, []string{"timeout", "DualAttached", "1m55s", "1m40s"}},
		"completed":      {migration().on(b).succeeded(100).now(130), EventCompleted, []string{"2m10s"}},
		"completed late": {migration().on(a, b).succeeded(100).decided(280).on(b).now(300), EventCompleted, []string{"5m0s", "deadline had passed"}},
		"rolled back":    {migration().on(a).failed(100).now(130), EventFailed, []string{"rolled back", "2m10s"}},
		"cancelled":      {migration().on(a).failed(100).cancelled().now(130), EventFailed, []string{"cancelled, rolled back", "2m10s"}},
		"VM deleted":     {migration().on().failed(100).gone().now(130), EventFailed, []string{"nothing is attached any more", "2m10s"}},
		"superseded":     {migration().on(a, b).failed(100).successor(b).now(130), EventFailed, []string{"newer migration or start"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, e := range Decide(tc.args.Snapshot).Events {
				if e.Reason != tc.reason {
					continue
				}
				for _, want := range append(tc.want, common...) {
					if e.Claim != "" && !strings.Contains(e.Message, want) {
						t.Errorf("%q is missing in: %s", want, e.Message)
					}
				}
				return
			}
			t.Errorf("no event %s", tc.reason)
		})
	}
}

// TestProblems: contradictions and faults have names; they never change the stage.
func TestProblems(t *testing.T) {
	moved := func() *builder { return migration().on(a, b).handedOff(40).succeeded(100) }
	cases := map[string]struct {
		reason string
		args   *builder
		stage  Stage
		want   []string
	}{
		"none": {"A migration as it should be.",
			migration(), AttachingTarget, nil},
		"third node": {"More than two attachments.",
			migration().on(a, b, c), DualAttached, []string{"ThirdAttachment"}},
		"third node, not attached": {"An attachment that is only asked for shares nothing.",
			migration().volumes(volume("disk", a).fails(c, "refused")), AttachingTarget, nil},
		"attach error": {"The error stands on the VolumeAttachment.",
			migration().volumes(volume("disk", a).fails(b, "refused")), AttachingTarget, []string{"AttachError"}},
		"detach error": {"On either node.",
			migration().on(b).do(func(s *Snapshot) {
				s.Volumes[0] = s.Volumes[0].fails(a, "busy")
				s.Volumes[0].Attachments[1].Leaving = true
			}).succeeded(100), Completed, []string{"DetachError"}},
		"volume gone": {"A claim without its PersistentVolume.",
			migration().do(func(s *Snapshot) { s.Volumes[0].PV = "" }), AttachingTarget, []string{"VolumeGone"}},
		"nodes not ready": {"Both, in order.",
			migration().notReady(a, b), AttachingTarget, []string{"NodeNotReady " + a, "NodeNotReady " + b}},
		"target node unknown": {"A node that is not known is not unready.",
			migration().do(func(s *Snapshot) { s.Target = Side{} }), AttachingTarget, nil},
		"detached from a dead node": {"Over: the node does not matter any more.",
			migration().on().notReady(a).failed(100).gone(), Detached, nil},
		"another target": {"The target pod is not where KubeVirt says.",
			migration().handedOff(40).state(targetIs(c)), AttachingTarget, []string{"TargetMismatch"}},
		"another migration's target": {"The previous migration's target is not ours.",
			migration().handedOff(40).state(targetIs(c)).do(func(s *Snapshot) { s.Instance.Status.MigrationState.MigrationUID = otherMigration }), AttachingTarget, nil},
		"succeeded, VMI did not move": {"The phase and the VMI's node disagree.",
			moved().do(runsOn(a)), ReleasingSource, []string{"OutcomeDisagrees"}},
		"succeeded, VMI moved back": {"A newer migration explains it.",
			moved().do(runsOn(a)).successor(a), Superseded, nil},
		"succeeded, target lost it": {"The attachment that left is the wrong one.",
			moved().on(a), ReleasingSource, []string{"OutcomeDisagrees"}},
		"failed, VMI moved": {"The phase and the VMI's node disagree.",
			migration().on(a, b).failed(100).do(runsOn(b)), ReleasingTarget, []string{"OutcomeDisagrees"}},
		"failed, moved by a newer migration": {"Then it is that one's doing.",
			migration().on(a).failed(100).do(runsOn(b)).successor(b), RolledBack, nil},
		"failed, source lost it": {"The VMI runs where its volume is not attached.",
			migration().on(b).failed(100), ReleasingTarget, []string{"OutcomeDisagrees"}},
		"active, source let go": {"The source must hold it as long as the guest is there.",
			migration().on(b).handedOff(40), ReleasingSource, []string{"OutcomeDisagrees"}},
		"active, source let go after the move": {"The guest is on the target: as it should be.",
			migration().on(b).handedOff(40).do(runsOn(b)), ReleasingSource, nil},
		"VMI final": {"Of a VMI that is over nothing is expected.",
			moved().on(a).do(func(s *Snapshot) { s.Instance.Status.Phase = "Failed" }), ReleasingSource, nil},
		"several": {"In a fixed order, whatever the lists' order.",
			migration().volumes(volume("z", a, b, c), volume("y", a, b, c)).notReady(b), DualAttached,
			[]string{"NodeNotReady " + b, "ThirdAttachment y", "ThirdAttachment z"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Decide(tc.args.Snapshot)
			if got.Stage != tc.stage {
				t.Fatalf("the stage is %s, the case is about %s", got.Stage, tc.stage)
			}
			if len(got.Problems) != len(tc.want) {
				t.Fatalf("%s: %v, want %v", tc.reason, got.Problems, tc.want)
			}
			for i, want := range tc.want {
				reason, about, _ := strings.Cut(want, " ")
				if p := got.Problems[i]; p.Reason != reason || !strings.Contains(p.Message, about) {
					t.Errorf("%s: problem %d is %v, want %s", tc.reason, i, p, want)
				}
			}
			if text := problemText(got.Problems); !strings.Contains(messageOf(got.Conditions, ConditionDualAttached), text) {
				t.Errorf("the condition does not say: %s", text)
			}
		})
	}
}

func targetIs(node string) func(*kubevirtv1.VirtualMachineInstanceMigrationState) {
	return func(st *kubevirtv1.VirtualMachineInstanceMigrationState) { st.TargetNode = node }
}

func runsOn(node string) func(*Snapshot) {
	return func(s *Snapshot) { s.Instance.Status.NodeName = node }
}

// TestSeconds spells durations to the second.
func TestSeconds(t *testing.T) {
	if got := Seconds(90*time.Second + 400*time.Millisecond); got != "1m30s" {
		t.Errorf("Seconds = %s", got)
	}
}
