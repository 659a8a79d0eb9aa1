package dualattach

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// The cast: VMI "web" migrates from a to b; c has no part in it.
const (
	a = "node-a"
	b = "node-b"
	c = "node-c"
)

// noon is when the target pod is created. Tables give times in seconds from it.
var noon = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }

func stamp(seconds int) *metav1.Time { return ptr.To(metav1.NewTime(at(seconds))) }

// builder makes a Snapshot step by step.
type builder struct{ Snapshot }

// migration is under way at noon plus 10 s: the target pod is on node-b, the
// claim "disk" is attached on node-a only, KubeVirt has not handed off, and all
// nodes are Ready.
func migration() *builder {
	return &builder{Snapshot{
		Now: at(10), Since: at(-3600), Limits: DefaultLimits(),
		Migration: &kubevirtv1.VirtualMachineInstanceMigration{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1", UID: "uid-1", CreationTimestamp: *stamp(-5)},
			Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: "web"},
			Status:     kubevirtv1.VirtualMachineInstanceMigrationStatus{Phase: kubevirtv1.MigrationScheduling},
		},
		Instance: &kubevirtv1.VirtualMachineInstance{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: map[string]string{}},
			Spec: kubevirtv1.VirtualMachineInstanceSpec{Domain: kubevirtv1.DomainSpec{
				Memory: &kubevirtv1.Memory{Guest: ptr.To(resource.MustParse("2Gi"))},
			}},
			Status: kubevirtv1.VirtualMachineInstanceStatus{Phase: kubevirtv1.Running, NodeName: a},
		},
		Source:  Side{Node: a, Ready: true, Pod: "launcher-a", PodCreated: at(-86400)},
		Target:  Side{Node: b, Ready: true, Pod: "launcher-b", PodCreated: at(0)},
		Volumes: []Volume{volume("disk", a)},
	}}
}

// volume is one that is attached on the nodes, the first since yesterday, the
// others since 5 s after noon. The array's view of it is missing.
func volume(claim string, nodes ...string) Volume {
	v := Volume{Claim: claim, PV: "pv-" + claim}
	for i, node := range nodes {
		created := at(5)
		if i == 0 {
			created = at(-86400)
		}
		v.Attachments = append(v.Attachments, Attachment{Node: node, Attached: true, Created: created})
	}
	return v
}

// limit is the StorageClass's limit, in seconds.
func (v Volume) limit(seconds int) Volume {
	v.Timeout = time.Duration(seconds) * time.Second
	return v
}

// published is what the array was told: node-a long ago, node-b at a time.
func (v Volume) published(seconds int) Volume {
	v.Ledger = rds.Ledger{Known: true, Publications: []rds.Publication{{Node: a, Since: at(-86400)}, {Node: b, Since: at(seconds)}}}
	return v
}

// fails marks the attachment on a node with an error; it is not attached.
func (v Volume) fails(node, text string) Volume {
	v.Attachments = append(slices.Clone(v.Attachments), Attachment{Node: node, Created: at(5), Error: text})
	return v
}

func (x *builder) do(change func(s *Snapshot)) *builder {
	change(&x.Snapshot)
	return x
}

func (x *builder) now(seconds int) *builder { x.Now = at(seconds); return x }

func (x *builder) volumes(v ...Volume) *builder { x.Volumes = v; return x }

// on attaches the claim "disk" to the nodes and to no other.
func (x *builder) on(nodes ...string) *builder { return x.volumes(volume("disk", nodes...)) }

func (x *builder) annotate(value string) *builder {
	x.Instance.Annotations[TimeoutAnnotation] = value
	return x
}

func (x *builder) phase(p kubevirtv1.VirtualMachineInstanceMigrationPhase, seconds int) *builder {
	status := &x.Migration.Status
	status.Phase = p
	status.PhaseTransitionTimestamps = append(status.PhaseTransitionTimestamps,
		kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{Phase: p, PhaseTransitionTimestamp: *stamp(seconds)})
	return x
}

// handedOff: KubeVirt copies the guest since a time.
func (x *builder) handedOff(seconds int) *builder {
	x.Instance.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{
		MigrationUID: x.Migration.UID, SourceNode: a, TargetNode: b, StartTimestamp: stamp(seconds),
	}
	x.Migration.Status.Phase = kubevirtv1.MigrationRunning
	return x
}

// state changes what KubeVirt says on the VMI after the hand-off.
func (x *builder) state(change func(*kubevirtv1.VirtualMachineInstanceMigrationState)) *builder {
	change(x.Instance.Status.MigrationState)
	return x
}

// options sets KubeVirt's effective migration configuration.
func (x *builder) options(perGiB int64, disruption bool) *builder {
	return x.state(func(st *kubevirtv1.VirtualMachineInstanceMigrationState) {
		st.VMIMConfigurationOptions = &kubevirtv1.VMIMConfigurationOptions{
			CompletionTimeoutPerGiB: &perGiB, AllowWorkloadDisruption: &disruption}
	})
}

// succeeded: the guest runs on node-b, and the VMIM says so since a time.
func (x *builder) succeeded(seconds int) *builder {
	x.Instance.Status.NodeName = b
	return x.phase(kubevirtv1.MigrationSucceeded, seconds)
}

func (x *builder) failed(seconds int) *builder { return x.phase(kubevirtv1.MigrationFailed, seconds) }

// cancelled: the VMIM carries KubeVirt's mark of a requested abort.
func (x *builder) cancelled() *builder {
	x.Migration.Status.Conditions = append(x.Migration.Status.Conditions, kubevirtv1.VirtualMachineInstanceMigrationCondition{
		Type: kubevirtv1.VirtualMachineInstanceMigrationAbortRequested, Status: corev1.ConditionTrue})
	return x
}

func (x *builder) vanished(seconds int) *builder { x.VanishedAt = at(seconds); return x }

// gone: the VMI does not exist any more.
func (x *builder) gone() *builder { x.Instance = nil; return x }

func (x *builder) successor(node string) *builder { x.SuccessorTarget = node; return x }

func (x *builder) notReady(nodes ...string) *builder {
	for _, side := range []*Side{&x.Source, &x.Target} {
		if slices.Contains(nodes, side.Node) {
			side.Ready = false
		}
	}
	return x
}

// decided decides at a time and keeps the conditions, as the writer does.
func (x *builder) decided(seconds int) *builder {
	x.now(seconds)
	store(&x.Snapshot, Decide(x.Snapshot).Conditions)
	return x
}

// store puts the conditions on the VMIM as the writer does: nothing while status
// and reason of all are there; else all of them, where a transition time moves
// with the status only. It reports whether anything was written.
func store(s *Snapshot, want []Condition) bool {
	s.Migration = s.Migration.DeepCopy()
	have := &s.Migration.Status.Conditions
	written := false
	for _, w := range want {
		i := slices.IndexFunc(*have, func(h kubevirtv1.VirtualMachineInstanceMigrationCondition) bool { return h.Type == w.Type })
		written = written || i < 0 || (*have)[i].Status != w.Status || (*have)[i].Reason != w.Reason
	}
	if !written {
		return false
	}
	for _, w := range want {
		i := slices.IndexFunc(*have, func(h kubevirtv1.VirtualMachineInstanceMigrationCondition) bool { return h.Type == w.Type })
		element := kubevirtv1.VirtualMachineInstanceMigrationCondition{Type: w.Type, Status: w.Status, Reason: w.Reason, Message: w.Message,
			LastTransitionTime: metav1.NewTime(s.Now.Truncate(time.Second))}
		if i < 0 {
			*have = append(*have, element)
			continue
		}
		if (*have)[i].Status == w.Status {
			element.LastTransitionTime = (*have)[i].LastTransitionTime
		}
		(*have)[i] = element
	}
	return true
}

// mark is the part of a condition that is worth a write.
type mark struct {
	Status corev1.ConditionStatus
	Reason string
}

type marks struct{ DualAttached, Migrated, TimedOut mark }

func marksOf(conditions []Condition) marks {
	var m marks
	for _, x := range conditions {
		found := mark{x.Status, x.Reason}
		switch x.Type {
		case ConditionDualAttached:
			m.DualAttached = found
		case ConditionMigrated:
			m.Migrated = found
		case ConditionTimedOut:
			m.TimedOut = found
		}
	}
	return m
}

func messageOf(conditions []Condition, kind kubevirtv1.VirtualMachineInstanceMigrationConditionType) string {
	for _, x := range conditions {
		if x.Type == kind {
			return x.Message
		}
	}
	return ""
}

// otherMigration is a UID that is not the migration's.
const otherMigration types.UID = "uid-0"
