package vmireport

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

const (
	// refusedRetry is how soon a write that was reverted is tried again. One that was
	// forbidden waits for the grant, which is watched.
	refusedRetry = 5 * time.Minute
	// staleRetry is how soon a write is tried again after somebody else's; the watch
	// usually brings the change sooner.
	staleRetry = 50 * time.Millisecond
	// maxHold is how long the rest may be held for the VMI's sake.
	maxHold = time.Second
	// quiet is how long a VMI must have been left alone before it is told that all is
	// well again: KubeVirt writes there while a migration goes on or ends, and its
	// guarded patches fail where a write of ours comes in between. maxQuiet is how long
	// that is waited for.
	quiet    = time.Second
	maxQuiet = 10 * time.Second
)

// InstanceWriter has VMIs say something, as Writer does. An empty result is no write.
type InstanceWriter interface {
	Write(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (vmicondition.Result, error)
}

// Speaker has VMIs say things through a writer, each once for as long as it is kept, and
// counts what became of that. It is for all reconcilers together.
type Speaker struct {
	writer InstanceWriter
	clock  clock.PassiveClock
	writes *prometheus.CounterVec

	mu   sync.Mutex
	said map[subject]said
}

// subject is what one condition of one VMI is about.
type subject struct {
	vmi types.NamespacedName
	of  vmicondition.Type
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

// about reports whether two writes say the same of the same VMI, messages aside.
func (s said) about(other said) bool {
	return s.uid == other.uid && s.condition.Status == other.condition.Status && s.condition.Reason == other.condition.Reason
}

// NewSpeaker makes one.
func NewSpeaker(w InstanceWriter, c clock.PassiveClock) *Speaker {
	s := &Speaker{writer: w, clock: c, said: map[subject]said{},
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: report.MetricInstanceWrites,
			Help: "Writes of our conditions on VMIs, by what became of them: forbidden and reverted ones are nowhere to be seen on the VMI."}, []string{"result"})}
	for _, result := range vmicondition.Results() {
		s.writes.WithLabelValues(string(result))
	}
	return s
}

// Collector counts the writes.
func (s *Speaker) Collector() prometheus.Collector { return s.writes }

// Say makes the VMI say c. next is when to come back for it, or zero; held asks the
// caller to wait with what is to follow until the cache shows the VMI saying it. A write
// that is forbidden or reverted is counted, and no error.
func (s *Speaker) Say(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (held bool, next time.Time, err error) {
	now := s.clock.Now()
	key := subject{types.NamespacedName{Namespace: vmi.Namespace, Name: vmi.Name}, c.Type}
	say := said{uid: vmi.UID, version: vmi.ResourceVersion, at: now, wanted: now, condition: c}
	last := s.last(key)
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
			s.keep(key, say)
		}
		return false, at, nil
	}
	say.result, err = s.writer.Write(ctx, vmi, c)
	switch {
	case errors.Is(err, jsonpatch.ErrStale):
		log.FromContext(ctx).V(1).Info("the VMI was written meanwhile, deciding again", "reason", err.Error())
		s.keep(key, say)
		return say.holds(now), now.Add(staleRetry), nil
	case apierrors.IsNotFound(err):
		return false, time.Time{}, nil // its deletion is on its way here
	case err != nil:
		return false, time.Time{}, err
	}
	s.keep(key, say)
	if say.result == Unneeded {
		return false, time.Time{}, nil // there was nothing to be written but the end of a note
	}
	s.writes.WithLabelValues(string(say.result)).Inc()
	log.FromContext(ctx).Info("VMI condition "+string(say.result), "type", c.Type.String(), "status", c.Status, "reason", c.Reason)
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
	since := last.at
	switch {
	case s.condition.Status == corev1.ConditionTrue:
		return time.Time{}
	case s.stirred(last):
		since = s.at
	}
	if end := s.wanted.Add(maxQuiet); end.Before(since.Add(quiet)) {
		return end
	}
	return since.Add(quiet)
}

func (s *Speaker) last(key subject) said {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said[key]
}

func (s *Speaker) keep(key subject, last said) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said[key] = last
}

// Forbidden lists the VMIs that may not say a condition that they should, and lets them
// try again.
func (s *Speaker) Forbidden(of vmicondition.Type) []types.NamespacedName {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []types.NamespacedName
	for key, last := range s.said {
		if key.of == of && last.result == vmicondition.Forbidden {
			keys = append(keys, key.vmi)
			delete(s.said, key)
		}
	}
	return keys
}

// Forget drops what is known of a condition of a VMI that is gone.
func (s *Speaker) Forget(vmi types.NamespacedName, of vmicondition.Type) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.said, subject{vmi, of})
}
