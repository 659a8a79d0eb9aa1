package migration

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// refusedRetry is how soon a write that was forbidden or reverted is tried again:
// an administrator may have granted it meanwhile.
const refusedRetry = 5 * time.Minute

// InstanceWriter writes conditions on VMIs, as vmicondition.Writer does.
type InstanceWriter interface {
	Write(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (vmicondition.Result, error)
}

// said is the last write on a VMI by this process.
type said struct {
	uid       types.UID
	version   string // of the VMI that it was decided on
	condition vmicondition.Condition
	result    vmicondition.Result
	at        time.Time
}

// speak makes the VMI say what its migrations together mean for it. It runs when
// those have been acted upon, and follows from the VMI as it is: what a crash or
// a refusal left behind is put right by the next look. again is when to come back
// for it, or zero. A write that is forbidden or reverted is counted, and no error.
func (r *Reconciler) speak(ctx context.Context, in *gather.Instance, assessments []dualattach.Assessment) (again time.Time, err error) {
	decided := dualattach.DecideInstance(in.VMI, assessments)
	if in.VMI == nil {
		r.table.silence(in.Key)
	}
	if decided == nil {
		return time.Time{}, nil
	}
	now := r.clock.Now()
	next := said{uid: in.VMI.UID, version: in.VMI.ResourceVersion, at: now, condition: vmicondition.Condition{
		Type: vmicondition.StorageMigrationTimedOut, Status: decided.Status, Reason: decided.Reason, Message: decided.Message}}
	if last := r.table.lastSaid(in.Key); last.about(next) {
		switch {
		case last.result != vmicondition.Stored && now.Before(last.at.Add(refusedRetry)):
			return last.at.Add(refusedRetry), nil
		case last.result == vmicondition.Stored && last.version == next.version:
			return time.Time{}, nil // the cache is behind our own write
		}
	}
	next.result, err = r.instances.Write(ctx, in.VMI, next.condition)
	switch {
	case errors.Is(err, jsonpatch.ErrStale):
		log.FromContext(ctx).V(1).Info("the VMI was written meanwhile, deciding again", "reason", err.Error())
		return now.Add(staleRetry), nil
	case apierrors.IsNotFound(err):
		return time.Time{}, nil // its deletion is on its way here
	case err != nil:
		return time.Time{}, err
	}
	r.metrics.writes.WithLabelValues(string(next.result)).Inc()
	r.table.say(in.Key, next)
	log.FromContext(ctx).Info("VMI condition "+string(next.result), "type", next.condition.Type.String(),
		"status", next.condition.Status, "reason", next.condition.Reason)
	if next.result != vmicondition.Stored {
		return now.Add(refusedRetry), nil
	}
	return time.Time{}, nil
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

// silence forgets a VMI that is gone.
func (t *table) silence(key types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.said, key)
}
