package dualattach

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// Condition is one of ours, without times: those are the writer's to set.
type Condition struct {
	Type    kubevirtv1.VirtualMachineInstanceMigrationConditionType
	Status  corev1.ConditionStatus
	Reason  string
	Message string
}

// conditions maps the assessment to the three conditions of the VMIM. Their
// status and reason depend on the stage and the passed deadlines alone, so that
// nothing is written while those stay. The one exception: during a release,
// storageDualAttached turns False when the other node has let go as well.
func (s *Snapshot) conditions(a Assessment, r record) []Condition {
	return []Condition{s.dualAttachedCondition(a), s.migratedCondition(a), s.timedOutCondition(a, r)}
}

func (s *Snapshot) dualAttachedCondition(a Assessment) Condition {
	c := Condition{Type: ConditionDualAttached, Status: corev1.ConditionFalse}
	switch a.Stage {
	case AttachingTarget:
		c.Reason, c.Message = ReasonAwaitingTarget, fmt.Sprintf("RDS shared volume of %s is attached on %s; waiting for %s",
			s.claims(), s.sourceName(), s.targetName())
	case DualAttached:
		c.Status, c.Reason = corev1.ConditionTrue, ReasonLiveMigration
		c.Message = fmt.Sprintf("RDS shared volume of %s is attached on %s and %s while the VM migrates%s",
			s.claims(), s.sourceName(), s.targetName(), a.Deadline.until())
	case ReleasingSource:
		if extent(s.Volumes, s.Source.Node) != None {
			c.Status, c.Reason = corev1.ConditionTrue, a.Stage.String()
			c.Message = fmt.Sprintf("RDS shared volume of %s is still attached on %s although the VM runs on %s now%s",
				s.claims(), s.sourceName(), s.targetName(), a.Deadline.until())
			break
		}
		c.Reason, c.Message = ReasonSourceReleased, fmt.Sprintf("RDS shared volume of %s is attached on %s only", s.claims(), s.targetName())
	case ReleasingTarget:
		c.Reason, c.Message = ReasonSourceReleased, fmt.Sprintf("RDS shared volume of %s is attached on %s only, although the migration there failed%s",
			s.claims(), s.targetName(), a.Deadline.until())
		if extent(s.Volumes, s.Source.Node) != None {
			c.Status, c.Reason = corev1.ConditionTrue, a.Stage.String()
			c.Message = fmt.Sprintf("RDS shared volume of %s is still attached on %s although the VM stays on %s%s",
				s.claims(), s.targetName(), s.sourceName(), a.Deadline.until())
		}
	case Completed:
		c.Reason, c.Message = ReasonSourceReleased, fmt.Sprintf("RDS shared volume of %s is attached on %s only", s.claims(), s.targetName())
	case RolledBack:
		c.Reason, c.Message = ReasonTargetReleased, fmt.Sprintf("RDS shared volume of %s is attached on %s only", s.claims(), s.sourceName())
	case Detached:
		c.Reason, c.Message = a.Stage.String(), fmt.Sprintf("RDS shared volume of %s is not attached any more", s.claims())
	case Superseded:
		c.Reason, c.Message = a.Stage.String(), fmt.Sprintf("RDS shared volume of %s: a newer migration or start of the VM uses node %s again", s.claims(), s.SuccessorTarget)
	case NotInvolved:
		c.Reason, c.Message = a.Stage.String(), "RDS shared volume: none takes part; KubeVirt copies the data to other claims"
	}
	c.Message += problemText(a.Problems)
	return c
}

func (s *Snapshot) migratedCondition(a Assessment) Condition {
	c := Condition{Type: ConditionMigrated, Status: corev1.ConditionUnknown, Reason: a.Stage.String()}
	if a.Stage == NotInvolved {
		c.Status, c.Message = corev1.ConditionFalse, "RDS shared volume: this migration is not watched any more; KubeVirt copies the data to other claims"
		return c
	}
	if !a.Stage.Final() {
		c.Message = fmt.Sprintf("RDS shared volume of %s: %s → %s, %s", s.claims(), s.Source.Node, s.targetNode(), underWay[a.Stage])
		return c
	}
	switch s.result(a.Stage, false) {
	case Success:
		c.Status = corev1.ConditionTrue
		c.Message = fmt.Sprintf("RDS shared volume of %s moved from %s to %s%s", s.claims(), s.Source.Node, s.targetNode(), s.took())
	case Aborted:
		c.Status, c.Reason = corev1.ConditionFalse, ReasonAborted
		c.Message = fmt.Sprintf("RDS shared volume of %s: the migration from %s to %s was cancelled%s", s.claims(), s.Source.Node, s.targetNode(), s.took())
	default:
		c.Status = corev1.ConditionFalse
		c.Message = fmt.Sprintf("RDS shared volume of %s: the migration from %s to %s failed%s%s", s.claims(), s.Source.Node, s.targetNode(), s.took(), s.failure())
	}
	switch a.Stage {
	case RolledBack:
		c.Message += "; it stays on " + s.Source.Node
		if s.instanceOver() {
			c.Message += ", though the VM is over"
		}
	case Superseded:
		c.Status, c.Reason = corev1.ConditionFalse, a.Stage.String()
		c.Message += "; the release was not waited for, as a newer migration or start of the VM uses the node again"
	case Detached:
		c.Message += "; nothing is attached any more"
		if s.instanceOver() {
			c.Message += ", as the VM is over"
		}
	}
	return c
}

var underWay = map[Stage]string{
	AttachingTarget: "attaching on the target",
	DualAttached:    "attached on both nodes",
	ReleasingSource: "the source is releasing it",
	ReleasingTarget: "the target is releasing it",
}

func (s *Snapshot) timedOutCondition(a Assessment, r record) Condition {
	c := Condition{Type: ConditionTimedOut, Status: corev1.ConditionFalse}
	stage := r.timedOutIn
	if a.Overdue() {
		stage = a.Late
	}
	switch {
	case (a.Stage.Final() || a.Stage == NotInvolved) && r.timedOut:
		c.Reason, c.Message = ReasonResolved, fmt.Sprintf("RDS shared volume of %s: the migration is over%s, after a deadline had passed", s.claims(), s.took())
	case stage != Undecided:
		c.Status, c.Reason = corev1.ConditionTrue, stage.String()
		c.Message = "RDS shared volume of " + s.claims() + ": " + s.timeoutText(a, stage)
	default:
		c.Reason, c.Message = ReasonWithinDeadline, "RDS shared volume of "+s.claims()+": no deadline has passed"+a.Deadline.until()
	}
	return c
}

// timeoutText says what lasts too long, by whose limit, and what to look at next; else
// that the deadline of a stage had passed.
func (s *Snapshot) timeoutText(a Assessment, stage Stage) string {
	if !a.Overdue() {
		return fmt.Sprintf("the deadline of stage %s had passed; now %s", stage, s.progress(a.Stage))
	}
	return fmt.Sprintf("%s for %s, allowed are %s (%s)%s. %s", s.overdueWhat(a.Stage), Seconds(s.Now.Sub(a.Deadline.Start)), Seconds(a.Deadline.Allowed()), a.Deadline.Whose,
		problemText(a.Problems), s.advice(a.Stage))
}

func (s *Snapshot) overdueWhat(stage Stage) string {
	switch stage {
	case AttachingTarget:
		return fmt.Sprintf("%s has not got %s attached (held by %s)", s.targetName(), s.stuck(stage), s.sourceName())
	case DualAttached:
		return fmt.Sprintf("attached on %s and %s", s.sourceName(), s.targetName())
	case ReleasingSource:
		if extent(s.Volumes, s.Source.Node) == None {
			return fmt.Sprintf("%s has released it, and KubeVirt has not ended the migration", s.sourceName())
		}
		return s.sourceName() + " has not released " + s.stuck(stage)
	default:
		return s.targetName() + " has not released " + s.stuck(stage)
	}
}

// stuck names the claims that a stage waits for: "it" where those are all, or none.
func (s *Snapshot) stuck(stage Stage) string {
	var names []string
	for _, v := range s.Volumes {
		waits := !v.attachedOn(s.Target.Node)
		switch stage {
		case ReleasingSource:
			waits = v.attachedOn(s.Source.Node)
		case ReleasingTarget:
			waits = v.attachedOn(s.Target.Node)
		}
		if waits {
			names = append(names, v.Claim)
		}
	}
	if len(names) == 0 || len(names) == len(s.Volumes) {
		return "it"
	}
	return claimList(names)
}

// progress is what goes on in a stage, and for which claims if not for all.
func (s *Snapshot) progress(stage Stage) string {
	if stage == DualAttached || s.stuck(stage) == "it" {
		return underWay[stage]
	}
	return underWay[stage] + " (" + s.stuck(stage) + ")"
}

// instanceOver: the VM has ended, or is gone.
func (s *Snapshot) instanceOver() bool { return s.Instance == nil || s.Instance.IsFinal() }

// advice names what to look at next, and never does it.
func (s *Snapshot) advice(stage Stage) string {
	namespace := s.Migration.Namespace
	switch stage {
	case AttachingTarget:
		return fmt.Sprintf("Look at: kubectl -n %s describe pod %s; kubectl get volumeattachment. To cancel: kubectl -n %s delete vmim %s",
			namespace, orUnknown(s.Target.Pod), namespace, s.Migration.Name)
	case DualAttached:
		return fmt.Sprintf("Look at: kubectl -n %s describe vmi %s. To cancel: kubectl -n %s delete vmim %s",
			namespace, s.Migration.Spec.VMIName, namespace, s.Migration.Name)
	case ReleasingSource:
		if extent(s.Volumes, s.Source.Node) == None {
			return fmt.Sprintf("Look at: kubectl -n %s describe vmim %s; and at virt-controller's log, which has the reason (kubectl get pods -A -l kubevirt.io=virt-controller)",
				namespace, s.Migration.Name)
		}
		return s.releaseAdvice(s.Source)
	default:
		return s.releaseAdvice(s.Target)
	}
}

func (s *Snapshot) releaseAdvice(side Side) string {
	return fmt.Sprintf("Look at: kubectl describe node %s; kubectl -n %s get pods -o wide -l kubevirt.io=virt-launcher; kubectl get volumeattachment",
		orUnknown(side.Node), s.Migration.Namespace)
}

func (s *Snapshot) failure() string {
	if state := s.handedOff(); state != nil && state.FailureReason != "" {
		return ": KubeVirt says: " + state.FailureReason
	}
	return ""
}

// took is how long the migration lasted, from the target pod's creation.
func (s *Snapshot) took() string {
	if d := s.Duration(); d > 0 {
		return " after " + Seconds(d)
	}
	return ""
}

// Duration is the time since the migration's storage side began: the target
// pod's creation, or the VMIM's where there never was a pod.
func (s *Snapshot) Duration() time.Duration {
	start := s.Target.PodCreated
	if start.IsZero() {
		start = s.Migration.CreationTimestamp.Time
	}
	return max(0, s.Now.Sub(start))
}

func (d Deadline) until() string {
	if !d.Set() {
		return ""
	}
	return fmt.Sprintf("; allowed until %s (%s: %s)", d.At.UTC().Format(time.RFC3339), d.Whose, Seconds(d.Allowed()))
}

// claims names the shared volumes' claims: "claim a", "claims a, b".
func (s *Snapshot) claims() string {
	names := make([]string, 0, len(s.Volumes))
	for _, v := range s.Volumes {
		names = append(names, v.Claim)
	}
	return claimList(names)
}

func claimList(names []string) string {
	slices.Sort(names)
	switch len(names) {
	case 0:
		return "claims that are gone by now"
	case 1:
		return "claim " + names[0]
	}
	return "claims " + strings.Join(names, ", ")
}

func (s *Snapshot) sourceName() string { return s.Source.Node + " (source)" }

func (s *Snapshot) targetName() string {
	if s.Target.Node == "" {
		return "the target, whose node is not known yet"
	}
	return s.Target.Node + " (target)"
}

func (s *Snapshot) targetNode() string {
	if s.Target.Node == "" {
		return "a node not known yet"
	}
	return s.Target.Node
}

func orUnknown(name string) string {
	if name == "" {
		return "<unknown>"
	}
	return name
}
