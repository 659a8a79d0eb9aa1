package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/gate"
)

// act is one write of the operator: about a VM, its claim or its migration, which
// all bear one name.
type act struct{ vm, write string }

// moment is when the operator is to die.
type moment int

const (
	before moment = iota // the API server never hears of the write
	after                // the write is stored, and the operator never learns it
)

// crasher stands at the operator's gate. When a write comes that it is armed for,
// it holds that write or its answer, and every write after it, until the operator
// is dead.
type crasher struct {
	namespace string

	mu      sync.Mutex
	armed   map[act]moment
	tripped bool
	passed  int // on to the API server, not answered yet
	hits    []string
	// applied are the writes that were stored, by VM and in their order.
	applied map[string][]string
	said    map[string]*kubevirtv1.VirtualMachineInstanceMigration // conditions of VMIMs, by VM
	// committed are the VMs whose result is on the VMIM; answered counts, by result,
	// those whose answer reached the process that runs now.
	committed map[string]bool
	answered  map[string]float64
}

func newCrasher(namespace string) *crasher {
	return &crasher{
		namespace: namespace, armed: map[act]moment{}, applied: map[string][]string{},
		said:      map[string]*kubevirtv1.VirtualMachineInstanceMigration{},
		committed: map[string]bool{}, answered: map[string]float64{},
	}
}

// arm has the operator die at a write: first before it and its successor after it,
// or only after it.
func (c *crasher) arm(a act, first moment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed[a] = first
}

// trip holds everything from now on.
func (c *crasher) trip() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tripped = true
}

// holds reports whether the operator waits to be killed.
func (c *crasher) holds() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tripped
}

// calm reports whether all that was passed on is answered.
func (c *crasher) calm() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passed == 0
}

// counted are the results that the running process was told to be stored, which it
// is to have counted.
func (c *crasher) counted() map[string]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	results := map[string]float64{}
	for result, n := range c.answered {
		results[result] = n
	}
	return results
}

// reset lets the next process write.
func (c *crasher) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tripped, c.answered = false, map[string]float64{}
}

// done reports whether all these writes of a VM are stored and none of them is one
// that the operator still is to die at.
func (c *crasher) done(vm string, writes ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(writes, func(w string) bool {
		_, waits := c.armed[act{vm, w}]
		return waits || !slices.Contains(c.applied[vm], w)
	})
}

func (c *crasher) stored(vm string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.applied[vm])
}

func (c *crasher) hook() gate.Hook { return gate.Hook{Before: c.before, After: c.after} }

func (c *crasher) before(ctx context.Context, w gate.Write) error {
	c.mu.Lock()
	a, _, ours := c.read(w)
	if when, armed := c.armed[a]; ours && armed && when == before {
		c.armed[a], c.tripped = after, true
		c.hits = append(c.hits, fmt.Sprintf("%s, before %s", a.vm, a.write))
	}
	held := c.tripped
	if !held {
		c.passed++
	}
	c.mu.Unlock()
	return hold(ctx, held)
}

func (c *crasher) after(ctx context.Context, w gate.Write, status int) error {
	c.mu.Lock()
	c.passed--
	swallow := false
	a, conditions, ours := c.read(w)
	if ours && status < http.StatusBadRequest {
		c.applied[a.vm] = append(c.applied[a.vm], a.write)
		if conditions != nil {
			c.said[a.vm] = conditions
		}
		if when, armed := c.armed[a]; armed && when == after {
			delete(c.armed, a)
			c.tripped, swallow = true, true
			c.hits = append(c.hits, fmt.Sprintf("%s, after %s", a.vm, a.write))
		}
		if result := resultOf(conditions); result != "" && !c.committed[a.vm] {
			c.committed[a.vm] = true
			if !swallow {
				c.answered[result]++
			}
		}
	}
	c.mu.Unlock()
	return hold(ctx, swallow)
}

// hold waits for the client's death.
func hold(ctx context.Context, held bool) error {
	if !held {
		return nil
	}
	<-ctx.Done()
	return gate.ErrCut
}

// read names a write. conditions are what the VMIM says with it.
func (c *crasher) read(w gate.Write) (a act, conditions *kubevirtv1.VirtualMachineInstanceMigration, ours bool) {
	path := strings.Split(strings.Trim(w.Path, "/"), "/")
	i := slices.Index(path, "namespaces")
	if i < 0 || len(path) < i+3 || path[i+1] != c.namespace {
		return act{}, nil, false
	}
	switch rest := path[i+2:]; {
	case rest[0] == "events":
		object, _, err := clientgoscheme.Codecs.UniversalDeserializer().Decode(w.Body, nil, nil)
		event, ok := object.(*corev1.Event)
		if err != nil || !ok {
			return act{}, nil, false
		}
		return act{event.InvolvedObject.Name, "event " + event.Reason}, nil, true
	case rest[0] == "virtualmachineinstancemigrations" && len(rest) == 3:
		m := c.said[rest[1]]
		if m == nil {
			m = &kubevirtv1.VirtualMachineInstanceMigration{}
		}
		m = m.DeepCopy()
		for _, e := range patched[kubevirtv1.VirtualMachineInstanceMigrationCondition](w.Body) {
			m.Status.Conditions = slices.DeleteFunc(m.Status.Conditions, func(h kubevirtv1.VirtualMachineInstanceMigrationCondition) bool { return h.Type == e.Type })
			m.Status.Conditions = append(m.Status.Conditions, e)
		}
		return act{rest[1], "VMIM " + conditionOf(m, dualattach.ConditionMigrated).Reason + "/" + conditionOf(m, dualattach.ConditionTimedOut).Reason}, m, true
	case rest[0] == "virtualmachineinstances" && len(rest) == 2:
		for _, e := range patched[kubevirtv1.VirtualMachineInstanceCondition](w.Body) {
			return act{rest[1], "VMI " + string(e.Status) + "/" + e.Reason}, nil, true
		}
		return act{rest[1], "VMI"}, nil, true
	}
	return act{path[len(path)-1], w.Method + " " + w.Path}, nil, true
}

// patched are the conditions that a JSON patch adds or replaces.
func patched[C any](body []byte) []C {
	var steps []step
	if json.Unmarshal(body, &steps) != nil {
		return nil
	}
	var conditions []C
	for _, s := range steps {
		var condition C
		if s.Op != "test" && strings.HasPrefix(s.Path, "/status/conditions/") && json.Unmarshal(s.Value, &condition) == nil {
			conditions = append(conditions, condition)
		}
	}
	return conditions
}

// resultOf is the result that conditions commit, empty while they commit none.
func resultOf(m *kubevirtv1.VirtualMachineInstanceMigration) string {
	if m == nil {
		return ""
	}
	migrated, timedOut := conditionOf(m, dualattach.ConditionMigrated), conditionOf(m, dualattach.ConditionTimedOut)
	switch {
	case timedOut.Status == corev1.ConditionTrue || timedOut.Reason == dualattach.ReasonResolved:
		return string(dualattach.Timeout)
	case migrated.Status == corev1.ConditionTrue:
		return string(dualattach.Success)
	case migrated.Reason == dualattach.ReasonAborted:
		return string(dualattach.Aborted)
	case migrated.Status == corev1.ConditionFalse:
		return string(dualattach.Failed)
	}
	return ""
}
