package soak

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

func want(t *testing.T, got []string, parts ...string) {
	t.Helper()
	if len(got) != len(parts) {
		t.Errorf("found %q, want %q", got, parts)
		return
	}
	for i, part := range parts {
		if !strings.Contains(got[i], part) {
			t.Errorf("found %q, want %q", got[i], part)
		}
	}
}

func TestVolumeAtRest(t *testing.T) {
	disk := func(comment string, exported bool) routeros.Disk {
		return routeros.Disk{Comment: comment, Exported: exported}
	}
	for name, c := range map[string]struct {
		v    seenVolume
		want []string
	}{
		"in use":                {seenVolume{used: true, attached: []string{"a"}, disk: disk("rds1 g1 a=1", true)}, nil},
		"not in use":            {seenVolume{disk: disk("rds1 g2", false)}, nil},
		"two nodes":             {seenVolume{used: true, attached: []string{"a", "b"}, disk: disk("rds1 g1 a=1 b=2", true)}, []string{"attached to"}},
		"the ledger knows more": {seenVolume{used: true, attached: []string{"a"}, disk: disk("rds1 g1 a=1 b=2", true)}, []string{"the ledger says"}},
		"the ledger is gone":    {seenVolume{used: true, attached: []string{"a"}, disk: disk("", true)}, []string{"no ledger"}},
		"exported to nobody":    {seenVolume{disk: disk("rds1 g2", true)}, []string{"exported"}},
		"not exported":          {seenVolume{used: true, attached: []string{"a"}, disk: disk("rds1 g1 a=1", false)}, []string{"exported"}},
	} {
		t.Run(name, func(t *testing.T) { want(t, c.v.restless("a"), c.want...) })
	}
}

func event(reason, message string) corev1.Event {
	e := corev1.Event{Reason: reason, Message: "RDS shared volume: migration vm-0-r1 of VMI vm-0, a → b: " + message, Count: 1}
	e.InvolvedObject.Name = "vm-0"
	e.Source.Component = "rds-csi-operator"
	return e
}

func TestJudge(t *testing.T) {
	succeeded := lab.VMIM{ObjectMeta: metav1.ObjectMeta{Name: "vm-0-r1"}}
	succeeded.Status.Phase = kubevirtv1.MigrationSucceeded
	succeeded.Status.Conditions = []kubevirtv1.VirtualMachineInstanceMigrationCondition{{Type: dualattach.ConditionMigrated, Status: corev1.ConditionTrue}}
	contradicted := *succeeded.DeepCopy()
	contradicted.Status.Conditions[0].Status = corev1.ConditionFalse
	completed, late := event(dualattach.EventCompleted, "completed"), event(dualattach.EventFailed, "timeout in stage DualAttached: …")
	round := Round{Number: 1, Moves: []Move{{VM: 0}}}
	killing := Round{Number: 1, Moves: round.Moves, Faults: []Fault{{Kind: KillOperator}}}

	for name, c := range map[string]struct {
		round   Round
		st      state
		counted float64
		want    []string
	}{
		"well":              {round, state{migrations: []lab.VMIM{succeeded}, events: []corev1.Event{completed, late}}, 1, nil},
		"counted twice":     {round, state{migrations: []lab.VMIM{succeeded}, events: []corev1.Event{completed}}, 2, []string{"2 results"}},
		"not counted":       {round, state{migrations: []lab.VMIM{succeeded}, events: []corev1.Event{completed}}, 0, []string{"0 results"}},
		"lost by a kill":    {killing, state{}, 0, nil},
		"lost without":      {round, state{}, 1, []string{"0 events"}},
		"said twice":        {round, state{migrations: []lab.VMIM{succeeded}, events: []corev1.Event{completed, completed}}, 1, []string{"2 events"}},
		"not said":          {killing, state{migrations: []lab.VMIM{succeeded}}, 1, []string{"0 events"}},
		"KubeVirt disagree": {round, state{migrations: []lab.VMIM{contradicted}, events: []corev1.Event{completed}}, 1, []string{"says otherwise"}},
	} {
		t.Run(name, func(t *testing.T) { want(t, c.st.judge(c.round, c.counted), c.want...) })
	}
}

func TestNeverShared(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "disk"}}
	claim.Spec.VolumeName = "pv"
	attachments := func(nodes ...string) (all []*storagev1.VolumeAttachment) {
		for _, node := range nodes {
			va := &storagev1.VolumeAttachment{}
			va.Spec.NodeName, va.Spec.Source.PersistentVolumeName, va.Status.Attached = node, &claim.Spec.VolumeName, true
			all = append(all, va)
		}
		return all
	}
	pod := func(owner, kind, node string) *corev1.Pod {
		p := lab.NewPod("ns", "pod-"+node, node, "disk")
		p.Status.Phase = corev1.PodRunning
		yes := true
		if owner != "" {
			p.OwnerReferences = []metav1.OwnerReference{{Name: owner, Kind: kind, Controller: &yes}}
		}
		return p
	}
	for name, c := range map[string]struct {
		nodes []string
		pods  []*corev1.Pod
		want  []string
	}{
		"a live migration":    {[]string{"a", "b"}, []*corev1.Pod{pod("vm", "VirtualMachineInstance", "a"), pod("vm", "VirtualMachineInstance", "b")}, nil},
		"of a plugged disk":   {[]string{"a", "b"}, []*corev1.Pod{pod("virt-launcher-vm-x", "Pod", "a"), pod("virt-launcher-vm-y", "Pod", "b")}, nil},
		"an ordinary pod too": {[]string{"a", "b"}, []*corev1.Pod{pod("vm", "VirtualMachineInstance", "a"), pod("", "", "b")}, []string{"is used by"}},
		"two VMs":             {[]string{"a", "b"}, []*corev1.Pod{pod("vm", "VirtualMachineInstance", "a"), pod("other", "VirtualMachineInstance", "b")}, []string{"is used by"}},
		"three nodes":         {[]string{"a", "b", "c"}, nil, []string{"is attached to"}},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, neverShared(attachments(c.nodes...), c.pods, []*corev1.PersistentVolumeClaim{claim}), c.want...)
		})
	}
}
