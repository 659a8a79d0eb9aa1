package unexplained

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	corev1 "k8s.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// step draws a change of the world.
func step(t *rapid.T, w *world) {
	node := rapid.SampledFrom([]string{a, b, c}).Draw(t, "node")
	switch rapid.SampledFrom([]string{"time", "attach", "detach", "pod", "VM", "leave", "end", "publish", "unpublish", "export",
		"stale", "read", "foreign", "ready", "gone", "migrate"}).Draw(t, "change") {
	case "attach":
		if !slices.ContainsFunc(w.Attachments, func(x Attachment) bool { return x.Node == node }) {
			w.Attachments = append(w.Attachments, Attachment{Name: "csi-" + node, UID: "va-" + node, Node: node, NodeID: node, Attached: true, Ready: true})
		}
	case "detach":
		w.Attachments = slices.DeleteFunc(slices.Clone(w.Attachments), func(x Attachment) bool { return x.Node == node })
	case "pod":
		w.pod("pod-"+node, node)
	case "VM":
		w.launcher("web", "web-"+node, node)
	case "leave":
		w.leave(node, time.Duration(rapid.IntRange(0, 1000).Draw(t, "grace"))*time.Second)
	case "end":
		w.Pods = slices.DeleteFunc(slices.Clone(w.Pods), func(p Pod) bool { return p.Node == node })
	case "publish":
		if w.Told.Ledger.Known && !w.Told.Ledger.Holds(node) {
			w.Told.Ledger.Publications = append(slices.Clone(w.Told.Ledger.Publications), rds.Publication{Node: node, Since: noon})
		}
	case "unpublish":
		w.Told.Ledger.Publications = nil
	case "export":
		w.Told.Exported = !w.Told.Exported
	case "stale":
		w.Told = Told{}
	case "read":
		w.Told = Told{ObservedAt: w.Now, Ledger: rds.Ledger{Known: true}, Exported: rapid.Bool().Draw(t, "exported")}
	case "foreign":
		w.with(foreign)
	case "ready":
		w.Attachments = slices.Clone(w.Attachments)
		w.on(node, func(x *Attachment) { x.Ready = !x.Ready })
	case "gone":
		w.Attachments = slices.Clone(w.Attachments)
		w.on(node, func(x *Attachment) { x.NodeGone = !x.NodeGone })
	case "migrate":
		w.Migrating = nil
		if rapid.Bool().Draw(t, "migrating") {
			w.Migrating = []string{a, b}
		}
	}
	w.after(time.Duration(rapid.IntRange(0, 500).Draw(t, "seconds")) * time.Second)
}

// witness follows a history from outside.
type witness struct {
	since map[Key]time.Time // of what has been the matter without a break, as looked at
	said  map[Key]saying
}

// saying is the last event of a finding.
type saying struct {
	at   time.Time
	step string
}

func (x *witness) watch(t *rapid.T, w *world, found []Finding, decided Assessment) {
	there := map[Key]Finding{}
	for _, f := range found {
		there[f.Key()] = f
		if _, ok := x.since[f.Key()]; !ok {
			x.since[f.Key()] = w.Now
		}
	}
	for key := range x.since {
		_, ok := there[key]
		if !ok && (!key.Kind.OfArray() || w.Told.Fresh()) {
			delete(x.since, key)
		}
	}
	for _, e := range decided.Events {
		key := keyOf(t, w, found, e.Step, x.said)
		switch {
		case e.Type == corev1.EventTypeWarning:
			f, ok := there[key]
			last, again := x.said[key]
			if since, lasted := x.since[key]; !ok || !lasted || (!again && w.Now.Sub(since) < f.patience) {
				t.Fatalf("%s was said of what was there since %s of %s", e.Reason, since, w.Now)
			}
			if again && last.step == e.Step && w.Now.Sub(last.at) < sayAgain {
				t.Fatalf("%s was said at %s and again at %s", e.Reason, last.at, w.Now)
			}
			x.said[key] = saying{w.Now, e.Step}
		case x.said[key].at.IsZero():
			t.Fatalf("%s takes back what was never said", e.Reason)
		default:
			if _, ok := there[key]; ok {
				t.Fatalf("%s takes back what still is", e.Reason)
			}
			delete(x.said, key)
		}
		if key.Kind.OfArray() && !w.Told.Fresh() {
			t.Fatalf("%s without a view of the array", e.Reason)
		}
	}
	for key, last := range x.said {
		if _, ok := there[key]; ok && w.Now.Sub(last.at) >= sayAgain {
			t.Fatalf("%s was said at %s, which nobody sees at %s", key.Kind, last.at, w.Now)
		}
	}
}

// keyOf finds what an event is about.
func keyOf(t *rapid.T, w *world, found []Finding, step string, said map[Key]saying) Key {
	for _, f := range found {
		if f.step() == step {
			return f.Key()
		}
	}
	for key := range said {
		if r, ok := w.Memory[key]; ok && r.Finding.step() == step {
			return key
		}
	}
	t.Fatalf("an event about nothing known: %s", step)
	return Key{}
}

// TestHistory draws histories and looks at what is said in them.
func TestHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := quiet()
		w.Sharing = rapid.SampledFrom([]Sharing{OneNode, LiveMigration, AnyTwo}).Draw(t, "sharing")
		x := &witness{since: map[Key]time.Time{}, said: map[Key]saying{}}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			step(t, w)
			found, _ := w.findings()
			for _, f := range found {
				if f.Kind == DualAttach && w.Sharing == AnyTwo || f.Kind.OfArray() && !w.Told.Ledger.Known {
					t.Fatalf("%s is nobody's fault here", f.Kind)
				}
				if f.Kind == Lingering && slices.ContainsFunc(w.Attachments, func(x Attachment) bool { return x.Node == f.Node && w.ending(x) }) {
					t.Fatalf("%s: a pod there still has time to end", f.Message)
				}
			}
			decided := Decide(w.Snapshot)
			x.watch(t, w, found, decided)
			if len(decided.Standing) != len(x.said) {
				t.Fatalf("%d stand, %d are said", len(decided.Standing), len(x.said))
			}
			w.Memory = decided.Memory
			if again := Decide(w.Snapshot); len(again.Events) > 0 || !again.NextAt.Equal(decided.NextAt) {
				t.Fatalf("the second look says %v, the next is %s, not %s", again.Events, again.NextAt, decided.NextAt)
			}
			if !decided.NextAt.IsZero() {
				early := w.Snapshot
				early.Now = decided.NextAt.Add(-1)
				if !decided.NextAt.After(w.Now) || len(Decide(early).Events) > 0 {
					t.Fatalf("it is %s; the next look is due at %s, and too late", w.Now, decided.NextAt)
				}
			}
		}
	})
}
