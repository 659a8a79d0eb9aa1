package dualattach

import (
	"slices"
	"time"

	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Snapshot is everything one decision about one migration depends on.
type Snapshot struct {
	Now time.Time
	// Since is when this operator began to watch. What was over by then and
	// carries no condition of ours is history.
	Since  time.Time
	Limits Limits
	// Migration is the VMIM as last seen; it may be gone by now.
	Migration *kubevirtv1.VirtualMachineInstanceMigration
	// VanishedAt is when the VMIM was found to be gone, or zero.
	VanishedAt time.Time
	// Lost says that Migration is the stand-in that Lost made: its ending is not
	// history, however long ago.
	Lost bool
	// Instance is the migration's VMI, or nil when it is gone, be it that there is
	// another one of its name.
	Instance       *kubevirtv1.VirtualMachineInstance
	Source, Target Side
	// Volumes are the shared ones: those of our driver that the source launcher
	// pod and the hotplug pods it owns use.
	Volumes []Volume
	// Copied: the migration was seen to copy blocks (CopiesBlocks) while it was under
	// way. What KubeVirt says of that is gone when it is over.
	Copied bool
	// SuccessorTarget is the target node of a newer migration of the same VM, or the
	// node of the VMI that followed the migration's, or empty.
	SuccessorTarget string
}

// Side is one end of a migration.
type Side struct {
	Node       string // empty while unknown
	Ready      bool   // the node exists and is Ready
	Pod        string // the launcher pod, empty when gone
	PodCreated time.Time
}

// Volume is one shared volume, as the cluster and the array see it.
type Volume struct {
	Claim       string // the PersistentVolumeClaim's name, in the VMI's namespace
	PV          string // empty when the claim is not bound any more
	Attachments []Attachment
	// Timeout is the StorageClass's migrationTimeoutSeconds, or zero.
	Timeout time.Duration
	// Ledger is what the array was told. It is unknown where the array's view is
	// missing or stale.
	Ledger rds.Ledger
}

// Attachment is one VolumeAttachment of a volume.
type Attachment struct {
	Node     string
	Attached bool // status.attached, deleting or not
	Created  time.Time
	Error    string // status.attachError or detachError, verbatim
	Leaving  bool   // the error is that of the detach
}

// Limits are the operator's own deadlines, set by flags.
type Limits struct {
	// Unbounded applies where KubeVirt has no deadline of its own: post-copy, or
	// the completion deadline switched off.
	Unbounded time.Duration
	// Release is how long a Ready node may take to let go.
	Release time.Duration
	// ReleaseNotReady is the same for a node that is not Ready: the attach/detach
	// controller forces the detach after 6 minutes.
	ReleaseNotReady time.Duration
}

// DefaultLimits are the flags' defaults.
func DefaultLimits() Limits {
	return Limits{Unbounded: time.Hour, Release: 3 * time.Minute, ReleaseNotReady: 7 * time.Minute}
}

// attachedOn reports whether the volume is attached on the node.
func (v Volume) attachedOn(node string) bool {
	a, ok := v.attachment(node)
	return ok && a.Attached
}

func (v Volume) attachment(node string) (Attachment, bool) {
	if node == "" {
		return Attachment{}, false
	}
	for _, a := range v.Attachments {
		if a.Node == node {
			return a, true
		}
	}
	return Attachment{}, false
}

// extent counts the volumes that are attached on the node.
func extent(volumes []Volume, node string) Extent {
	attached := 0
	for _, v := range volumes {
		if v.attachedOn(node) {
			attached++
		}
	}
	switch {
	case attached == 0:
		return None
	case attached < len(volumes):
		return Some
	default:
		return All
	}
}

// dualAttachedClaims lists the claims that are attached on both nodes.
func (s *Snapshot) dualAttachedClaims() []string {
	var claims []string
	for _, v := range s.Volumes {
		if v.attachedOn(s.Source.Node) && v.attachedOn(s.Target.Node) {
			claims = append(claims, v.Claim)
		}
	}
	slices.Sort(claims)
	return claims
}

// facts reduces the snapshot to what the stage depends on.
func (s *Snapshot) facts() Facts {
	f := Facts{
		Involved:     len(s.Volumes) > 0 && s.Source.Node != "" && !s.CopiesBlocks(),
		InstanceLive: !s.instanceOver(),
		Phase:        s.phase(),
		Source:       extent(s.Volumes, s.Source.Node),
		Target:       extent(s.Volumes, s.Target.Node),
	}
	released := s.Target.Node
	if f.Phase == Succeeded {
		released = s.Source.Node
	}
	f.Superseded = s.SuccessorTarget != "" && s.SuccessorTarget == released
	return f
}

// CopiesBlocks reports a migration that moves data to other claims instead of
// sharing volumes: across clusters, or between volumes. The volumes that a VMI is
// to migrate are this migration's from the hand-off until it is over: before that
// they are the previous one's, after it the next one's.
func (s *Snapshot) CopiesBlocks() bool {
	m := s.Migration
	if s.Copied || m.IsDecentralized() {
		return true
	}
	if _, ok := m.Labels[kubevirtv1.VolumesUpdateMigration]; ok {
		return true
	}
	return s.phase() == Active && s.handedOff() != nil && s.Instance != nil && len(s.Instance.Status.MigratedVolumes) > 0
}

func (s *Snapshot) phase() Phase {
	switch s.Migration.Status.Phase {
	case kubevirtv1.MigrationSucceeded:
		return Succeeded
	case kubevirtv1.MigrationFailed:
		return Ended
	}
	if !s.VanishedAt.IsZero() {
		if state := s.handedOff(); state != nil && state.Completed && !state.Failed {
			return Succeeded
		}
		return Ended
	}
	return Active
}

// StateOf is what KubeVirt says of this very migration on the VMIM or on the VMI,
// which may be gone; nil before the hand-off. Until then the VMI still describes the
// previous one, so UIDs are compared.
func StateOf(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance) *kubevirtv1.VirtualMachineInstanceMigrationState {
	if state := m.Status.MigrationState; state != nil && state.MigrationUID == m.UID {
		return state
	}
	if vmi == nil {
		return nil
	}
	if state := vmi.Status.MigrationState; state != nil && state.MigrationUID == m.UID {
		return state
	}
	return nil
}

func (s *Snapshot) handedOff() *kubevirtv1.VirtualMachineInstanceMigrationState {
	return StateOf(s.Migration, s.Instance)
}

// aborted reports that somebody asked for the end of the migration.
func (s *Snapshot) aborted() bool {
	for _, c := range s.Migration.Status.Conditions {
		if c.Type == kubevirtv1.VirtualMachineInstanceMigrationAbortRequested && c.Status == "True" {
			return true
		}
	}
	if state := s.handedOff(); state != nil && state.AbortRequested {
		return true
	}
	return !s.VanishedAt.IsZero() && s.Migration.Status.Phase != kubevirtv1.MigrationFailed
}

// enteredPhase is when the VMIM entered a phase, or zero.
func (s *Snapshot) enteredPhase(phase kubevirtv1.VirtualMachineInstanceMigrationPhase) time.Time {
	for _, p := range s.Migration.Status.PhaseTransitionTimestamps {
		if p.Phase == phase {
			return p.PhaseTransitionTimestamp.Time
		}
	}
	return time.Time{}
}

// EndedAt is when KubeVirt's side of the migration was over, or zero.
func (s *Snapshot) EndedAt() time.Time {
	phase := kubevirtv1.MigrationFailed
	if s.phase() == Succeeded {
		phase = kubevirtv1.MigrationSucceeded
	}
	if at := s.enteredPhase(phase); !at.IsZero() {
		return at
	}
	if state := s.handedOff(); state != nil && state.EndTimestamp != nil {
		return state.EndTimestamp.Time
	}
	if !s.VanishedAt.IsZero() {
		return s.VanishedAt
	}
	if s.phase() != Active && s.Migration.DeletionTimestamp != nil {
		return s.Migration.DeletionTimestamp.Time
	}
	return time.Time{}
}

// history reports a migration that was over before we began to watch and that
// nobody of us ever wrote about.
func (s *Snapshot) history() bool {
	ended := s.EndedAt()
	return !s.Lost && s.phase() != Active && !ended.IsZero() && ended.Before(s.Since) && !readRecord(s.Migration).started
}
