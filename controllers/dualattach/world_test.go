package dualattach

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"pgregory.net/rapid"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// world is a small cluster in which one migration happens. Its steps are what a
// real cluster may show in any order that KubeVirt and the attach/detach
// controller allow, and some that they should not.
type world struct {
	builder
	claims []string
	lost   bool // the operator restarted after the VMIM had vanished: nobody watches any more
}

// step is one thing that happens; it does nothing where it cannot happen.
type step struct {
	name   string
	weight int
	run    func(w *world, t *rapid.T)
}

var steps = []step{
	{"time passes", 5, (*world).timePasses},
	{"KubeVirt goes on", 6, (*world).advance},
	{"the target attaches", 6, (*world).attachTarget},
	{"the source detaches", 4, func(w *world, t *rapid.T) { w.toggle(t, a, false) }},
	{"the target detaches", 2, func(w *world, t *rapid.T) { w.toggle(t, b, false) }},
	{"the source attaches again", 1, func(w *world, t *rapid.T) { w.toggle(t, a, true) }},
	{"a third node attaches", 1, func(w *world, t *rapid.T) { w.toggle(t, c, true) }},
	{"the migration fails", 1, (*world).fail},
	{"the migration is cancelled", 1, (*world).cancel},
	{"the VMIM vanishes", 1, (*world).vanish},
	{"the VMI is final", 1, func(w *world, _ *rapid.T) {
		if w.Instance != nil {
			w.Instance.Status.Phase = kubevirtv1.Failed
		}
	}},
	{"the VMI is gone", 1, func(w *world, _ *rapid.T) { w.Instance = nil }},
	{"a node changes", 2, (*world).nodeChanges},
	{"the array answers", 2, (*world).arrayAnswers},
	{"the array's view is stale", 1, func(w *world, _ *rapid.T) {
		for i := range w.Volumes {
			w.Volumes[i].Ledger = rds.Ledger{Problem: "stale"}
		}
	}},
	{"an administrator sets a limit", 1, (*world).limits},
	{"a newer migration begins", 1, (*world).succeed},
	{"the VM is started anew", 1, (*world).startAnew},
	{"the claims go out of sight", 1, func(w *world, _ *rapid.T) { w.Volumes = nil }},
	{"it turns out to copy blocks", 1, func(w *world, _ *rapid.T) { w.Copied = w.Copied || w.active() }},
	{"the operator restarts", 1, (*world).restart},
}

// drawStep picks by weight.
var drawStep = rapid.SampledFrom(func() []int {
	var picks []int
	for i, s := range steps {
		picks = append(picks, slices.Repeat([]int{i}, s.weight)...)
	}
	return picks
}())

// newWorld has a VMI on node-a with up to three volumes, and a new migration
// whose target pod is not scheduled.
func newWorld(t *rapid.T) *world {
	w := &world{builder: *migration()}
	w.Now = at(-5)
	w.Target = Side{}
	w.Migration.Status.Phase = kubevirtv1.MigrationPending
	w.claims = []string{"disk", "data", "logs"}[:rapid.IntRange(1, 3).Draw(t, "volumes")]
	w.Volumes = nil
	for _, claim := range w.claims {
		w.Volumes = append(w.Volumes, volume(claim, a))
	}
	return w
}

func (w *world) timePasses(t *rapid.T) {
	w.Now = w.Now.Add(time.Duration(rapid.SampledFrom([]int{1, 20, 100, 200, 450, 1000, 4000}).Draw(t, "seconds")) * time.Second)
}

func (w *world) active() bool { return !w.Migration.IsFinal() && w.VanishedAt.IsZero() }

// enter moves the VMIM into a phase now.
func (w *world) enter(phase kubevirtv1.VirtualMachineInstanceMigrationPhase) {
	w.Migration = w.Migration.DeepCopy()
	w.phase(phase, int(w.Now.Sub(noon)/time.Second))
}

// advance moves the VMIM one phase on; the target pod is scheduled first.
func (w *world) advance(*rapid.T) {
	switch {
	case !w.active():
	case w.Target.Node == "":
		w.Target = Side{Node: b, Ready: true, Pod: "launcher-b", PodCreated: w.Now}
		w.enter(kubevirtv1.MigrationScheduling)
	case w.Instance == nil || w.Instance.IsFinal():
		w.enter(kubevirtv1.MigrationFailed)
	case w.handedOffState() == nil:
		w.Instance = w.Instance.DeepCopy()
		w.handedOff(int(w.Now.Sub(noon) / time.Second))
	case !w.handedOffState().Completed:
		w.endState(false)
		w.Instance.Status.NodeName = b
	default:
		w.enter(kubevirtv1.MigrationSucceeded)
	}
}

func (w *world) handedOffState() *kubevirtv1.VirtualMachineInstanceMigrationState {
	return w.Snapshot.handedOff()
}

func (w *world) endState(failed bool) {
	w.Instance = w.Instance.DeepCopy()
	state := w.Instance.Status.MigrationState
	state.Completed, state.Failed = true, failed
	state.EndTimestamp = &metav1.Time{Time: w.Now.Truncate(time.Second)}
}

func (w *world) fail(*rapid.T) {
	if !w.active() || (w.Instance != nil && w.Instance.Status.NodeName == b) {
		return
	}
	if w.handedOffState() != nil {
		w.endState(true)
	}
	w.enter(kubevirtv1.MigrationFailed)
}

func (w *world) cancel(t *rapid.T) {
	if w.active() && w.Instance != nil && w.Instance.Status.NodeName == a {
		w.Migration = w.Migration.DeepCopy()
		w.cancelled()
		w.fail(t)
	}
}

func (w *world) vanish(*rapid.T) {
	if w.VanishedAt.IsZero() {
		w.VanishedAt = w.Now
	}
}

func (w *world) attachTarget(t *rapid.T) {
	if w.Target.Node != "" {
		w.toggle(t, b, true)
	}
}

// toggle attaches one volume on a node, or detaches it from there.
func (w *world) toggle(t *rapid.T, node string, attach bool) {
	if len(w.Volumes) == 0 {
		return
	}
	v := &w.Volumes[rapid.IntRange(0, len(w.Volumes)-1).Draw(t, "volume")]
	v.Attachments = slices.DeleteFunc(slices.Clone(v.Attachments), func(x Attachment) bool { return x.Node == node })
	if attach {
		v.Attachments = append(v.Attachments, Attachment{Node: node, Attached: true, Created: w.Now})
	}
}

func (w *world) nodeChanges(t *rapid.T) {
	side := rapid.SampledFrom([]*Side{&w.Source, &w.Target}).Draw(t, "side")
	side.Ready = side.Node != "" && !side.Ready
}

// arrayAnswers: the ledgers tell of every attachment, since its creation.
func (w *world) arrayAnswers(*rapid.T) {
	for i, v := range w.Volumes {
		ledger := rds.Ledger{Known: true}
		for _, x := range v.Attachments {
			ledger.Publications = append(ledger.Publications, rds.Publication{Node: x.Node, Since: x.Created})
		}
		w.Volumes[i].Ledger = ledger
	}
}

func (w *world) limits(t *rapid.T) {
	if w.Instance != nil {
		w.Instance = w.Instance.DeepCopy()
		w.annotate(rapid.SampledFrom([]string{"30", "10m", "soon"}).Draw(t, "limit"))
	}
}

// succeed: a newer migration takes the VMI over once this one is final.
func (w *world) succeed(t *rapid.T) {
	if w.active() || w.Instance == nil {
		return
	}
	w.SuccessorTarget = rapid.SampledFrom([]string{a, b, c}).Draw(t, "successor's target")
	w.Instance = w.Instance.DeepCopy()
	w.Instance.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{MigrationUID: otherMigration}
}

// startAnew: another VMI has the name.
func (w *world) startAnew(t *rapid.T) {
	w.Instance = nil
	w.SuccessorTarget = rapid.SampledFrom([]string{a, b, c}).Draw(t, "where")
}

func (w *world) restart(*rapid.T) {
	w.Since = w.Now
	w.lost = !w.VanishedAt.IsZero()
}

// end lets everything come to rest: the VMI is gone and nothing is attached.
func (w *world) end() {
	w.Instance = nil
	for i := range w.Volumes {
		w.Volumes[i].Attachments = nil
	}
}

// shuffled is the same snapshot with every list in another order.
func (w *world) shuffled(t *rapid.T) Snapshot {
	s := w.Snapshot
	reorder := rapid.Bool()
	s.Volumes = slices.Clone(s.Volumes)
	slices.Reverse(s.Volumes)
	for i := range s.Volumes {
		s.Volumes[i].Attachments = slices.Clone(s.Volumes[i].Attachments)
		if reorder.Draw(t, "reverse attachments") {
			slices.Reverse(s.Volumes[i].Attachments)
		}
	}
	s.Migration = s.Migration.DeepCopy()
	slices.Reverse(s.Migration.Status.Conditions)
	slices.Reverse(s.Migration.Status.PhaseTransitionTimestamps)
	return s
}

// sourceHolds reports whether the source holds any volume. That turns
// storageDualAttached during a release.
func (w *world) sourceHolds() bool { return extent(w.Volumes, w.Source.Node) != None }
