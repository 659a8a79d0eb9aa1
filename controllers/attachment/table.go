package attachment

import (
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
)

// entry is one volume as last decided about.
type entry struct {
	claim    types.NamespacedName
	handle   string
	told     string // what the array was told, spelled
	memory   unexplained.Memory
	standing []unexplained.Finding
	// instances are the VMIs that use it.
	instances []types.NamespacedName
	// waits: something is compared with the next view of the array, whatever it says.
	waits bool
}

// table holds the volumes. It is what the gauges are computed from, and how long
// anything has lasted; what was said of it is in events.
type table struct {
	wakeups *wakeups
	mu      sync.Mutex
	volumes map[string]*entry
}

func newTable() *table { return &table{wakeups: &wakeups{}, volumes: map[string]*entry{}} }

// memory is what the last decision about a volume handed on. looked is false when
// this process has not decided about it yet.
func (t *table) memory(volume string) (m unexplained.Memory, looked bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, looked := t.volumes[volume]
	if !looked {
		return nil, false
	}
	return e.memory, true
}

// keep takes over a decision that was acted upon, and wakes the VMIs for which it may
// be news.
func (t *table) keep(v *gather.Volume, a unexplained.Assessment) {
	e := &entry{
		claim:  types.NamespacedName{Namespace: v.Claim.Namespace, Name: v.Claim.Name},
		handle: v.Handle, told: spell(v.Snapshot.Told), memory: a.Memory, standing: a.Standing, instances: v.Instances,
		waits: slices.ContainsFunc(a.Pending, func(f unexplained.Finding) bool { return f.Kind.OfArray() }),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.volumes[v.Name]
	t.volumes[v.Name] = e
	if before == nil || before.unexplained() != e.unexplained() || !slices.Equal(before.instances, e.instances) {
		t.wakeups.add(before.users())
		t.wakeups.add(e.users())
	}
}

// forget drops a volume that is gone.
func (t *table) forget(volume string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wakeups.add(t.volumes[volume].users())
	delete(t.volumes, volume)
}

func (e *entry) users() []types.NamespacedName {
	if e == nil {
		return nil
	}
	return e.instances
}

// unexplained is what stands about the volume that a VMI is to say, or empty.
func (e *entry) unexplained() string {
	for _, f := range e.standing {
		if f.Kind == unexplained.DualAttach {
			return f.About(e.claim.Name)
		}
	}
	return ""
}

// unexplained lists what stands about volumes that a VMI is to say. looked is false
// while one of them has not been looked at.
func (t *table) unexplained(volumes []string) (found []string, looked bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, volume := range volumes {
		e := t.volumes[volume]
		if e == nil {
			return nil, false
		}
		if text := e.unexplained(); text != "" {
			found = append(found, text)
		}
	}
	return found, true
}

// stirred lists the volumes about which a new view of the array tells something.
func (t *table) stirred(told func(handle string) unexplained.Told) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for name, e := range t.volumes {
		if e.waits || spell(told(e.handle)) != e.told {
			names = append(names, name)
		}
	}
	return names
}

// spell is what the array was told, without the time.
func spell(told unexplained.Told) string {
	return fmt.Sprintf("%t %s %s %t", told.Fresh(), told.Ledger, told.Ledger.Problem, told.Exported)
}

// each calls f for every volume, under the lock.
func (t *table) each(f func(*entry)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.volumes {
		f(e)
	}
}
