package soak

import (
	"iter"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func first(rounds iter.Seq[Round], n int) []Round {
	var all []Round
	for r := range rounds {
		if all = append(all, r); len(all) == n {
			break
		}
	}
	return all
}

// TestPlanFollowsFromTheSeed: and from nothing else, however much of it is run.
func TestPlanFollowsFromTheSeed(t *testing.T) {
	if diff := cmp.Diff(first(Plan(7), 40), first(Plan(7), 50)[:40]); diff != "" {
		t.Errorf("the same seed makes another plan (-first +second):\n%s", diff)
	}
	if cmp.Equal(first(Plan(7), 5), first(Plan(8), 5)) {
		t.Error("another seed makes the same plan")
	}
}

// TestPlanIsOneThatCanBeRun: over many seeds every end and every fault comes up, no
// VM moves twice at once, and what a fault waits for is going to happen.
func TestPlanIsOneThatCanBeRun(t *testing.T) {
	seenEnds, seenKinds := map[End]int{}, map[Kind]int{}
	for seed := range uint64(50) {
		for _, r := range first(Plan(seed), 20) {
			if len(r.Moves) == 0 {
				t.Fatalf("nothing moves in %s", r)
			}
			moving := map[int]bool{}
			for _, m := range r.Moves {
				if moving[m.VM] || m.VM < 0 || m.VM >= planVMs {
					t.Errorf("VM %d moves twice or does not exist: %s", m.VM, r)
				}
				moving[m.VM] = true
				seenEnds[m.End]++
				if err := m.course().Validate(); err != nil {
					t.Errorf("%s: %v", r, err)
				}
			}
			used := map[Kind]bool{}
			for _, f := range r.Faults {
				if used[f.Kind] || f.Lasts <= 0 || f.Lasts > 4*time.Second || !r.Moves[f.Move].reaches(f.At) {
					t.Errorf("fault %+v of %s", f, r)
				}
				used[f.Kind] = true
				seenKinds[f.Kind]++
			}
		}
	}
	if len(seenEnds) != ends || len(seenKinds) != kinds {
		t.Errorf("ends %v, faults %v: some never happen", seenEnds, seenKinds)
	}
}
