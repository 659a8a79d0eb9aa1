package gather

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

func podName(pod *corev1.Pod) string {
	if pod == nil {
		return ""
	}
	return pod.Name
}

func podsOf(pods ...*corev1.Pod) []corev1.Pod {
	var out []corev1.Pod
	for _, pod := range pods {
		out = append(out, *pod)
	}
	return out
}

// TestSidesAndLaunchers: which pods and nodes a migration goes between, as seen at
// first sight or on top of what is known.
func TestSidesAndLaunchers(t *testing.T) {
	running := launcher("run", a, -86400)
	made := target(launcher("new", b, 1), "uid-web-1")
	type want struct {
		SourcePod, TargetPod   string // as launchers finds them
		SourceNode, TargetNode string // as sides knows them then
	}
	withPod := func(st *kubevirtv1.VirtualMachineInstanceMigrationState, pod string) *kubevirtv1.VirtualMachineInstanceMigrationState {
		st.SourcePod = pod
		return st
	}
	cases := map[string]struct {
		reason string
		vmi    *kubevirtv1.VirtualMachineInstance
		known  Known
		pods   []corev1.Pod
		want   want
	}{
		"no target pod yet": {
			reason: "The source is where the VMI runs.",
			vmi:    instance(a, nil), pods: podsOf(running), want: want{"run", "", a, ""},
		},
		"target pod not scheduled": {
			reason: "Its node is not known; its label kubevirt.io/nodeName names the source and is not used.",
			vmi:    instance(a, nil), pods: podsOf(running, target(launcher("new", "", 1), "uid-web-1")), want: want{"run", "new", a, ""},
		},
		"before the hand-off": {
			reason: "The target is found by the label with the VMIM's UID alone.",
			vmi:    instance(a, nil), pods: podsOf(made, running), want: want{"run", "new", a, b},
		},
		"the VMI describes the previous migration": {
			reason: "Another UID: its nodes are not ours.",
			vmi:    instance(a, withPod(state("web-0", c, a), "other")), pods: podsOf(running, made), want: want{"run", "new", a, b},
		},
		"the previous target pod failed and stays": {
			reason: "A pod made for another migration is nobody's here.",
			vmi:    instance(a, nil), pods: podsOf(running, target(launcher("failed", b, -300), "uid-web-0"), made), want: want{"run", "new", a, b},
		},
		"after the hand-off": {
			reason: "The state names the source's pod.",
			vmi:    instance(b, withPod(state("web-1", a, b), "run")), pods: podsOf(running, made), want: want{"run", "new", a, b},
		},
		"the guest moved, first sight": {
			reason: "The VMI runs on the target by now; the state still knows the source.",
			vmi:    instance(b, state("web-1", a, b)), pods: podsOf(running, made), want: want{"run", "new", a, b},
		},
		"both pods gone, first sight": {
			reason: "The state names both nodes.",
			vmi:    instance(b, withPod(state("web-1", a, b), "run")), pods: nil, want: want{"", "", a, b},
		},
		"source pod gone, known": {
			reason: "What was known stays; the target's pod is not taken for the source's.",
			vmi:    instance(b, nil), known: Known{Source: dualattach.Side{Node: a, Pod: "run"}}, pods: podsOf(made), want: want{"", "new", a, b},
		},
		"another pod on the source's node": {
			reason: "A known pod is found by its name only.",
			vmi:    instance(a, nil), known: Known{Source: dualattach.Side{Node: a, Pod: "run"}},
			pods: podsOf(launcher("older", a, -90000)), want: want{"", "", a, ""},
		},
		"there and back": {
			reason: "A to B to A: of the pods on the node the newest from before the VMIM is the source's.",
			vmi:    instance(a, nil),
			pods: podsOf(launcher("first", a, -900), target(launcher("second", a, -300), "uid-web-0"), made,
				target(launcher("later", a, 60), "uid-web-2")),
			want: want{"second", "new", a, b},
		},
		"VMI gone": {
			reason: "Pods without a node are not the source's because that is not known either.",
			vmi:    nil, pods: podsOf(launcher("pending", "", -60)), want: want{"", "", "", ""},
		},
		"target pod elsewhere than KubeVirt says": {
			reason: "The pod's node is what attaches; the contradiction is reported elsewhere.",
			vmi:    instance(a, state("web-1", a, c)), pods: podsOf(running, made), want: want{"run", "new", a, b},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			in := &Instance{Key: web, VMI: tc.vmi, pods: tc.pods}
			known := tc.known
			known.Migration = vmim("web-1", 0)
			source, target := in.launchers(&known)
			in.sides(&known, source, target)
			if diff := cmp.Diff(tc.want, want{podName(source), podName(target), known.Source.Node, known.Target.Node}); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestSidesByTheVMIM: the VMIM's own state serves as well as the VMI's.
func TestSidesByTheVMIM(t *testing.T) {
	in := &Instance{Key: web, VMI: instance(c, state("web-2", b, c))}
	known := Known{Migration: vmim("web-1", 0, func(m *kubevirtv1.VirtualMachineInstanceMigration) { m.Status.MigrationState = state("web-1", a, b) })}
	in.sides(&known, nil, nil)
	if known.Source.Node != a || known.Target.Node != b {
		t.Errorf("known: %+v, %+v", known.Source, known.Target)
	}
}

// TestSidesKeepPods: what pods told stays when they are gone.
func TestSidesKeepPods(t *testing.T) {
	in := &Instance{Key: web, VMI: instance(a, nil)}
	known := Known{Migration: vmim("web-1", 0)}
	in.sides(&known, launcher("run", a, -60), target(launcher("new", b, 1), "uid-web-1"))
	in.sides(&known, nil, nil)
	want := dualattach.Side{Node: b, Pod: "new", PodCreated: noon.Add(time.Second)}
	if diff := cmp.Diff(want, known.Target); diff != "" {
		t.Errorf("target (-want +got):\n%s", diff)
	}
	if known.Source.Node != a || known.Source.Pod != "run" {
		t.Errorf("source: %+v", known.Source)
	}
}

// TestSuccessorTarget: where a newer migration of the same VMI goes.
func TestSuccessorTarget(t *testing.T) {
	cases := map[string]struct {
		reason     string
		migrations []*kubevirtv1.VirtualMachineInstanceMigration
		vmi        *kubevirtv1.VirtualMachineInstance
		pods       []corev1.Pod
		want       string
	}{
		"none": {"It is the newest.",
			[]*kubevirtv1.VirtualMachineInstanceMigration{vmim("web-0", -60), vmim("web-1", 0)}, instance(b, state("web-0", c, a)), nil, ""},
		"target pod": {"A to B to A: the newer one's pod is on A.",
			[]*kubevirtv1.VirtualMachineInstanceMigration{vmim("web-1", 0), vmim("web-2", 60)}, instance(b, nil),
			podsOf(target(launcher("back", a, 61), "uid-web-2")), a},
		"target pod not scheduled": {"Not known yet.",
			[]*kubevirtv1.VirtualMachineInstanceMigration{vmim("web-1", 0), vmim("web-2", 60)}, instance(b, state("web-1", a, b)),
			podsOf(target(launcher("back", "", 61), "uid-web-2")), ""},
		"state": {"The pod is gone, the state names the node.",
			[]*kubevirtv1.VirtualMachineInstanceMigration{vmim("web-1", 0), vmim("web-2", 60)}, instance(a, state("web-2", b, a)), nil, a},
		"two newer ones": {"The newest that is known counts.",
			[]*kubevirtv1.VirtualMachineInstanceMigration{vmim("web-1", 0), vmim("web-2", 60), vmim("web-3", 120)}, instance(c, state("web-3", a, c)),
			podsOf(target(launcher("back", a, 61), "uid-web-2")), c},
		"made in the same second": {"The UID decides, the same way every time.",
			[]*kubevirtv1.VirtualMachineInstanceMigration{vmim("web-0", 0), vmim("web-1", 0), vmim("web-2", 0)}, nil,
			podsOf(target(launcher("old", b, 1), "uid-web-0"), target(launcher("back", a, 2), "uid-web-2")), a},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			in := &Instance{Key: web, VMI: tc.vmi, Migrations: tc.migrations, pods: tc.pods}
			if got := in.successorTarget(vmim("web-1", 0)); got != tc.want {
				t.Errorf("%s: %q, want %q", tc.reason, got, tc.want)
			}
		})
	}
}

// TestLost: the target's pod tells the name of a migration that is gone.
func TestLost(t *testing.T) {
	gone := state("web-1", a, b)
	start, end := at(0), at(60)
	gone.StartTimestamp, gone.EndTimestamp, gone.Completed = &start, &end, true
	lastRun := noon.Add(30 * time.Second)
	named := target(launcher("new", b, 1), "uid-web-1")
	named.Annotations = map[string]string{kubevirtv1.MigrationJobNameAnnotation: "web-1"}
	for name, tc := range map[string]struct {
		pods    []client.Object
		lastRun time.Time
		want    string
	}{
		"target pod":      {[]client.Object{launcher("run", a, -60), named}, lastRun, "web-1"},
		"pods gone":       {nil, lastRun, "(deleted)"},
		"nobody ran then": {[]client.Object{named}, time.Time{}, ""},
	} {
		in, err := newCluster(t, append(tc.pods, instance(b, gone))...).gatherer().Instance(t.Context(), web)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if m := in.Lost(tc.lastRun); m != nil {
			got = m.Name
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
