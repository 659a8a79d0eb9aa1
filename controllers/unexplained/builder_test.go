package unexplained

import (
	"fmt"
	"slices"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// noon is when every history begins.
var noon = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

var limits = Limits{Settle: 30 * time.Second, Release: 180 * time.Second, ReleaseNotReady: 420 * time.Second}

// world builds snapshots of one volume. Every change of an attachment keeps the
// ledger and the export in step, unless a test says otherwise.
type world struct{ Snapshot }

// quiet is a volume for live migration that nobody uses.
func quiet() *world {
	w := &world{Snapshot{Now: noon, Limits: limits, Claim: "disk", Slot: "pvc-1", Sharing: LiveMigration}}
	w.Told = Told{ObservedAt: noon, Ledger: rds.Ledger{Known: true, Generation: 7}}
	return w
}

// attach attaches it to Ready nodes and tells the array.
func (w *world) attach(nodes ...string) *world {
	for _, node := range nodes {
		w.Attachments = append(w.Attachments, Attachment{Name: "csi-" + node, UID: "va-" + node, Node: node, NodeID: node, Attached: true, Ready: true})
		w.publish(node)
	}
	return w
}

// publish tells the array alone.
func (w *world) publish(nodes ...string) *world {
	for _, node := range nodes {
		w.Told.Ledger.Publications = append(w.Told.Ledger.Publications, rds.Publication{Node: rds.NodeKey(node), Since: noon})
		w.Told.Exported = true
	}
	return w
}

// unpublish takes it back.
func (w *world) unpublish() *world {
	w.Told.Ledger.Publications, w.Told.Exported = nil, false
	return w
}

// pod runs a pod of nobody in particular.
func (w *world) pod(name, node string) *world { return w.launcher("", name, node) }

// launcher runs a pod of a VM.
func (w *world) launcher(vm, name, node string) *world {
	w.Pods = append(w.Pods, Pod{Name: name, UID: "uid-" + name, Node: node, VM: vm})
	return w
}

// leave asks the pods on a node to end within d.
func (w *world) leave(node string, d time.Duration) *world {
	w.Pods = slices.Clone(w.Pods)
	for i := range w.Pods {
		if w.Pods[i].Node == node {
			w.Pods[i].Leaving = w.Now.Add(d)
		}
	}
	return w
}

// on changes the attachment on a node.
func (w *world) on(node string, change func(*Attachment)) *world {
	for i := range w.Attachments {
		if w.Attachments[i].Node == node {
			change(&w.Attachments[i])
		}
	}
	return w
}

func (w *world) with(change func(*world)) *world {
	change(w)
	return w
}

// after lets time pass and has the array read again, if it answers.
func (w *world) after(d time.Duration) *world {
	w.Now = w.Now.Add(d)
	if w.Told.Fresh() {
		w.Told.ObservedAt = w.Now
	}
	return w
}

// look decides, remembers, and gives the events as "Reason kind node".
func (w *world) look() (a Assessment, said []string) {
	a = Decide(w.Snapshot)
	w.Memory = a.Memory
	for _, e := range a.Events {
		said = append(said, e.Reason)
	}
	return a, said
}

func names(findings []Finding) []string {
	var out []string
	for _, f := range findings {
		name := f.Kind.String()
		if f.Node != "" {
			name = fmt.Sprintf("%s %s", f.Kind, f.Node)
		}
		out = append(out, name)
	}
	return out
}
