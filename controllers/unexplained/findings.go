package unexplained

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// findings lists what is the matter now, however short, in a fixed order.
// explained reports that a migration is all that explains the rest.
func (s *Snapshot) findings() (found []Finding, explained bool) {
	dual, dualExplained := s.dualAttached()
	found = append(found, dual...)
	attached := s.attached()
	for _, a := range attached {
		switch {
		case a.NodeGone:
			found = append(found, s.nodeGone(a))
		case len(s.podsOn(a.Node)) > 0, s.ending(a):
		case slices.Contains(s.Migrating, a.Node):
			explained = true
		default:
			found = append(found, s.lingering(a))
		}
	}
	if len(attached) > s.Sharing.nodes() {
		found = append(found, s.tooMany(attached))
	}
	if s.Told.Fresh() && s.Told.Ledger.Known {
		found = append(found, s.divergences(attached)...)
	}
	return found, explained || dualExplained
}

// dualAttached finds live pods on two attached nodes. Those of one VM are a
// migration's, or a restart's for as long as a release may take; those of different
// owners never are, unless an administrator lets any two nodes share.
func (s *Snapshot) dualAttached() (found []Finding, explained bool) {
	if s.Sharing == AnyTwo {
		return nil, false
	}
	var used []Attachment
	var pods []Pod
	for _, a := range s.attached() {
		if on := s.podsOn(a.Node); len(on) > 0 {
			used, pods = append(used, a), append(pods, on...)
		}
	}
	if len(used) < 2 {
		return nil, false
	}
	if s.strangers(used) {
		return []Finding{s.dual(used, pods, s.Limits.Settle)}, false
	}
	if !slices.ContainsFunc(used, func(a Attachment) bool { return !slices.Contains(s.Migrating, a.Node) }) {
		return nil, true
	}
	var patience time.Duration
	for _, a := range used {
		patience = max(patience, s.release(a))
	}
	return []Finding{s.dual(used, pods, patience)}, false
}

// strangers reports pods of different owners on different nodes.
func (s *Snapshot) strangers(used []Attachment) bool {
	for i, a := range used {
		for _, b := range used[i+1:] {
			for _, p := range s.podsOn(a.Node) {
				if slices.ContainsFunc(s.podsOn(b.Node), func(q Pod) bool { return p.owner() != q.owner() }) {
					return true
				}
			}
		}
	}
	return false
}

func (s *Snapshot) dual(used []Attachment, pods []Pod, patience time.Duration) Finding {
	var uids, nodes []string
	for _, p := range pods {
		uids = append(uids, p.UID)
	}
	for _, a := range used {
		var names []string
		for _, p := range s.podsOn(a.Node) {
			names = append(names, p.String())
		}
		nodes = append(nodes, a.Node+": "+strings.Join(names, ", "))
	}
	slices.Sort(uids)
	return Finding{Kind: DualAttach, ID: strings.Join(uids, ","), patience: patience,
		Message: fmt.Sprintf("live pods use it on %d nodes at once and no migration explains it: %s. They may destroy each other's data: "+
			"delete those that should not run", len(used), strings.Join(nodes, "; "))}
}

func (s *Snapshot) lingering(a Attachment) Finding {
	f := Finding{Kind: Lingering, Node: a.Node, ID: a.UID, patience: s.release(a), start: a.Deleting}
	next := fmt.Sprintf("the kubelet there has not reported the unmount: look at its log and at volumesInUse of kubectl get node %s -o yaml", a.Node)
	switch {
	case !a.Ready:
		next = fmt.Sprintf("the node is not Ready: bring it back, or, when it is surely off, taint it with node.kubernetes.io/out-of-service: "+
			"kubectl describe node %s", a.Node)
	case !a.Deleting.IsZero():
		next = fmt.Sprintf("its detachment was asked for and does not end: look at csi-attacher and kubectl describe volumeattachment %s", a.Name)
	}
	f.Message = fmt.Sprintf("still attached on %s, where no live pod uses it; the limit is %s%s; %s", a.Node, short(f.patience), a.error(), next)
	return f
}

func (s *Snapshot) tooMany(attached []Attachment) Finding {
	var nodes, uids []string
	for _, a := range attached {
		nodes, uids = append(nodes, a.Node), append(uids, a.UID)
	}
	return Finding{Kind: TooMany, ID: strings.Join(uids, ","), patience: s.Limits.Settle,
		Message: fmt.Sprintf("attached on %d nodes (%s), of which %d may hold it: look at kubectl get volumeattachments and at the pods of the claim",
			len(nodes), strings.Join(nodes, ", "), s.Sharing.nodes())}
}

func (s *Snapshot) nodeGone(a Attachment) Finding {
	return Finding{Kind: NodeGone, Node: a.Node, ID: a.UID, patience: s.Limits.Settle, start: a.Deleting,
		Message: fmt.Sprintf("attached on %s, and the cluster has no such node%s; when that machine is surely off: kubectl delete volumeattachment %s",
			a.Node, a.error(), a.Name)}
}

// divergences compares the cluster with a known ledger.
func (s *Snapshot) divergences(attached []Attachment) []Finding {
	var found []Finding
	add := func(kind Kind, node, id, format string, args ...any) {
		found = append(found, Finding{Kind: kind, Node: node, ID: id, patience: s.Limits.Settle, Message: fmt.Sprintf(format, args...)})
	}
	ledger := s.Told.Ledger
	for _, p := range ledger.Publications {
		if !slices.ContainsFunc(s.Attachments, func(a Attachment) bool { return rds.NodeKey(a.NodeID) == p.Node }) {
			add(NotAttached, p.Node, fmt.Sprintf("%s=%d", p.Node, p.Since.Unix()),
				"the array was told at %s that %s holds it, and the cluster knows of no attachment there; when nothing on %s uses it, take %s=%d out of the comment of disk %s",
				stamp(p.Since), p.Node, p.Node, p.Node, p.Since.Unix(), s.Slot)
		}
	}
	for _, a := range attached {
		if !ledger.Holds(a.NodeID) {
			add(NotPublished, a.Node, a.UID,
				"attached on %s, and the array's ledger does not name that node (%q), so that its export may go off or another node be let in under it; look at csi-plugin's log and the comment of disk %s",
				a.Node, ledger.String(), s.Slot)
		}
	}
	generation := fmt.Sprintf("g%d", ledger.Generation)
	switch {
	case len(ledger.Publications) == 0 && s.Told.Exported:
		add(Exported, "", generation,
			"the array's ledger names nobody, and its export is on: a host may still be connected; when none is: /disk set %s nvme-tcp-export=no", s.Slot)
	case len(ledger.Publications) > 0 && !s.Told.Exported:
		add(NotExported, "", generation,
			"the array was told that %s holds it, and its export is off, so the disk is gone there; look at /disk print where slot=%s and the array's log",
			strings.Join(ledger.Nodes(), " and "), s.Slot)
	}
	return found
}

// error is what Kubernetes says of the attachment, for a message.
func (a Attachment) error() string {
	if a.Error == "" {
		return ""
	}
	return " (" + a.Error + ")"
}

// String names a pod for people.
func (p Pod) String() string {
	if p.VM == "" {
		return "pod " + p.Name
	}
	return "pod " + p.Name + " of VMI " + p.VM
}
