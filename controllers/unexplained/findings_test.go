package unexplained

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

const (
	a = "node-a"
	b = "node-b"
	c = "node-c"
)

func gone(x *Attachment)     { x.NodeGone, x.Ready = true, false }
func detached(x *Attachment) { x.Attached = false }
func anyTwo(w *world)        { w.Sharing = AnyTwo }
func oneNode(w *world)       { w.Sharing = OneNode }
func stale(w *world)         { w.Told = Told{Ledger: rds.Ledger{Problem: "not observed lately"}} }
func foreign(w *world)       { w.Told.Ledger = rds.Ledger{Problem: "no ledger in the comment"} }
func migrating(w *world)     { w.Migrating = []string{a, b} }

// TestFindings tables what is the matter, however short, and for how long it must last.
func TestFindings(t *testing.T) {
	type patience = []time.Duration
	settle, release, notReady := limits.Settle, limits.Release, limits.ReleaseNotReady
	cases := map[string]struct {
		reason   string
		world    *world
		want     []string
		patience patience
	}{
		"nobody":         {"", quiet(), nil, nil},
		"in use":         {"", quiet().attach(a).launcher("web", "web-1", a), nil, nil},
		"pods on a node": {"One node may run as many as it likes.", quiet().attach(a).pod("x", a).pod("y", a), nil, nil},

		"strangers": {"Two owners on two nodes.", quiet().attach(a, b).pod("x", a).pod("y", b), []string{"unexplained_dual_attach"}, patience{settle}},
		"VM and stranger": {"A VM does not share with anybody else, migrating or not.",
			quiet().attach(a, b).launcher("web", "web-1", a).pod("y", b).with(migrating), []string{"unexplained_dual_attach"}, patience{settle}},
		"two VMs": {"Nor with another VM.",
			quiet().attach(a, b).launcher("web", "web-1", a).launcher("db", "db-1", b), []string{"unexplained_dual_attach"}, patience{settle}},
		"stranger on the target": {"The target's own pod does not cover for it.",
			quiet().attach(a, b).launcher("web", "web-1", a).launcher("web", "web-2", b).pod("y", b).with(migrating),
			[]string{"unexplained_dual_attach"}, patience{settle}},
		"strangers, one node only": {"RWO is no better.", quiet().attach(a, b).pod("x", a).pod("y", b).with(oneNode),
			[]string{"unexplained_dual_attach", "too_many_nodes"}, patience{settle, settle}},
		"any two":            {"An administrator allows two nodes.", quiet().attach(a, b).pod("x", a).pod("y", b).with(anyTwo), nil, nil},
		"not attached there": {"A pod that waits for the volume does nothing to it.", quiet().attach(a).pod("x", a).pod("y", b), nil, nil},
		"one VM, migrating":  {"That is what sharing is for.", quiet().attach(a, b).launcher("web", "web-1", a).launcher("web", "web-2", b).with(migrating), nil, nil},
		"one VM, no migration": {"A restart may take as long as a release; then two guests may run.",
			quiet().attach(a, b).launcher("web", "web-1", a).launcher("web", "web-2", b), []string{"unexplained_dual_attach"}, patience{release}},
		"one VM, a node not ready": {"", quiet().attach(a, b).launcher("web", "web-1", a).launcher("web", "web-2", b).on(a, func(x *Attachment) { x.Ready = false }),
			[]string{"unexplained_dual_attach"}, patience{notReady}},

		"lingering":            {"", quiet().attach(a), []string{"lingering " + a}, patience{release}},
		"lingering, not ready": {"", quiet().attach(a).on(a, func(x *Attachment) { x.Ready = false }), []string{"lingering " + a}, patience{notReady}},
		"VM restarted elsewhere": {"The old pod is on its way out, so it is no live one.",
			quiet().attach(a, b).launcher("web", "web-2", b), []string{"lingering " + a}, patience{release}},
		"VM shut down": {"Its guest may take all the time it was given.",
			quiet().attach(a).launcher("web", "web-1", a).leave(a, time.Hour), nil, nil},
		"VM shut down in vain": {"It had its time.", quiet().attach(a).launcher("web", "web-1", a).leave(a, 0), []string{"lingering " + a}, patience{release}},
		"VM shut down, not ready": {"Nobody there ends it.",
			quiet().attach(a).launcher("web", "web-1", a).leave(a, time.Hour).on(a, func(x *Attachment) { x.Ready = false }),
			[]string{"lingering " + a}, patience{notReady}},
		"stranger, going": {"It is being stopped already.", quiet().attach(a, b).pod("x", a).pod("y", b).leave(b, time.Minute), nil, nil},
		"releasing":       {"The migration's reconciler waits for it.", quiet().attach(a, b).launcher("web", "web-2", b).with(migrating), nil, nil},
		"left by a migration that shares other nodes": {"", quiet().attach(c).with(migrating), []string{"lingering " + c}, patience{release}},

		"third node": {"Not even a migration explains that.",
			quiet().attach(a, b, c).launcher("web", "web-1", a).launcher("web", "web-2", b).launcher("web", "web-3", c).with(migrating),
			[]string{"unexplained_dual_attach", "too_many_nodes"}, patience{release, settle}},
		"third node, any two": {"Two are allowed.", quiet().attach(a, b, c).pod("x", a).pod("y", b).pod("z", c).with(anyTwo),
			[]string{"too_many_nodes"}, patience{settle}},
		"node gone":              {"It says more than lingering does.", quiet().attach(a).on(a, gone), []string{"node_gone " + a}, patience{settle}},
		"node gone in migration": {"", quiet().attach(a, b).launcher("web", "web-1", a).on(b, gone).with(migrating), []string{"node_gone " + b}, patience{settle}},
		"node gone, detached":    {"", quiet().attach(a).unpublish().on(a, gone).on(a, detached), nil, nil},

		"published only": {"", quiet().publish(a), []string{"not_attached " + a}, patience{settle}},
		"attaching":      {"The array is told first.", quiet().attach(a).on(a, detached), nil, nil},
		"attached only": {"", quiet().attach(a).pod("x", a).with(func(w *world) { w.Told.Ledger.Publications = nil; w.publish(b) }),
			[]string{"not_attached " + b, "not_published " + a}, patience{settle, settle}},
		"export left on":      {"", quiet().with(func(w *world) { w.Told.Exported = true }), []string{"exported"}, patience{settle}},
		"export switched off": {"", quiet().attach(a).pod("x", a).with(func(w *world) { w.Told.Exported = false }), []string{"not_exported"}, patience{settle}},
		"stale":               {"Nothing is known, so nothing diverges.", quiet().attach(a).pod("x", a).unpublish().with(stale), nil, nil},
		"another plugin's":    {"An unknown ledger names somebody, not nobody.", quiet().attach(a).pod("x", a).unpublish().with(foreign), nil, nil},
		"long node name": {"A ledger knows a prefix and a hash of it.",
			quiet().attach("a-very-long-name-of-a-node-that-takes-more-than-sixty-three-characters.example.com").
				pod("x", "a-very-long-name-of-a-node-that-takes-more-than-sixty-three-characters.example.com"), nil, nil},
		"node id is not the name": {"The ledger has the id.",
			quiet().attach(a).pod("x", a).unpublish().publish("id-a").on(a, func(x *Attachment) { x.NodeID = "id-a" }), nil, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			found, _ := tc.world.findings()
			if diff := cmp.Diff(tc.want, names(found)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			var lasts patience
			for _, f := range found {
				lasts = append(lasts, f.patience)
			}
			if diff := cmp.Diff(tc.patience, lasts); diff != "" {
				t.Errorf("patience (-want +got):\n%s", diff)
			}
		})
	}
}

// TestKinds: every kind has a label, a reason and an end, and all but DualAttach are
// in the series of divergences.
func TestKinds(t *testing.T) {
	labels := map[string]bool{}
	for kind := DualAttach; kind <= NotExported; kind++ {
		if kind.String() == "" || kinds[kind].reason == "" || over[kind] == "" || labels[kind.String()] {
			t.Errorf("kind %d: label %q, reason %q, end %q", kind, kind, kinds[kind].reason, over[kind])
		}
		labels[kind.String()] = true
	}
	if len(kinds) != len(labels) || len(Divergences()) != len(kinds)-1 {
		t.Errorf("%d kinds, %d divergences", len(kinds), len(Divergences()))
	}
}
