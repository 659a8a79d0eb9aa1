package unexplained

import (
	"slices"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Snapshot is everything one decision about one volume depends on.
type Snapshot struct {
	Now    time.Time
	Limits Limits
	// Claim is the name of the PersistentVolumeClaim that the volume belongs to.
	Claim   string
	Slot    string // the volume's name on the array
	Sharing Sharing
	// Attachments are the volume's VolumeAttachments.
	Attachments []Attachment
	// Pods are those that use the claim: bound to a node and not over. One that was
	// asked to end is no live one any more.
	Pods []Pod
	// Migrating are the nodes of migrations under way that share the volume. The
	// migrations' reconciler speaks of those.
	Migrating []string
	Told      Told
	// Memory is what the last decision gave back.
	Memory Memory
}

// Limits are the operator's, set by flags.
type Limits struct {
	// Settle is how long anything must last before it is spoken of: attaching and
	// detaching take a moment, and array and cluster are not read at once.
	Settle time.Duration
	// Release is how long a Ready node may take to let go.
	Release time.Duration
	// ReleaseNotReady is the same for a node that is not Ready.
	ReleaseNotReady time.Duration
}

// DefaultSettle is the flag's default.
const DefaultSettle = 30 * time.Second

// Sharing is how many nodes may hold a volume at once, and for what.
type Sharing int

// The kinds of sharing.
const (
	OneNode       Sharing = iota // not ReadWriteMany
	LiveMigration                // two nodes, for the live migration of a VM
	AnyTwo                       // any two nodes, by an administrator's word
)

// nodes is how many nodes may hold the volume.
func (s Sharing) nodes() int {
	if s == OneNode {
		return 1
	}
	return rds.MaxHolders
}

// Attachment is one VolumeAttachment.
type Attachment struct {
	Name, UID string
	Node      string
	NodeID    string // by which the driver and the ledger know the node
	Created   time.Time
	Attached  bool      // status.attached, deleting or not
	Deleting  time.Time // since when its deletion is asked for, or zero
	Error     string    // status.attachError or detachError, verbatim
	NodeGone  bool      // the cluster has no such node
	Ready     bool      // the node is Ready
}

// Pod is a pod that uses the volume's claim.
type Pod struct {
	Name, UID string
	Node      string
	// Leaving is until when it has to end; zero where it was not asked to.
	Leaving time.Time
	// VM is the VirtualMachineInstance that it runs, or gives a hotplugged disk
	// to; empty for any other pod.
	VM string
}

// owner is whose data it writes: all pods of a VM write for one guest, any other
// pod is on its own, its controller's siblings included.
func (p Pod) owner() string {
	if p.VM != "" {
		return "VMI " + p.VM
	}
	return "pod " + p.UID
}

// Told is what the array was told, as last read.
type Told struct {
	// ObservedAt is when, by our clock; zero where the view is missing or stale.
	ObservedAt time.Time
	// Ledger may be unknown although the view is fresh: no ledger of ours.
	Ledger   rds.Ledger
	Exported bool
}

// Fresh reports whether the array has been read lately.
func (t Told) Fresh() bool { return !t.ObservedAt.IsZero() }

// attached are the attachments that say so, in the order of their nodes.
func (s *Snapshot) attached() []Attachment {
	var attached []Attachment
	for _, a := range s.Attachments {
		if a.Attached {
			attached = append(attached, a)
		}
	}
	slices.SortFunc(attached, func(a, b Attachment) int { return compare(a.Node, b.Node) })
	return attached
}

// podsOn lists the live pods on a node, in the order of their names.
func (s *Snapshot) podsOn(node string) []Pod {
	var pods []Pod
	for _, p := range s.Pods {
		if p.Node == node && p.Leaving.IsZero() {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b Pod) int { return compare(a.Name, b.Name) })
	return pods
}

// ending reports a pod that was asked to end on the attachment's node and still has
// time to. On a node that is not Ready nobody ends it.
func (s *Snapshot) ending(a Attachment) bool {
	return a.Ready && slices.ContainsFunc(s.Pods, func(p Pod) bool { return p.Node == a.Node && s.Now.Before(p.Leaving) })
}

// release is how long the node may take to let go.
func (s *Snapshot) release(a Attachment) time.Duration {
	if a.Ready {
		return s.Limits.Release
	}
	return s.Limits.ReleaseNotReady
}
