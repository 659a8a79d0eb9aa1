package unexplained

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// look is one decision of a history: what changes before it, and what it says.
type look struct {
	after  time.Duration
	change func(*world)
	want   []string // reasons of events
	next   time.Duration
}

// TestHistories: what is said when, once, and taken back when it is over.
func TestHistories(t *testing.T) {
	second, again := time.Second, sayAgain
	nothing := func(*world) {}
	drop := func(node string) func(*world) {
		return func(w *world) {
			w.Attachments = slices.DeleteFunc(w.Attachments, func(x Attachment) bool { return x.Node == node })
			w.unpublish()
		}
	}
	cases := map[string]struct {
		reason string
		start  *world
		looks  []look
	}{
		"strangers": {"Said when settled, again when that is forgotten, and taken back.", quiet().attach(a, b).pod("x", a).pod("y", b), []look{
			{0, nothing, nil, 30 * second},
			{29 * second, nothing, nil, second},
			{second, nothing, []string{EventDualAttach}, again},
			{again - second, nothing, nil, second},
			{second, nothing, []string{EventDualAttach}, again},
			{second, func(w *world) { w.Pods = w.Pods[:1] }, []string{EventResolved}, 180 * second},
			{second, nothing, nil, 179 * second},
		}},
		"another stranger": {"Other pods are other news.", quiet().attach(a, b).pod("x", a).pod("y", b), []look{
			{0, nothing, nil, 30 * second},
			{30 * second, nothing, []string{EventDualAttach}, again},
			{second, func(w *world) { w.Pods[1].UID = "uid-z" }, []string{EventDualAttach}, again},
			{second, nothing, nil, again - second},
		}},
		"pods that change": {"A pod that is made again and again does not start the clock anew.", quiet().attach(a, b).pod("x", a).pod("y", b), []look{
			{0, nothing, nil, 30 * second},
			{20 * second, func(w *world) { w.Pods[1].UID = "uid-z" }, nil, 10 * second},
			{10 * second, nothing, []string{EventDualAttach}, again},
		}},
		"a moment": {"What is over before it has lasted is not worth a word.", quiet().attach(a, b).pod("x", a).pod("y", b), []look{
			{0, nothing, nil, 30 * second},
			{29 * second, func(w *world) { w.Pods = w.Pods[:1] }, nil, 180 * second},
			{second, func(w *world) { w.pod("y", b) }, nil, 30 * second},
		}},
		"a restarted VM": {"The old node releases in time.", quiet().attach(a, b).launcher("web", "web-2", b), []look{
			{0, nothing, nil, 180 * second},
			{179 * second, nothing, nil, second},
			{second / 2, func(w *world) { drop(a)(w); w.publish(b) }, nil, 0},
			{time.Hour, nothing, nil, 0},
		}},
		"lingering": {"It does not, and then after all.", quiet().attach(a, b).launcher("web", "web-2", b), []look{
			{0, nothing, nil, 180 * second},
			{180 * second, nothing, []string{EventLingering}, again},
			{time.Hour, func(w *world) { drop(a)(w); w.publish(b) }, []string{EventResolved}, 0},
		}},
		"a VM shut down": {"The time that its guest was given does not count.", quiet().attach(a).launcher("web", "web-1", a), []look{
			{0, nothing, nil, 0},
			{0, func(w *world) { w.leave(a, 210*second) }, nil, 210 * second},
			{200 * second, nothing, nil, 10 * second},
			{10 * second, nothing, nil, 180 * second},
			{180 * second, nothing, []string{EventLingering}, again},
		}},
		"lingering, not ready": {"The node's state decides how long.", quiet().attach(a), []look{
			{0, nothing, nil, 180 * second},
			{100 * second, func(w *world) { w.on(a, func(x *Attachment) { x.Ready = false }) }, nil, 320 * second},
			{320 * second, nothing, []string{EventLingering}, again},
			{second, func(w *world) { w.pod("x", a) }, []string{EventResolved}, 0},
		}},
		"lingering, said, anew": {"What was said stands, though this occurrence might take longer.", quiet().attach(a), []look{
			{0, nothing, nil, 180 * second},
			{180 * second, nothing, []string{EventLingering}, again},
			{second, func(w *world) { w.on(a, func(x *Attachment) { x.UID, x.Ready = "va-anew", false }) }, []string{EventLingering}, again},
			{second, nothing, nil, again - second},
		}},
		"detaching for long": {"When the detachment began is on the attachment.",
			quiet().attach(a).on(a, func(x *Attachment) { x.Deleting = noon.Add(-170 * second) }), []look{
				{0, nothing, nil, 10 * second},
				{10 * second, nothing, []string{EventLingering}, again},
			}},
		"after a migration": {"Its end starts the clock, and may pass unseen.", quiet().attach(a, b).launcher("web", "web-2", b).with(migrating), []look{
			{0, nothing, nil, 30 * second},
			{time.Hour, nothing, nil, 30 * second},
			{30 * second, func(w *world) { w.Migrating = nil }, nil, 180 * second},
			{180 * second, nothing, []string{EventLingering}, again},
		}},
		"divergence": {"It takes a view from after it has settled.", quiet().publish(a), []look{
			{0, nothing, nil, 30 * second},
			{30 * second, func(w *world) { w.Told.ObservedAt = w.Now.Add(-second) }, nil, 0},
			{second, nothing, []string{EventDivergence}, again},
			{second, func(w *world) { w.unpublish() }, []string{EventAgree}, 0},
		}},
		"an outage before it settled": {"The clock goes on; a word waits for a view.", quiet().publish(a), []look{
			{0, nothing, nil, 30 * second},
			{time.Minute, stale, nil, 0},
			{second, func(w *world) {
				*w = *quiet().publish(a).with(func(q *world) { q.Memory, q.Now = w.Memory, w.Now })
				w.after(0)
			}, []string{EventDivergence}, again},
		}},
		"an outage after it was said": {"Neither there nor over.", quiet().publish(a), []look{
			{0, nothing, nil, 30 * second},
			{30 * second, nothing, []string{EventDivergence}, again},
			{again, stale, nil, 0},
			{second, func(w *world) { w.Told = quiet().Told; w.after(0) }, []string{EventAgree}, 0},
		}},
		"the ledger is lost": {"There is nothing to compare with.", quiet().publish(a), []look{
			{0, nothing, nil, 30 * second},
			{30 * second, nothing, []string{EventDivergence}, again},
			{second, foreign, []string{EventAgree}, 0},
			{second, nothing, nil, 0},
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := tc.start
			for i, l := range tc.looks {
				w.after(l.after)
				l.change(w)
				assessment, said := w.look()
				if diff := cmp.Diff(l.want, said); diff != "" {
					t.Errorf("%s Look %d says (-want +got):\n%s", tc.reason, i, diff)
				}
				next := time.Duration(0)
				if !assessment.NextAt.IsZero() {
					next = assessment.NextAt.Sub(w.Now)
				}
				if next != l.next {
					t.Errorf("look %d: the next in %s, want %s", i, next, l.next)
				}
			}
		})
	}
}

// TestStanding: what was said is counted until it is over, an outage of the array
// notwithstanding.
func TestStanding(t *testing.T) {
	w := quiet().attach(a).publish(b)
	steps := []struct {
		change  func(*world)
		want    []string
		pending []string
	}{
		{func(*world) {}, nil, []string{"lingering node-a", "not_attached node-b"}},
		{func(w *world) { w.after(limits.Settle) }, []string{"not_attached node-b"}, []string{"lingering node-a"}},
		{func(w *world) { w.after(limits.Release) }, []string{"lingering node-a", "not_attached node-b"}, nil},
		{stale, []string{"lingering node-a", "not_attached node-b"}, nil},
		{func(w *world) { *w = *quiet().with(func(q *world) { q.Memory, q.Now = w.Memory, w.Now }) }, nil, nil},
	}
	for i, step := range steps {
		step.change(w)
		assessment, _ := w.look()
		if diff := cmp.Diff(step.want, names(assessment.Standing)); diff != "" {
			t.Errorf("step %d stands (-want +got):\n%s", i, diff)
		}
		if diff := cmp.Diff(step.pending, names(assessment.Pending)); diff != "" {
			t.Errorf("step %d is pending (-want +got):\n%s", i, diff)
		}
	}
}

// TestMessages: each says on which claim and node, since when, and what to look at.
func TestMessages(t *testing.T) {
	deleting := func(x *Attachment) { x.Deleting, x.Error = noon, "rpc error: deadline exceeded" }
	cases := map[string]struct {
		world *world
		parts []string
	}{
		"strangers":    {quiet().attach(a, b).launcher("web", "web-1", a).pod("y", b), []string{a + ": pod web-1 of VMI web", b + ": pod y", "destroy"}},
		"lingering":    {quiet().attach(a), []string{"3m0s", "kubelet", "volumesInUse", "node " + a}},
		"not ready":    {quiet().attach(a).on(a, func(x *Attachment) { x.Ready = false }), []string{"7m0s", "not Ready", "out-of-service"}},
		"detaching":    {quiet().attach(a).on(a, deleting), []string{"csi-attacher", "volumeattachment csi-" + a, "deadline exceeded"}},
		"third":        {quiet().attach(a, b, c).launcher("w", "1", a).launcher("w", "2", b).launcher("w", "3", c).with(func(w *world) { w.Migrating = []string{a, b, c} }), []string{"3 nodes (node-a, node-b, node-c)", "2 may"}},
		"node gone":    {quiet().attach(a).on(a, gone), []string{a, "delete volumeattachment csi-" + a}},
		"published":    {quiet().publish(b), []string{b, "take node-b=1785585600 out of the comment of disk pvc-1", "2026-08-01T12:00:00Z"}},
		"attached":     {quiet().attach(a).pod("x", a).with(func(w *world) { w.unpublish() }), []string{a, `"rds1 g7"`, "comment of disk pvc-1"}},
		"exported":     {quiet().with(func(w *world) { w.Told.Exported = true }), []string{"nobody", "/disk set pvc-1 nvme-tcp-export=no"}},
		"not exported": {quiet().attach(a).pod("x", a).with(func(w *world) { w.Told.Exported = false }), []string{a, "slot=pvc-1"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.world.look()
			assessment, _ := tc.world.after(time.Hour).look()
			if len(assessment.Events) != 1 {
				t.Fatalf("%d events: %v", len(assessment.Events), assessment.Events)
			}
			e := assessment.Events[0]
			for _, part := range append(tc.parts, "RDS volume of claim disk: ", "since 2026-08-01T12:00:00Z") {
				if !strings.Contains(e.Message, part) {
					t.Errorf("%q is not in: %s", part, e.Message)
				}
			}
			if e.Type != corev1.EventTypeWarning || e.Claim != "disk" || len(e.Message) > 1024 {
				t.Errorf("%s of %d bytes on %q", e.Type, len(e.Message), e.Claim)
			}
		})
	}
}
