package migration

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// refusedRetry is how soon a write that was reverted is tried again. One that was
// forbidden waits for the grant, which is watched.
const refusedRetry = 5 * time.Minute

const (
	// maxHold is how long the rest may be held for the VMI's sake.
	maxHold = time.Second
	// quiet is how long a VMI must have been left alone before it is told that all is
	// well again: KubeVirt writes there while a migration goes on or ends, and its
	// guarded patches fail where a write of ours comes in between. maxQuiet is how long
	// that is waited for.
	quiet    = time.Second
	maxQuiet = 10 * time.Second
)

// InstanceWriter has VMIs say something, as vmireport.Writer does. An empty result is
// no write.
type InstanceWriter interface {
	Write(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (vmicondition.Result, error)
}

// said is the last write on a VMI by this process.
type said struct {
	uid       types.UID
	version   string // of the VMI that it was decided on
	condition vmicondition.Condition
	result    vmicondition.Result // empty where it was wanted only, or the VMI had changed meanwhile
	at        time.Time           // of the write, or when this version was first seen
	wanted    time.Time           // when it was first to be said
}

// speak makes the VMI say what its migrations together mean for it. That follows
// from the VMI as it is: what a crash or a refusal left behind is put right by the
// next look. next is when to come back for it, or zero. A write that is forbidden or
// reverted is counted, and no error.
//
// The VMI comes first, and the rest is held until the cache, and so most likely
// virt-controller's, shows what was written there: whoever cancels a migration
// because its VMIM says that it is late would else have virt-controller abort it on
// a VMI that it does not know yet, and its guarded patch would fail for that.
func (r *Reconciler) speak(ctx context.Context, in *gather.Instance, assessments []dualattach.Assessment) (held bool, next time.Time, err error) {
	decided := dualattach.DecideInstance(in.VMI, assessments)
	if in.VMI == nil {
		r.table.silence(in.Key)
	}
	if decided == nil {
		return false, time.Time{}, nil
	}
	now := r.clock.Now()
	say := said{uid: in.VMI.UID, version: in.VMI.ResourceVersion, at: now, wanted: now, condition: vmicondition.Condition{
		Type: vmicondition.StorageMigrationTimedOut, Status: decided.Status, Reason: decided.Reason, Message: decided.Message}}
	last := r.table.lastSaid(in.Key)
	if last.about(say) {
		say.wanted = last.wanted
		again := last.at.Add(refusedRetry)
		switch {
		case last.result == vmicondition.Stored && last.version == say.version: // the cache is behind our own write
			return last.holds(now), now.Add(staleRetry), nil
		case last.result == vmicondition.Forbidden:
			return false, time.Time{}, nil // until it is granted
		case last.result == vmicondition.Reverted && now.Before(again):
			return false, again, nil
		}
	}
	if at := say.quietAt(last); now.Before(at) {
		if say.stirred(last) {
			r.table.say(in.Key, say)
		}
		return false, at, nil
	}
	say.result, err = r.instances.Write(ctx, in.VMI, say.condition)
	switch {
	case errors.Is(err, jsonpatch.ErrStale):
		log.FromContext(ctx).V(1).Info("the VMI was written meanwhile, deciding again", "reason", err.Error())
		r.table.say(in.Key, say)
		return say.holds(now), now.Add(staleRetry), nil
	case apierrors.IsNotFound(err):
		return false, time.Time{}, nil // its deletion is on its way here
	case err != nil:
		return false, time.Time{}, err
	}
	r.table.say(in.Key, say)
	if say.result == "" {
		return false, time.Time{}, nil // there was nothing to be written but the end of a note
	}
	r.metrics.writes.WithLabelValues(string(say.result)).Inc()
	log.FromContext(ctx).Info("VMI condition "+string(say.result), "type", say.condition.Type.String(),
		"status", say.condition.Status, "reason", say.condition.Reason)
	switch say.result {
	case vmicondition.Forbidden:
		return false, time.Time{}, nil
	case vmicondition.Reverted:
		return false, now.Add(refusedRetry), nil
	}
	return say.holds(now), now.Add(staleRetry), nil
}

// holds tells whether the rest is to wait until the VMI is seen to say it: bad news
// only, as nobody acts on good ones.
func (s said) holds(now time.Time) bool {
	return s.condition.Status == corev1.ConditionTrue && now.Before(s.wanted.Add(maxHold))
}

// stirred reports whether the VMI is another version than when this was last wanted.
func (s said) stirred(last said) bool {
	return !last.about(s) || last.result != "" || last.version != s.version
}

// quietAt is when this may be said, given what was last wanted: bad news at once, good
// ones when the VMI has been left alone for a while.
func (s said) quietAt(last said) time.Time {
	switch {
	case s.condition.Status == corev1.ConditionTrue:
		return time.Time{}
	case s.stirred(last):
		return sooner(s.at.Add(quiet), s.wanted.Add(maxQuiet))
	}
	return sooner(last.at.Add(quiet), s.wanted.Add(maxQuiet))
}

// about reports whether two writes say the same of the same VMI, messages aside.
func (s said) about(other said) bool {
	return s.uid == other.uid && s.condition.Status == other.condition.Status && s.condition.Reason == other.condition.Reason
}

func (t *table) lastSaid(key types.NamespacedName) said {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.said[key]
}

func (t *table) say(key types.NamespacedName, s said) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said[key] = s
}

// forbidden lists the VMIs that may not say what they should, and lets them try again.
func (t *table) forbidden() []types.NamespacedName {
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []types.NamespacedName
	for key, s := range t.said {
		if s.result == vmicondition.Forbidden {
			keys = append(keys, key)
			delete(t.said, key)
		}
	}
	return keys
}

// silence forgets a VMI that is gone.
func (t *table) silence(key types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.said, key)
}
