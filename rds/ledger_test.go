package rds

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func at(seconds int64) time.Time { return time.Unix(seconds, 0) }

func ledger(generation uint64, publications ...Publication) Ledger {
	return Ledger{Known: true, Generation: generation, Publications: publications}
}

func held(node string, seconds int64) Publication { return Publication{Node: node, Since: at(seconds)} }

func TestParseLedger(t *testing.T) {
	deleting := ledger(3)
	deleting.Deleting = true
	foreign := ledger(1, held("a", 5))
	foreign.Foreign = "do not touch | really"
	tests := map[string]struct {
		reason  string
		comment string
		want    Ledger
	}{
		"new":      {"as Create writes it", "rds1 g0", ledger(0)},
		"two":      {"in the order of time, whatever the order in the comment", "rds1 g7 b=9 a=8", ledger(7, held("a", 8), held("b", 9))},
		"deleting": {"deletion has begun", "rds1 g3 deleting", deleting},
		"foreign":  {"somebody else's text stays", "rds1 g1 a=5 | do not touch | really", foreign},
		"spaces":   {"an administrator's hand", "  rds1   g1  a=5 ", ledger(1, held("a", 5))},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, ParseLedger(tc.comment)); diff != "" {
				t.Errorf("%s: (-want +got)\n%s", tc.reason, diff)
			}
		})
	}
}

func TestParseLedgerUnknown(t *testing.T) {
	tests := map[string]struct{ comment, foreign string }{
		"empty":             {"", ""},
		"somebody's":        {"owned by accounting", "owned by accounting"},
		"other marker":      {"rds2 g1 a=5", "rds2 g1 a=5"},
		"no generation":     {"rds1 a=5", ""},
		"negative":          {"rds1 g-1", ""},
		"huge generation":   {"rds1 g99999999999999999999", ""},
		"no time":           {"rds1 g1 a", ""},
		"no node":           {"rds1 g1 =5", ""},
		"negative time":     {"rds1 g1 a=-5", ""},
		"twice":             {"rds1 g1 a=5 a=6", ""},
		"not ASCII":         {"rds1 g1 a=5 | Größe", ""},
		"control character": {"rds1 g1\ta=5", ""},
		"unreadable keeps":  {"rds1 g1 a=x | note", "note"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := ParseLedger(tc.comment)
			if got.Known || got.Problem == "" || got.Foreign != tc.foreign {
				t.Errorf("ParseLedger(%q) = %+v, want an unknown one with a problem and the text %q", tc.comment, got, tc.foreign)
			}
			if !errors.Is(got.Check(), ErrLedger) || got.String() != "" {
				t.Errorf("an unknown ledger must not be written: Check %v, String %q", got.Check(), got.String())
			}
		})
	}
}

func drawLedger(t *rapid.T) Ledger {
	node := rapid.StringMatching(`[a-z][a-z0-9.-]{0,100}`)
	l := Ledger{Known: true, Generation: rapid.Uint64Range(0, 1<<62).Draw(t, "generation"), Deleting: rapid.Bool().Draw(t, "deleting"),
		Foreign: rapid.StringMatching(`([!-~][ -~]{0,30}[!-~])?`).Draw(t, "foreign")}
	for _, name := range rapid.SliceOfN(node, 0, 3).Draw(t, "nodes") {
		l = l.with(name, at(rapid.Int64Range(0, 1<<40).Draw(t, "since")))
	}
	return l
}

func TestLedgerRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawLedger(t)
		got := ParseLedger(want.String())
		if diff := cmp.Diff(want.String(), got.String()); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
		if !got.Known || got.Generation != want.Generation || got.Deleting != want.Deleting || got.Foreign != want.Foreign || len(got.Publications) != len(want.Publications) {
			t.Fatalf("%+v became %+v", want, got)
		}
		for _, p := range want.Publications {
			if since, ok := got.Since(p.Node); !ok || !since.Equal(p.Since) {
				t.Fatalf("%s was lost from %q", p.Node, want)
			}
		}
	})
}

func FuzzParseLedger(f *testing.F) {
	for _, seed := range []string{"", "rds1 g0", "rds1 g7 a=1 b=2 deleting | x", "rds1 g1 a=b", "rds1 g1 | rds1 g2", "\x00", "rds1 g1 deleting=4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, comment string) {
		l := ParseLedger(comment)
		if !l.Known {
			if l.Problem == "" {
				t.Fatalf("%q is unknown without a reason", comment)
			}
			return
		}
		if again := ParseLedger(l.String()); again.String() != l.String() || !again.Known {
			t.Fatalf("%q reads as %q, which reads as %q", comment, l, again)
		}
	})
}

func TestLedgerCheck(t *testing.T) {
	long := ledger(1)
	long.Foreign = strings.Repeat("x", MaxComment)
	odd := ledger(1, held("nöde", 1))
	for name, l := range map[string]Ledger{"too long": long, "not ASCII": odd} {
		if err := l.Check(); !errors.Is(err, ErrLedger) {
			t.Errorf("%s: Check() = %v, want ErrLedger", name, err)
		}
	}
	if err := ledger(1, held("a", 1), held("b", 2)).Check(); err != nil {
		t.Errorf("a common ledger: %v", err)
	}
}

func TestNodeKey(t *testing.T) {
	long, other := strings.Repeat("n", 100)+"1", strings.Repeat("n", 100)+"2"
	if NodeKey(long) == NodeKey(other) || len(NodeKey(long)) > maxNodeKey || NodeKey(NodeKey(long)) != NodeKey(long) {
		t.Errorf("keys of long names: %q, %q", NodeKey(long), NodeKey(other))
	}
	l := ledger(1).with(long, at(1))
	if !l.Holds(long) || l.Holds(other) || len(l.without(long).Publications) != 0 {
		t.Errorf("a long name is not found again in %q", l)
	}
	if two := l.with(other, at(2)); two.Check() != nil {
		t.Errorf("two long names do not fit: %v", two.Check())
	}
}
