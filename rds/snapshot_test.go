package rds

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func TestSnapshotFor(t *testing.T) {
	seen := map[string]string{}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(
			rapid.String(),
			rapid.Custom(func(t *rapid.T) string {
				return "snapshot-" + uuid.NewSHA1(uuid.NameSpaceDNS, []byte(rapid.String().Draw(t, "seed"))).String()
			}),
		).Draw(t, "name")
		id := SnapshotFor(name)
		if !ValidSnapshot(id) || !ValidSlot(id) || len(id) > MaxNewSlot {
			t.Fatalf("%q gives %q", name, id)
		}
		if other, taken := seen[id]; taken && other != name {
			t.Fatalf("%q and %q are both %s", name, other, id)
		}
		seen[id] = name
		if id == SlotFor(name) {
			t.Fatalf("%q is a volume and a snapshot", name)
		}
	})
	for _, id := range []string{"", "snap-", "snap-a", "pvc-aaaaaaaaaaaaaaaaaaaaaaaaaa", "snap-aaaaaaaaaaaaaaaaaaaaaaaaa!", "snap-aaaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		if ValidSnapshot(id) {
			t.Errorf("%q passes", id)
		}
	}
}

func TestFit(t *testing.T) {
	const mib = int64(1) << 20
	for name, tc := range map[string]struct {
		size, limit, source int64
		want                int64 // 0: out of range
	}{
		"the source's":            {source: 5 * mib, want: 5 * mib},
		"the source's, rounded":   {source: 5*mib - 1, want: 5 * mib},
		"rounded above the limit": {source: 5*mib - 1, limit: 5*mib - 1},
		"as large":                {size: 5 * mib, source: 5 * mib, want: 5 * mib},
		"larger":                  {size: 6 * mib, limit: 6 * mib, source: 5 * mib, want: 6 * mib},
		"smaller":                 {size: 4 * mib, source: 5 * mib},
		"above the limit":         {limit: 4 * mib, source: 5 * mib},
	} {
		got, err := NewVolume{Size: tc.size, Limit: tc.limit, From: Source{Volume: "v"}}.Fit(tc.source, mib)
		if got != tc.want || (tc.want == 0) != errors.Is(err, ErrOutOfRange) {
			t.Errorf("%s: %d, %v, want %d", name, got, err, tc.want)
		}
	}
}

func TestAdmits(t *testing.T) {
	for name, tc := range map[string]struct {
		n    NewVolume
		have int64
		want bool
	}{
		"the size":                  {n: NewVolume{Size: 5}, have: 5, want: true},
		"smaller":                   {n: NewVolume{Size: 5}, have: 4},
		"larger":                    {n: NewVolume{Size: 5}, have: 6},
		"larger, within the limit":  {n: NewVolume{Size: 5, Limit: 6}, have: 6, want: true},
		"above the limit":           {n: NewVolume{Size: 5, Limit: 6}, have: 7},
		"smaller, with a limit":     {n: NewVolume{Size: 5, Limit: 6}, have: 4},
		"smaller, as small as may":  {n: NewVolume{Size: 5, Least: 4, Limit: 6}, have: 4, want: true},
		"smaller than may":          {n: NewVolume{Size: 5, Least: 4, Limit: 6}, have: 3},
		"the least without a limit": {n: NewVolume{Size: 5, Least: 4}, have: 4},
		"the source's":              {n: NewVolume{From: Source{Volume: "v"}}, have: 4, want: true},
		"the source's, at most":     {n: NewVolume{From: Source{Volume: "v"}, Limit: 4}, have: 4, want: true},
		"the source's, too large":   {n: NewVolume{From: Source{Volume: "v"}, Limit: 4}, have: 5},
	} {
		if got := tc.n.Admits(tc.have); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCopyable(t *testing.T) {
	for name, tc := range map[string]struct {
		comment  string
		exported bool
		want     error
	}{
		"nobody":         {"rds1 g4", false, nil},
		"somebody":       {"rds1 g4 n=1", true, ErrInUse},
		"somebody, off":  {"rds1 g4 n=1", false, ErrInUse},
		"nobody, but on": {"rds1 g4", true, ErrInUse},
		"unknown":        {"", false, ErrLedger},
		"deleting":       {"rds1 g4 deleting", false, ErrInUse},
	} {
		if err := Copyable(vol(tc.comment, ours(4), tc.exported)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}
