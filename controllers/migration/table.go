package migration

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
)

// entry is one migration that is watched: what is known of it and what this
// process has done about it. One worker at a time has it in hand, as all
// migrations of one VMI share a key; the table's lock guards what others read.
type entry struct {
	known   gather.Known
	stage   dualattach.Stage
	entered time.Time // of the stage
	latest  dualattach.Assessment
	made    map[string]bool // events made by this process
	counted bool
	late    map[dualattach.Stage]bool // stages whose timeout is counted
}

// table holds the migrations under way. Everything that must survive a restart is
// on objects; this is only what the cluster cannot show any more, and the gauges.
type table struct {
	mu      sync.Mutex
	entries map[types.NamespacedName]map[types.UID]*entry
	met     map[types.NamespacedName]bool // VMIs that this process has looked at
}

func newTable() *table {
	return &table{entries: map[types.NamespacedName]map[types.UID]*entry{}, met: map[types.NamespacedName]bool{}}
}

// track updates the table from the VMI's migrations as they are now and returns
// those to decide about, oldest first. At a VMI's first sight that may be one that is
// gone, of before lastRun, when an operator ran last.
func (t *table) track(in *gather.Instance, lastRun, now time.Time) []*entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	tracked := t.entries[in.Key]
	if tracked == nil {
		tracked = map[types.UID]*entry{}
	}
	present := map[types.UID]bool{}
	for _, m := range in.Migrations {
		present[m.UID] = true
		e := tracked[m.UID]
		switch {
		case e != nil:
			e.known.Migration = newer(e.known.Migration, m)
		case !dualattach.Reported(m):
			tracked[m.UID] = newEntry(m)
		}
	}
	if m := t.lost(in, lastRun); m != nil {
		e := newEntry(m)
		e.known.Lost, e.known.VanishedAt = true, now
		tracked[m.UID] = e
	}
	for uid, e := range tracked {
		if !present[uid] && e.known.VanishedAt.IsZero() {
			e.known.VanishedAt = now
		}
	}
	if len(tracked) > 0 {
		t.entries[in.Key] = tracked
	}
	return slices.SortedFunc(maps.Values(tracked), func(a, b *entry) int {
		x, y := a.known.Migration, b.known.Migration
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time), strings.Compare(string(x.UID), string(y.UID)))
	})
}

func newEntry(m *kubevirtv1.VirtualMachineInstanceMigration) *entry {
	return &entry{known: gather.Known{Migration: m}, made: map[string]bool{}, late: map[dualattach.Stage]bool{}}
}

// lost looks for a migration that nobody saw the end of, once for each VMI: what ends
// from then on is seen.
func (t *table) lost(in *gather.Instance, lastRun time.Time) *kubevirtv1.VirtualMachineInstanceMigration {
	if in.VMI == nil {
		delete(t.met, in.Key)
		return nil
	}
	if t.met[in.Key] {
		return nil
	}
	t.met[in.Key] = true
	return in.Lost(lastRun)
}

// saw keeps the last status of a VMIM that is being deleted: the watch's last
// event carries it, the cache does not.
func (t *table) saw(m *kubevirtv1.VirtualMachineInstanceMigration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := types.NamespacedName{Namespace: m.Namespace, Name: m.Spec.VMIName}
	if e := t.entries[key][m.UID]; e != nil {
		e.known.Migration = newer(e.known.Migration, m)
	}
}

// newer is the later version of one VMIM: the cache may be behind our own write.
func newer(a, b *kubevirtv1.VirtualMachineInstanceMigration) *kubevirtv1.VirtualMachineInstanceMigration {
	if order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion); err == nil && order > 0 {
		return a
	}
	return b
}

// update runs a change of an entry under the lock.
func (t *table) update(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
}

// forget drops a migration that needs no more watching.
func (t *table) forget(key types.NamespacedName, uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.entries[key], uid)
	if len(t.entries[key]) == 0 {
		delete(t.entries, key)
	}
}

// keys lists the VMIs with a watched migration for which keep says so.
func (t *table) keys(keep func(*entry) bool) []types.NamespacedName {
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []types.NamespacedName
	for key, tracked := range t.entries {
		for _, e := range tracked {
			if keep(e) {
				keys = append(keys, key)
				break
			}
		}
	}
	return keys
}

// nodesSharing lists the nodes of the watched migrations that share a volume.
func (t *table) nodesSharing(pv string) []string {
	var nodes []string
	t.each(func(_ types.NamespacedName, e *entry) {
		if e.uses(pv) {
			nodes = append(nodes, e.known.Source.Node, e.known.Target.Node)
		}
	})
	return nodes
}

// each calls f for every watched migration, under the lock.
func (t *table) each(f func(key types.NamespacedName, e *entry)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, tracked := range t.entries {
		for _, e := range tracked {
			f(key, e)
		}
	}
}
