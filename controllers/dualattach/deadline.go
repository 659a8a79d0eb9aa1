package dualattach

import (
	"fmt"
	"math"
	"strconv"
	"time"

	kubevirtv1 "kubevirt.io/api/core/v1"
)

const (
	// TimeoutAnnotation on a VMI is an administrator's limit for its migrations:
	// a duration ("10m") or whole seconds ("600"), MinTimeout to MaxTimeout.
	TimeoutAnnotation = "rds.csi.srvlab.io/migration-timeout"
	// MinTimeout is the least that the annotation may say.
	MinTimeout = time.Second
	// MaxTimeout is the most that the annotation may say.
	MaxTimeout = 24 * time.Hour

	// pendingTimeout is KubeVirt's catch-all for a pending target pod.
	pendingTimeout = 900 * time.Second
	// completionPerGiB is KubeVirt's completionTimeoutPerGiB default.
	completionPerGiB = 150
	// grace lets KubeVirt's own deadlines act first.
	grace = time.Minute
	// warnAt is the part of the allowed time after which people are warned.
	warnAt = 0.8
)

// Deadline is until when a stage may last. The zero value is none.
type Deadline struct {
	Start time.Time // when the stage's clock started
	At    time.Time
	Whose string // whose limit it is, for people
}

// Set reports whether there is a deadline at all.
func (d Deadline) Set() bool { return !d.At.IsZero() }

// Allowed is the time between the clock's start and the deadline.
func (d Deadline) Allowed() time.Duration { return d.At.Sub(d.Start) }

// Overdue reports whether the deadline is reached at a time.
func (d Deadline) Overdue(now time.Time) bool { return d.Set() && !now.Before(d.At) }

// warning is when people are told that the deadline comes near.
func (d Deadline) warning() time.Time {
	return d.Start.Add(time.Duration(float64(d.Allowed()) * warnAt))
}

// deadline tells until when the stage may last.
func (s *Snapshot) deadline(stage Stage) Deadline {
	start := s.clockStart(stage)
	if start.IsZero() {
		return Deadline{}
	}
	switch stage {
	case AttachingTarget, DualAttached:
		return s.migrationDeadline(start)
	case ReleasingSource:
		if s.EndedAt().IsZero() {
			// The source is gone and KubeVirt has not noticed: its time runs on.
			return s.migrationDeadline(start)
		}
		return s.releaseDeadline(start, s.Source)
	default: // ReleasingTarget; no other stage has a clock
		return s.releaseDeadline(start, s.Target)
	}
}

// clockStart is when the stage's clock started, or zero where it has none yet.
// It is never before the target pod's creation: a re-used attachment may be old.
func (s *Snapshot) clockStart(stage Stage) time.Time {
	var start time.Time
	switch stage {
	case AttachingTarget:
		return s.Target.PodCreated
	case DualAttached:
		start = s.dualAttachedSince()
	case ReleasingSource, ReleasingTarget:
		if start = s.EndedAt(); start.IsZero() && stage == ReleasingSource {
			start = s.dualAttachedSince()
		}
	}
	if !start.IsZero() && start.Before(s.Target.PodCreated) {
		return s.Target.PodCreated
	}
	return start
}

// dualAttachedSince is when the last shared volume was published to the target:
// the array's time, else when we first saw it, else the attachment's creation.
func (s *Snapshot) dualAttachedSince() time.Time {
	var published time.Time
	for _, v := range s.Volumes {
		since, ok := v.Ledger.Since(s.Target.Node)
		if !ok {
			published = time.Time{}
			break
		}
		published = later(published, since)
	}
	if !published.IsZero() {
		return published
	}
	if seen := readRecord(s.Migration).dualAttachedSince; !seen.IsZero() {
		return seen
	}
	var created time.Time
	for _, v := range s.Volumes {
		if a, ok := v.attachment(s.Target.Node); ok {
			created = later(created, a.Created)
		}
	}
	return created
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// migrationDeadline is an administrator's limit, or else KubeVirt's own budget.
// That one has a start of its own, and may be spent before the stage begins.
func (s *Snapshot) migrationDeadline(start time.Time) Deadline {
	if limit, whose := s.administratorsLimit(); limit > 0 {
		return Deadline{Start: start, At: start.Add(limit), Whose: whose}
	}
	state := s.handedOff()
	if state == nil || state.StartTimestamp == nil {
		timeout, pending := pendingTimeoutOf(s.Migration), s.Target.PodCreated
		if pending.IsZero() {
			pending = start
		}
		return Deadline{Start: start, At: later(start, pending.Add(timeout+grace)),
			Whose: fmt.Sprintf("KubeVirt's %s for a pending target and %s of grace", Seconds(timeout), Seconds(grace))}
	}
	began := state.StartTimestamp.Time
	if completion := completionDeadline(state, s.Instance); completion > 0 {
		return Deadline{Start: start, At: later(start, began.Add(completion+grace)),
			Whose: fmt.Sprintf("KubeVirt's completion deadline of %s and %s of grace", Seconds(completion), Seconds(grace))}
	}
	return Deadline{Start: start, At: later(began, start).Add(s.Limits.Unbounded),
		Whose: "the operator's --unbounded-deadline, as KubeVirt sets no limit"}
}

// administratorsLimit is the VMI's annotation, else the longest limit of the
// volumes' storage classes, else zero.
func (s *Snapshot) administratorsLimit() (time.Duration, string) {
	if s.Instance != nil {
		if text, ok := s.Instance.Annotations[TimeoutAnnotation]; ok {
			if limit, err := ParseTimeout(text); err == nil {
				return limit, "the VMI's annotation " + TimeoutAnnotation
			}
		}
	}
	var limit time.Duration
	var claim string
	for _, v := range s.Volumes {
		if v.Timeout > limit || (v.Timeout == limit && limit > 0 && v.Claim < claim) {
			limit, claim = v.Timeout, v.Claim
		}
	}
	return limit, "migrationTimeoutSeconds of the storage class of claim " + claim
}

// annotationError says what is wrong with the VMI's annotation, if anything.
func (s *Snapshot) annotationError() error {
	if s.Instance == nil {
		return nil
	}
	text, ok := s.Instance.Annotations[TimeoutAnnotation]
	if !ok {
		return nil
	}
	_, err := ParseTimeout(text)
	return err
}

// ParseTimeout reads TimeoutAnnotation's value.
func ParseTimeout(text string) (time.Duration, error) {
	limit, err := time.ParseDuration(text)
	if seconds, notNumber := strconv.ParseInt(text, 10, 32); notNumber == nil {
		limit, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || limit < MinTimeout || limit > MaxTimeout {
		return 0, fmt.Errorf("annotation %s: %q is not a duration from %s to %s, such as \"10m\" or \"600\"",
			TimeoutAnnotation, text, MinTimeout, MaxTimeout)
	}
	return limit, nil
}

// pendingTimeoutOf is KubeVirt's limit for this migration's pending target pod.
func pendingTimeoutOf(m *kubevirtv1.VirtualMachineInstanceMigration) time.Duration {
	text, ok := m.Annotations[kubevirtv1.MigrationPendingPodTimeoutSecondsAnnotation]
	if !ok {
		return pendingTimeout
	}
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < 0 {
		return pendingTimeout
	}
	return time.Duration(seconds) * time.Second
}

// completionDeadline is KubeVirt's own limit from the start of the copy, zero
// where it has none: switched off, in post-copy, or with an unknown memory size.
func completionDeadline(state *kubevirtv1.VirtualMachineInstanceMigrationState, vmi *kubevirtv1.VirtualMachineInstance) time.Duration {
	if state.Mode == kubevirtv1.MigrationPostCopy {
		return 0
	}
	perGiB := int64(completionPerGiB)
	disruptive := false
	if o := state.VMIMConfigurationOptions; o != nil {
		if o.CompletionTimeoutPerGiB != nil {
			perGiB = *o.CompletionTimeoutPerGiB
		}
		disruptive = o.AllowWorkloadDisruption != nil && *o.AllowWorkloadDisruption
	}
	deadline := time.Duration(perGiB*memoryGigabytes(vmi)) * time.Second
	if disruptive {
		deadline *= 2
	}
	return deadline
}

// memoryGigabytes is the guest's memory in decimal gigabytes, rounded up, as
// KubeVirt counts it.
func memoryGigabytes(vmi *kubevirtv1.VirtualMachineInstance) int64 {
	if vmi == nil {
		return 0
	}
	bytes := vmi.Spec.Domain.Resources.Requests.Memory().Value()
	if m := vmi.Spec.Domain.Memory; m != nil && m.Guest != nil {
		bytes = m.Guest.Value()
	}
	if m := vmi.Status.Memory; m != nil && m.GuestCurrent != nil {
		bytes = max(bytes, m.GuestCurrent.Value())
	}
	return int64(math.Ceil(float64(bytes) / 1e9))
}

// releaseDeadline allows a Ready node less than one that must be forced.
func (s *Snapshot) releaseDeadline(start time.Time, side Side) Deadline {
	if side.Ready {
		return Deadline{Start: start, At: start.Add(s.Limits.Release), Whose: "the operator's --release-deadline"}
	}
	return Deadline{Start: start, At: start.Add(s.Limits.ReleaseNotReady), Whose: "the operator's --release-deadline-not-ready"}
}

// Seconds spells a duration for people, to the second.
func Seconds(d time.Duration) string { return d.Round(time.Second).String() }
