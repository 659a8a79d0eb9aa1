package dualattach

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
)

// eventKey is what an event's name is made of, but for the migration.
type eventKey struct{ reason, claim, step string }

// history is what a whole migration showed so far.
type history struct {
	decisions int
	last      Assessment
	kept      marks // on the VMIM
	sharing   bool  // the source held something at the last decision
	final     bool
	withdrawn bool // copies blocks after all
	result    Result
	results   int
	writes    int
	entered   int // stages
	passed    int // deadlines
	settled   int // passed deadlines resolved
	ceased    int // releases during which the sharing turned
	made      map[eventKey]Event
	spoken    int // writes on the VMI
}

// TestRandomHistories checks what must hold in every migration, whatever happens.
func TestRandomHistories(t *testing.T) {
	stages, results := map[Stage]int{}, map[Result]int{}
	rapid.Check(t, func(t *rapid.T) {
		w, h := newWorld(t), &history{made: map[eventKey]Event{}}
		for range rapid.IntRange(0, 6).Draw(t, "steps before the operator starts") {
			steps[drawStep.Draw(t, "missed step")].run(w, t)
		}
		w.restart(t)
		for range rapid.IntRange(4, 12).Draw(t, "steps") {
			if h.forgotten(w) {
				return
			}
			h.decide(t, w)
			stages[h.last.Stage]++
			steps[drawStep.Draw(t, "step")].run(w, t)
		}
		if h.forgotten(w) {
			return
		}
		h.checkEnd(t, w)
		results[h.result]++
	})
	for stage := Undecided; stage <= Superseded; stage++ {
		if stages[stage] == 0 && !t.Failed() {
			t.Errorf("no history reached %s: the steps prove nothing about it", stage)
		}
	}
	for _, result := range Results() {
		if results[result] == 0 && !t.Failed() {
			t.Errorf("no history ended as %s: the steps prove nothing about it", result)
		}
	}
}

// forgotten: what is over, and whose VMIM is gone, nobody asks about any more; nor
// about a VMIM that was gone when the operator started.
func (h *history) forgotten(w *world) bool {
	return w.lost || (h.final && !w.VanishedAt.IsZero())
}

// decide makes one decision, checks it, and keeps its conditions as the writer does.
func (h *history) decide(t *rapid.T, w *world) {
	now := Decide(w.Snapshot)
	h.checkStage(t, w, now)
	h.checkResult(t, now)
	h.checkDeadline(t, w, now)
	if h.decisions++; h.decisions%2 == 0 { // each asks for further decisions, which take their time
		h.checkOrder(t, w, now)
	} else {
		h.checkTimer(t, w, now)
	}
	h.checkEvents(t, w, now)
	h.checkWrites(t, w, now)
	h.checkInstance(t, w, now)
	h.last, h.sharing = now, w.sourceHolds()
	h.final = h.final || now.Stage.Final()
	h.withdrawn = h.withdrawn || now.Stage == NotInvolved && now.Conditions != nil
}

// checkOrder: lists in another order give the same answer, events apart, whose
// order follows the volumes.
func (h *history) checkOrder(t *rapid.T, w *world, now Assessment) {
	other := Decide(w.shuffled(t))
	byKey := func(x, y Event) int {
		return strings.Compare(x.Reason+"/"+x.Step+"/"+x.Claim, y.Reason+"/"+y.Step+"/"+y.Claim)
	}
	sorted := now
	sorted.Events = slices.SortedFunc(slices.Values(now.Events), byKey)
	other.Events = slices.SortedFunc(slices.Values(other.Events), byKey)
	if !reflect.DeepEqual(sorted, other) {
		t.Fatalf("the order of lists makes a difference (-one +other):\n%s", cmp.Diff(sorted, other))
	}
}

// checkStage: no final stage is ever left, and none is Completed while the source
// is attached.
func (h *history) checkStage(t *rapid.T, w *world, now Assessment) {
	if h.withdrawn && (now.Stage != NotInvolved || !now.Reported || now.Conditions != nil || now.Events != nil) {
		t.Fatalf("it was taken back, and now: %+v", now)
	}
	if h.final && (now.Stage != h.last.Stage || !now.Reported || now.Conditions != nil || now.Events != nil) {
		t.Fatalf("the final stage %s was left: %+v", h.last.Stage, now)
	}
	if now.Stage == Completed && !now.Reported && w.sourceHolds() {
		t.Fatalf("Completed while %s holds a volume", w.Source.Node)
	}
	if now.Stage.Final() && (now.Deadline.Set() || now.Overdue() || !now.NextAt.IsZero()) {
		t.Fatalf("the final stage %s has a clock: %+v", now.Stage, now)
	}
}

// checkResult: there is none before an end or a passed deadline, then one for ever.
func (h *history) checkResult(t *rapid.T, now Assessment) {
	if h.result != "" && now.Result != h.result {
		t.Fatalf("the result %s became %q", h.result, now.Result)
	}
	if now.Stage.Final() && now.Result == "" {
		t.Fatalf("%s without a result", now.Stage)
	}
	if h.result == "" && now.Result != "" {
		h.results++
		if !now.Stage.Final() && now.Result != Timeout {
			t.Fatalf("%s is known in %s already", now.Result, now.Stage)
		}
	}
	h.result = now.Result
}

// checkDeadline: overdue is exactly past the deadline, and no clock starts before
// the target pod's creation or runs backwards.
func (h *history) checkDeadline(t *rapid.T, w *world, now Assessment) {
	d := now.Deadline
	if now.Overdue() != (d.Set() && !w.Now.Before(d.At)) {
		t.Fatalf("Overdue = %t at %s with the deadline %s", now.Overdue(), w.Now, d.At)
	}
	if d.Set() && (d.Start.Before(w.Target.PodCreated) || d.At.Before(d.Start) || d.Whose == "") {
		t.Fatalf("deadline %+v, the target pod being from %s", d, w.Target.PodCreated)
	}
	if got := marksOf(now.Conditions); now.Overdue() && got.TimedOut != (mark{corev1.ConditionTrue, now.Late.String()}) {
		t.Fatalf("overdue in %s, the condition says %v", now.Stage, got.TimedOut)
	}
}

// checkTimer: until NextAt time alone changes nothing that is written, and at
// NextAt the answer is another one, so a deadline needs no event to be noticed.
func (h *history) checkTimer(t *rapid.T, w *world, now Assessment) {
	if now.NextAt.IsZero() {
		if now.Deadline.Set() && !now.Overdue() {
			t.Fatalf("nobody comes back for the deadline %s", now.Deadline.At)
		}
		return
	}
	if !now.NextAt.After(w.Now) || now.NextAt.After(now.Deadline.At) {
		t.Fatalf("NextAt = %s at %s with the deadline %s", now.NextAt, w.Now, now.Deadline.At)
	}
	later := w.Snapshot
	later.Now = now.NextAt.Add(-time.Nanosecond)
	if before := Decide(later); marksOf(before.Conditions) != marksOf(now.Conditions) || len(before.Events) != len(now.Events) {
		t.Fatalf("something happens before NextAt %s", now.NextAt)
	}
	later.Now = now.NextAt
	if then := Decide(later); !then.Overdue() && len(then.Events) == len(now.Events) && len(w.Volumes) > 0 {
		t.Fatalf("nothing happens at NextAt %s", now.NextAt)
	}
}

// checkEvents: an assessment never holds two events of one name, one name never
// means two things, and a claim hears of one ending only.
func (h *history) checkEvents(t *rapid.T, w *world, now Assessment) {
	seen := map[eventKey]bool{}
	for _, e := range now.Events {
		key := eventKey{e.Reason, e.Claim, e.Step}
		if seen[key] {
			t.Fatalf("two events %+v at once", key)
		}
		seen[key] = true
		if before, ok := h.made[key]; ok && before.Type != e.Type {
			t.Fatalf("event %+v is %s, was %s", key, e.Type, before.Type)
		}
		h.made[key] = e
	}
	for _, claim := range w.claims {
		_, completed := h.made[eventKey{EventCompleted, claim, ""}]
		_, failed := h.made[eventKey{EventFailed, claim, ""}]
		if completed && failed {
			t.Fatalf("claim %s hears of a success and of a failure", claim)
		}
	}
}

// checkWrites: the conditions change when a stage is entered, a deadline passes or
// all is resolved, and at most once more in a release, when the source lets go
// too; a passed deadline is never taken back but by Resolved.
func (h *history) checkWrites(t *rapid.T, w *world, now Assessment) {
	if now.Conditions == nil {
		return
	}
	before, after := h.kept, marksOf(now.Conditions)
	entered := now.Stage != h.last.Stage
	passed := now.Overdue() && before.TimedOut != mark{corev1.ConditionTrue, now.Late.String()}
	settled := before.TimedOut.Status == corev1.ConditionTrue && (now.Stage.Final() || now.Stage == NotInvolved)
	ceased := !entered && h.sharing != w.sourceHolds() && (now.Stage == ReleasingSource || now.Stage == ReleasingTarget)
	for _, happened := range []struct {
		yes   bool
		count *int
	}{{entered, &h.entered}, {passed, &h.passed}, {settled, &h.settled}, {ceased, &h.ceased}} {
		if happened.yes {
			*happened.count++
		}
	}
	if before.TimedOut.Status == corev1.ConditionTrue && after.TimedOut.Status != corev1.ConditionTrue && after.TimedOut.Reason != ReasonResolved {
		t.Fatalf("a passed deadline was taken back: %v, then %v", before.TimedOut, after.TimedOut)
	}
	if passed {
		h.checkEscalation(t, now)
	}
	if !store(&w.Snapshot, now.Conditions) {
		return
	}
	h.kept = after
	h.writes++
	if !entered && !passed && !settled && !ceased {
		t.Fatalf("a write for nothing in %s (-before +after):\n%s", now.Stage, cmp.Diff(before, after))
	}
}

// checkInstance: a VMI that can be written on says exactly what the VMIM says of
// deadlines, and is written on for a passed deadline and its resolution only.
func (h *history) checkInstance(t *rapid.T, w *world, now Assessment) {
	var under []Assessment
	if !now.Reported {
		under = append(under, now)
	}
	say := DecideInstance(w.Instance, under)
	if say == nil {
		return
	}
	if h.spoken++; h.spoken > h.passed+h.settled {
		t.Fatalf("%d writes on the VMI for %d deadlines and %d resolutions; the last is %+v", h.spoken, h.passed, h.settled, *say)
	}
	if told := marksOf(now.Conditions).TimedOut; told != (mark{say.Status, say.Reason}) {
		t.Fatalf("the VMI is to say %+v, the VMIM says %v", *say, told)
	}
	w.Instance = w.Instance.DeepCopy()
	storeInstance(w.Instance, say)
	if again := DecideInstance(w.Instance, under); again != nil {
		t.Fatalf("the VMI says it and is to say it again: %+v", *again)
	}
}

// checkEscalation: what passes is told to the VMI and every claim.
func (h *history) checkEscalation(t *rapid.T, now Assessment) {
	told := 0
	for _, e := range now.Events {
		if e.Step == now.Stage.String() && (e.Reason == EventFailed || e.Reason == EventTimedOut) {
			told++
		}
	}
	if told == 0 {
		t.Fatalf("a deadline passed in %s and nobody was told", now.Stage)
	}
}

// checkEnd: everything comes to an end with exactly one result, and costs no more
// writes than there was to say.
func (h *history) checkEnd(t *rapid.T, w *world) {
	w.end()
	h.decide(t, w)
	if h.withdrawn {
		if h.results != 0 && h.result != Timeout {
			t.Fatalf("what was taken back has the result %s", h.result)
		}
		return
	}
	if h.last.Stage == Undecided || h.last.Stage == NotInvolved {
		if h.results != 0 || h.writes != 0 {
			t.Fatalf("%d results and %d writes of a migration that is none of ours", h.results, h.writes)
		}
		return
	}
	if w.active() && !h.last.Stage.Final() {
		w.vanish(t) // claims out of sight end with the VMIM
		h.decide(t, w)
	}
	if !h.last.Stage.Final() || h.results != 1 {
		t.Fatalf("%s with %d results at the end of everything", h.last.Stage, h.results)
	}
	if limit := h.entered + h.passed + h.settled + h.ceased; h.writes > limit {
		t.Fatalf("%d writes for %d stages, %d deadlines, %d resolutions and %d releases", h.writes, h.entered, h.passed, h.settled, h.ceased)
	}
}
