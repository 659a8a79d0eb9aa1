package dualattach

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is a contradiction or a fault that a person should know of. It never
// changes the stage.
type Problem struct {
	Reason  string // CamelCase, a closed set
	Message string
}

// problems names what does not fit together, in a fixed order.
func (s *Snapshot) problems(stage Stage) []Problem {
	var found []Problem
	add := func(reason, format string, args ...any) {
		found = append(found, Problem{Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
	for _, v := range s.Volumes {
		if v.PV == "" {
			add("VolumeGone", "claim %s has lost its PersistentVolume", v.Claim)
		}
		for _, a := range v.Attachments {
			switch {
			case a.Attached && a.Node != s.Source.Node && a.Node != s.Target.Node:
				add("ThirdAttachment", "claim %s is attached on %s too, which has no part in the migration", v.Claim, a.Node)
			case a.Error != "" && (a.Node == s.Source.Node || a.Node == s.Target.Node):
				reason := "AttachError"
				if a.Leaving {
					reason = "DetachError"
				}
				add(reason, "claim %s on %s: %s", v.Claim, a.Node, a.Error)
			}
		}
	}
	if stage != Detached {
		for _, side := range []Side{s.Source, s.Target} {
			if side.Node != "" && !side.Ready {
				add("NodeNotReady", "node %s is not Ready", side.Node)
			}
		}
	}
	if state := s.handedOff(); state != nil && state.TargetNode != "" && s.Target.Node != "" && state.TargetNode != s.Target.Node {
		add("TargetMismatch", "KubeVirt names %s as the target, its target pod is on %s", state.TargetNode, s.Target.Node)
	}
	if text := s.disagreement(); text != "" {
		add("OutcomeDisagrees", "%s", text)
	}
	slices.SortStableFunc(found, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Reason, b.Reason), strings.Compare(a.Message, b.Message))
	})
	return found
}

// disagreement tells where the attachment that left, the VMIM's phase and the
// VMI's node do not say the same.
func (s *Snapshot) disagreement() string {
	if s.instanceOver() || len(s.Volumes) == 0 {
		return ""
	}
	source, target := extent(s.Volumes, s.Source.Node), extent(s.Volumes, s.Target.Node)
	runsOn := s.Instance.Status.NodeName
	switch {
	case s.phase() == Succeeded && runsOn == s.Source.Node && s.SuccessorTarget == "":
		return fmt.Sprintf("the migration succeeded, but the VMI is still on %s", runsOn)
	case s.phase() == Succeeded && target != All:
		return fmt.Sprintf("the migration succeeded, but %s does not hold every shared volume", s.targetNode())
	case s.phase() == Ended && s.Target.Node != "" && runsOn == s.Target.Node && s.SuccessorTarget == "":
		return fmt.Sprintf("the migration failed, but the VMI is on %s", runsOn)
	case s.phase() == Ended && source != All && runsOn == s.Source.Node:
		return fmt.Sprintf("the migration failed, but %s, where the VMI is, does not hold every shared volume", s.Source.Node)
	case s.phase() == Active && source != All && target == All && runsOn == s.Source.Node:
		return fmt.Sprintf("%s released a shared volume while the VMI was still there", s.Source.Node)
	}
	return ""
}

func problemText(problems []Problem) string {
	var b strings.Builder
	for _, p := range problems {
		b.WriteString("; " + p.Reason + ": " + p.Message)
	}
	return b.String()
}
