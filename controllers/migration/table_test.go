package migration

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
)

var noon = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }

var web = types.NamespacedName{Namespace: "shop", Name: "web"}

// vmim is a version of a migration of the VMI web; its UID is "uid-" and its name.
func vmim(name, version string, created int, conditions ...dualattach.Condition) *kubevirtv1.VirtualMachineInstanceMigration {
	m := &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: web.Namespace, Name: name, UID: types.UID("uid-" + name), ResourceVersion: version,
			CreationTimestamp: metav1.NewTime(at(created))},
		Spec: kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: web.Name},
	}
	for _, c := range conditions {
		m.Status.Conditions = append(m.Status.Conditions, kubevirtv1.VirtualMachineInstanceMigrationCondition{Type: c.Type, Status: c.Status, Reason: c.Reason})
	}
	return m
}

func migrated(status corev1.ConditionStatus, reason string) dualattach.Condition {
	return dualattach.Condition{Type: dualattach.ConditionMigrated, Status: status, Reason: reason}
}

func timedOut(status corev1.ConditionStatus, reason string) dualattach.Condition {
	return dualattach.Condition{Type: dualattach.ConditionTimedOut, Status: status, Reason: reason}
}

// shows is the VMI as gathered, with these migrations.
func shows(migrations ...*kubevirtv1.VirtualMachineInstanceMigration) *gather.Instance {
	return &gather.Instance{Key: web, Migrations: migrations}
}

// tracked spells the entries: name, version, and "gone" since when.
func tracked(entries []*entry) []string {
	var out []string
	for _, e := range entries {
		text := e.known.Migration.Name + " v" + e.known.Migration.ResourceVersion
		if !e.known.VanishedAt.IsZero() {
			text += " gone " + e.known.VanishedAt.Sub(noon).String()
		}
		out = append(out, text)
	}
	return out
}

// TestTrack follows the migrations of one VMI from look to look.
func TestTrack(t *testing.T) {
	reported := migrated(corev1.ConditionTrue, "Completed")
	type look struct {
		reason string
		shows  *gather.Instance
		want   []string
	}
	for name, looks := range map[string][]look{
		"two migrations": {
			{"Oldest first, whatever the list says; the UID parts those of one second.",
				shows(vmim("c", "7", 60), vmim("b", "6", 0), vmim("a", "5", 0)), []string{"a v5", "b v6", "c v7"}},
		},
		"versions": {
			{"", shows(vmim("a", "9", 0)), []string{"a v9"}},
			{"The cache may be behind what we know.", shows(vmim("a", "8", 0)), []string{"a v9"}},
			{"Versions are numbers, not texts.", shows(vmim("a", "10", 0)), []string{"a v10"}},
		},
		"vanished": {
			{"", shows(vmim("a", "5", 0)), []string{"a v5"}},
			{"Gone: it goes on being watched, since now.", shows(), []string{"a v5 gone 1s"}},
			{"Since then it stays.", shows(), []string{"a v5 gone 1s"}},
			{"A new one is another one.", shows(vmim("b", "6", 9)), []string{"a v5 gone 1s", "b v6"}},
		},
		"reported": {
			{"What is over and said needs no watching.", shows(vmim("a", "5", 0, reported), vmim("b", "6", 9)), []string{"b v6"}},
			{"What we follow is followed until it is forgotten.", shows(vmim("b", "7", 9, reported)), []string{"b v7"}},
		},
		"nothing": {
			{"", shows(), nil},
		},
	} {
		t.Run(name, func(t *testing.T) {
			table := newTable()
			for i, l := range looks {
				if diff := cmp.Diff(l.want, tracked(table.track(l.shows, time.Time{}, at(i)))); diff != "" {
					t.Errorf("look %d: %s (-want +got):\n%s", i, l.reason, diff)
				}
			}
		})
	}
}

// TestTrackKeepsEntries: an entry is the same one from look to look, with all that
// this process did about it.
func TestTrackKeepsEntries(t *testing.T) {
	table := newTable()
	first := table.track(shows(vmim("a", "5", 0)), time.Time{}, noon)[0]
	first.made["x"], first.counted, first.late[dualattach.DualAttached] = true, true, true
	if again := table.track(shows(vmim("a", "6", 0)), time.Time{}, noon)[0]; again != first {
		t.Error("the second look made another entry")
	}
}

// TestForget leaves nothing behind, neither of a migration nor of its VMI.
func TestForget(t *testing.T) {
	table := newTable()
	table.track(shows(), time.Time{}, noon)
	if len(table.entries) != 0 {
		t.Error("a VMI without migrations is kept")
	}
	table.track(shows(vmim("a", "5", 0), vmim("b", "6", 0)), time.Time{}, noon)
	table.forget(web, "uid-a")
	if got := len(table.entries[web]); got != 1 {
		t.Errorf("%d left, want 1", got)
	}
	table.forget(web, "uid-b")
	table.forget(web, "uid-b")
	if len(table.entries) != 0 {
		t.Errorf("left: %v", table.entries)
	}
}

// TestSaw: the last event of a deleted VMIM carries its final status, which the
// cache never shows.
func TestSaw(t *testing.T) {
	final := vmim("a", "6", 0)
	final.Status.Phase = kubevirtv1.MigrationFailed
	table := newTable()
	table.saw(final)
	if len(table.entries) != 0 {
		t.Error("a deletion alone makes no entry")
	}
	e := table.track(shows(vmim("a", "5", 0)), time.Time{}, noon)[0]
	stranger := vmim("b", "7", 0)
	table.saw(stranger)
	table.saw(final)
	if e.known.Migration.Status.Phase != kubevirtv1.MigrationFailed || len(table.entries[web]) != 1 {
		t.Errorf("known: %+v", e.known.Migration.Status)
	}
	table.saw(vmim("a", "4", 0))
	if e.known.Migration != final {
		t.Error("an older version replaced the final one")
	}
}

// TestNewer: the later version of one object; where versions cannot be compared,
// the one that came last.
func TestNewer(t *testing.T) {
	for name, tc := range map[string]struct {
		before, after string
		first         bool
	}{
		"newer":     {"5", "6", false},
		"older":     {"6", "5", true},
		"longer":    {"9", "10", false},
		"the same":  {"5", "5", false},
		"none":      {"", "5", false},
		"not a one": {"6", "x", false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := vmim("a", tc.before, 0), vmim("a", tc.after, 0)
			if got := newer(a, b); (got == a) != tc.first {
				t.Errorf("newer(%q, %q) = %q", tc.before, tc.after, got.ResourceVersion)
			}
		})
	}
}

// TestKeys: which VMIs to look at when a node, a volume or an array changes.
func TestKeys(t *testing.T) {
	r := New(nil, nil, nil, dualattach.DefaultLimits, nil, nil, nil)
	e := r.table.track(shows(vmim("a", "5", 0), vmim("b", "6", 0)), time.Time{}, noon)[0]
	e.known.Source.Node, e.known.Target.Node = "node-a", "node-b"
	e.known.Claims = []gather.Claim{{Name: "disk", PV: "pv-disk"}}
	on := func(name string) int {
		return len(r.instancesOnNode(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	if on("node-a") != 1 || on("node-b") != 1 || on("node-c") != 0 {
		t.Error("a migration is looked at when its own nodes change, and only then")
	}
	using := func(pv string) []types.NamespacedName {
		return r.table.keys(func(e *entry) bool { return e.uses(pv) })
	}
	if diff := cmp.Diff([]types.NamespacedName{web}, using("pv-disk")); diff != "" {
		t.Errorf("users of the volume (-want +got):\n%s", diff)
	}
	if got := using("pv-other"); got != nil {
		t.Errorf("users of another volume: %v", got)
	}
	if got := r.instancesUnderWay(t.Context(), nil); len(got) != 0 {
		t.Errorf("a new view of the array concerns only what is dual-attached: %v", got)
	}
	e.stage = dualattach.DualAttached
	if got := r.instancesUnderWay(t.Context(), nil); len(got) != 1 || got[0].NamespacedName != web {
		t.Errorf("dual-attached: %v", got)
	}
}

// TestTrackLost: at a VMI's first sight a migration that is gone is looked for, and
// never again, however it went on; a VMI that is gone is a new one when it comes back.
func TestTrackLost(t *testing.T) {
	table := newTable()
	in := shows()
	in.VMI = &kubevirtv1.VirtualMachineInstance{}
	in.VMI.Namespace, in.VMI.Name = web.Namespace, web.Name
	start, end := metav1.NewTime(noon.Add(-time.Minute)), metav1.NewTime(noon.Add(-time.Second))
	in.VMI.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{MigrationUID: "uid-a", StartTimestamp: &start, EndTimestamp: &end, Completed: true}
	lastRun := noon.Add(-30 * time.Second)
	got := table.track(in, lastRun, noon)
	if len(got) != 1 || !got[0].known.Lost || !got[0].known.VanishedAt.Equal(noon) || got[0].known.Migration.Name != "(deleted)" {
		t.Fatalf("%+v", got)
	}
	table.forget(web, "uid-a")
	if again := table.track(in, lastRun, noon); len(again) != 0 {
		t.Errorf("found again: %+v", again[0].known)
	}
	gone := shows()
	table.track(gone, lastRun, noon)
	if len(table.met) != 0 {
		t.Error("a VMI that is gone is still known")
	}
}
