package dualattach

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// due is a Deadline in seconds from noon, and a part of whose limit it is.
type due struct {
	Start, At int
	Whose     string
}

func dueOf(d Deadline, whose string) due {
	if !d.Set() {
		return due{}
	}
	got := due{int(d.Start.Sub(noon) / time.Second), int(d.At.Sub(noon) / time.Second), d.Whose}
	if strings.Contains(d.Whose, whose) {
		got.Whose = whose
	}
	return got
}

func checkDue(t *testing.T, reason string, s *builder, stage Stage, want due) {
	t.Helper()
	if got := StageOf(s.facts()); got != stage {
		t.Fatalf("%s: the stage is %s, the case is about %s", reason, got, stage)
	}
	if diff := cmp.Diff(want, dueOf(s.deadline(stage), want.Whose)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", reason, diff)
	}
}

// TestMigrationDeadline: until the hand-off and after it.
func TestMigrationDeadline(t *testing.T) {
	const annotation, class = TimeoutAnnotation, "storage class of claim "
	const pending, completion, unbounded = "pending target", "completion deadline", "--unbounded-deadline"
	cases := map[string]struct {
		reason string
		args   *builder
		stage  Stage
		want   due
	}{
		"annotation": {
			reason: "An administrator's word on the VMI comes first.",
			args:   migration().volumes(volume("disk", a).limit(100)).annotate("10m"),
			stage:  AttachingTarget, want: due{0, 600, annotation},
		},
		"annotation in seconds": {
			reason: "A bare number is a number of seconds.",
			args:   migration().annotate("90"),
			stage:  AttachingTarget, want: due{0, 90, annotation},
		},
		"bad annotation": {
			reason: "What cannot be read falls through to the storage class.",
			args:   migration().volumes(volume("disk", a).limit(100)).annotate("soon"),
			stage:  AttachingTarget, want: due{0, 100, class + "disk"},
		},
		"bad annotation and no class": {
			reason: "... and from there to KubeVirt's budget.",
			args:   migration().annotate("-1"),
			stage:  AttachingTarget, want: due{0, 960, pending},
		},
		"longest of several classes": {
			reason: "Several volumes: the longest limit, and the message names its claim.",
			args:   migration().volumes(volume("a", a).limit(100), volume("b", a).limit(300), volume("c", a).limit(200)),
			stage:  AttachingTarget, want: due{0, 300, class + "b"},
		},
		"equal classes": {
			reason: "Among equals the first by name, whatever the order.",
			args:   migration().volumes(volume("b", a).limit(300), volume("a", a).limit(300)),
			stage:  AttachingTarget, want: due{0, 300, class + "a"},
		},
		"one class of two": {
			reason: "A volume without a limit does not lift the other's.",
			args:   migration().volumes(volume("a", a), volume("b", a).limit(300)),
			stage:  AttachingTarget, want: due{0, 300, class + "b"},
		},
		"administrator after the hand-off": {
			reason: "It runs from the beginning of the dual attachment.",
			args:   migration().volumes(volume("disk", a, b).limit(300)).handedOff(40),
			stage:  DualAttached, want: due{5, 305, class + "disk"},
		},
		"pending": {
			reason: "Before the hand-off: KubeVirt's 900 s for a pending target, and a minute.",
			args:   migration(),
			stage:  AttachingTarget, want: due{0, 960, pending},
		},
		"pending, annotated": {
			reason: "The VMIM may carry another pending timeout.",
			args: migration().do(func(s *Snapshot) {
				s.Migration.Annotations = map[string]string{kubevirtv1.MigrationPendingPodTimeoutSecondsAnnotation: "30"}
			}),
			stage: AttachingTarget, want: due{0, 90, pending},
		},
		"pending, badly annotated": {
			reason: "KubeVirt ignores what is not a number, and so do we.",
			args: migration().do(func(s *Snapshot) {
				s.Migration.Annotations = map[string]string{kubevirtv1.MigrationPendingPodTimeoutSecondsAnnotation: "half a minute"}
			}),
			stage: AttachingTarget, want: due{0, 960, pending},
		},
		"attached, not handed off": {
			reason: "The pending timeout runs from the target pod's creation, whenever the attachment came.",
			args:   migration().on(a, b),
			stage:  DualAttached, want: due{5, 960, pending},
		},
		"attached after the pending timeout": {
			reason: "A budget that is spent already allows nothing, but never less than nothing.",
			args:   migration().volumes(volume("disk", a, b).published(1000)).now(1001),
			stage:  DualAttached, want: due{1000, 1000, pending},
		},
		"handed off, not started": {
			reason: "Without a start there is no completion deadline yet.",
			args: migration().on(a, b).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) {
				st.StartTimestamp = nil
			}),
			stage: DualAttached, want: due{5, 960, pending},
		},
		"handed off, target pod gone": {
			reason: "Where the target pod was never seen, the budget runs from the attachment.",
			args: migration().on(a, b).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) {
				st.StartTimestamp = nil
			}).do(func(s *Snapshot) { s.Target.PodCreated, s.Target.Pod = time.Time{}, "" }),
			stage: DualAttached, want: due{5, 965, pending},
		},
		"previous migration on the VMI": {
			reason: "What the VMI says of another migration's UID is not about this one.",
			args: migration().on(a, b).handedOff(-500).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) {
				st.MigrationUID = otherMigration
			}),
			stage: DualAttached, want: due{5, 960, pending},
		},
		"completion": {
			reason: "2Gi are 2.15 GB, rounded up 3, by 150 s: 450 s from the start, and a minute.",
			args:   migration().on(a, b).handedOff(40),
			stage:  DualAttached, want: due{5, 40 + 450 + 60, completion},
		},
		"attached after the completion deadline": {
			reason: "Here as well a spent budget allows nothing, but never less.",
			args:   migration().volumes(volume("disk", a, b).published(1000)).handedOff(40).now(1001),
			stage:  DualAttached, want: due{1000, 1000, completion},
		},
		"completion, by the VMIM's own state": {
			reason: "The VMIM's copy of the state counts as well as the VMI's.",
			args: migration().on(a, b).handedOff(40).do(func(s *Snapshot) {
				s.Migration.Status.MigrationState, s.Instance.Status.MigrationState = s.Instance.Status.MigrationState, nil
			}),
			stage: DualAttached, want: due{5, 550, completion},
		},
		"completion of a large VM": {
			reason: "A lawful long migration of a large VM is never called stuck.",
			args: migration().on(a, b).handedOff(40).do(func(s *Snapshot) {
				s.Instance.Spec.Domain.Memory.Guest = ptr.To(resource.MustParse("16Gi"))
			}),
			stage: DualAttached, want: due{5, 40 + 2700 + 60, completion},
		},
		"completion after memory hotplug": {
			reason: "What the guest has now counts, where that is more than the specification.",
			args: migration().on(a, b).handedOff(40).do(func(s *Snapshot) {
				s.Instance.Status.Memory = &kubevirtv1.MemoryStatus{GuestCurrent: ptr.To(resource.MustParse("4Gi"))}
			}),
			stage: DualAttached, want: due{5, 40 + 750 + 60, completion},
		},
		"completion by the memory request": {
			reason: "Without guest memory, the request stands for it.",
			args: migration().on(a, b).handedOff(40).do(func(s *Snapshot) {
				s.Instance.Spec.Domain.Memory = nil
				s.Instance.Spec.Domain.Resources.Requests = corev1.ResourceList{"memory": resource.MustParse("1G")}
			}),
			stage: DualAttached, want: due{5, 40 + 150 + 60, completion},
		},
		"completion, other configuration": {
			reason: "A MigrationPolicy may set another time.",
			args:   migration().on(a, b).handedOff(40).options(10, false),
			stage:  DualAttached, want: due{5, 40 + 30 + 60, completion},
		},
		"completion with workload disruption": {
			reason: "KubeVirt waits twice as long before it disrupts the workload.",
			args:   migration().on(a, b).handedOff(40).options(150, true),
			stage:  DualAttached, want: due{5, 40 + 900 + 60, completion},
		},
		"completion switched off": {
			reason: "0 is no limit: the operator's own applies.",
			args:   migration().on(a, b).handedOff(40).options(0, true),
			stage:  DualAttached, want: due{5, 3640, unbounded},
		},
		"post-copy": {
			reason: "Post-copy has no deadline.",
			args: migration().on(a, b).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) {
				st.Mode = kubevirtv1.MigrationPostCopy
			}),
			stage: DualAttached, want: due{5, 3640, unbounded},
		},
		"memory unknown": {
			reason: "Of a VMI that is gone nobody knows the memory.",
			args: migration().on(a, b).handedOff(40).do(func(s *Snapshot) {
				s.Migration.Status.MigrationState = s.Instance.Status.MigrationState
			}).gone(),
			stage: DualAttached, want: due{5, 3640, unbounded},
		},
		"target attached again during the copy": {
			reason: "The copy's deadline does not move because a volume left and came back.",
			args:   migration().on(a).handedOff(40),
			stage:  AttachingTarget, want: due{0, 550, completion},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { checkDue(t, tc.reason, tc.args, tc.stage, tc.want) })
	}
}

// TestReleaseDeadline: a Ready node gets less time than one that must be forced.
func TestReleaseDeadline(t *testing.T) {
	const ready, notReady = "--release-deadline", "--release-deadline-not-ready"
	cases := map[string]struct {
		reason string
		args   *builder
		stage  Stage
		want   due
	}{
		"source, Ready": {
			reason: "180 s from the success.",
			args:   migration().on(a, b).succeeded(100),
			stage:  ReleasingSource, want: due{100, 280, ready},
		},
		"source, not Ready": {
			reason: "420 s, as the detach is forced after 360 s.",
			args:   migration().on(a, b).succeeded(100).notReady(a),
			stage:  ReleasingSource, want: due{100, 520, notReady},
		},
		"source, target not Ready": {
			reason: "Only the node that is to let go matters.",
			args:   migration().on(a, b).succeeded(100).notReady(b),
			stage:  ReleasingSource, want: due{100, 280, ready},
		},
		"target, Ready": {
			reason: "180 s from the failure.",
			args:   migration().on(a, b).failed(100),
			stage:  ReleasingTarget, want: due{100, 280, ready},
		},
		"target, not Ready": {
			reason: "420 s, as the detach is forced after 360 s.",
			args:   migration().on(a, b).failed(100).notReady(b),
			stage:  ReleasingTarget, want: due{100, 520, notReady},
		},
		"the flags": {
			reason: "The limits are the operator's flags.",
			args:   migration().on(a, b).failed(100).do(func(s *Snapshot) { s.Limits.Release = time.Minute }),
			stage:  ReleasingTarget, want: due{100, 160, ready},
		},
		"an administrator's limit": {
			reason: "It is for the migration, not for the release.",
			args:   migration().on(a, b).failed(100).annotate("10m"),
			stage:  ReleasingTarget, want: due{100, 280, ready},
		},
		"release before the success": {
			reason: "The source lets go while KubeVirt still sums up: the copy's end starts the clock.",
			args: migration().on(b).handedOff(40).state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) {
				st.EndTimestamp = stamp(90)
			}),
			stage: ReleasingSource, want: due{90, 270, ready},
		},
		"release while the copy runs": {
			reason: "The source is gone before the copy ended: the migration's own time runs on, so a hang is told.",
			args:   migration().on(b).handedOff(40),
			stage:  ReleasingSource, want: due{0, 550, "completion deadline"},
		},
		"release before the hand-off": {
			reason: "The same, with KubeVirt's pending timeout.",
			args:   migration().on(b),
			stage:  ReleasingSource, want: due{0, 960, "pending target"},
		},
		"release while the copy runs, by an administrator's limit": {
			reason: "His word comes first here as well.",
			args:   migration().on(b).handedOff(40).annotate("100"),
			stage:  ReleasingSource, want: due{0, 100, TimeoutAnnotation},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { checkDue(t, tc.reason, tc.args, tc.stage, tc.want) })
	}
}

func TestParseTimeout(t *testing.T) {
	cases := map[string]struct {
		want time.Duration
		bad  bool
	}{
		"10m":    {want: 10 * time.Minute},
		"1h30m":  {want: 90 * time.Minute},
		"600":    {want: 10 * time.Minute},
		"1":      {want: time.Second},
		"24h":    {want: 24 * time.Hour},
		"0":      {bad: true},
		"-5m":    {bad: true},
		"25h":    {bad: true},
		"500ms":  {bad: true},
		"":       {bad: true},
		"soon":   {bad: true},
		"10 min": {bad: true},
	}
	for text, tc := range cases {
		t.Run(text, func(t *testing.T) {
			got, err := ParseTimeout(text)
			if got != tc.want || (err != nil) != tc.bad {
				t.Errorf("ParseTimeout(%q) = %s, %v; want %s, an error: %t", text, got, err, tc.want, tc.bad)
			}
		})
	}
}
