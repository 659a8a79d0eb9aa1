package rds

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const prefix = DefaultNQNPrefix

// vol builds a volume as the array would show it.
func vol(comment, nqn string, exported bool) Volume {
	return Volume{Slot: "pvc-a", Size: 1 << 30, Comment: comment, Ledger: ParseLedger(comment), NQN: nqn, Exported: exported}
}

func ours(generation uint64) string { return NQN(prefix, "pvc-a", generation) }

const theirs = prefix + ":pvc-a"

// brief spells a change shortly.
type brief struct {
	Comment string
	NQN     string
	Export  Export
	Size    int64
	Err     error
}

func short(c Change, err error) brief {
	b := brief{NQN: c.NQN, Export: c.Export, Size: c.Size}
	if c.Ledger != nil {
		b.Comment = c.Ledger.String()
	}
	for _, kind := range []error{ErrInUse, ErrLedger, ErrConflict, ErrInvalid} {
		if errors.Is(err, kind) {
			return brief{Err: kind}
		}
	}
	b.Err = err
	return b
}

func compare(t *testing.T, reason string, want, got brief) {
	t.Helper()
	if want.Err != nil && errors.Is(got.Err, want.Err) {
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", reason, diff)
	}
}

func TestPublish(t *testing.T) {
	tests := map[string]struct {
		reason   string
		v        Volume
		attached []string
		want     brief
	}{
		"first":           {"a new name for a new holder", vol("rds1 g0", ours(0), false), nil, brief{Comment: "rds1 g1 n=100", NQN: ours(1), Export: ExportOn}},
		"first, no name":  {"never exported", vol("rds1 g4", "", false), nil, brief{Comment: "rds1 g5 n=100", NQN: ours(5), Export: ExportOn}},
		"next":            {"the predecessor's host must not come back", vol("rds1 g4", ours(4), false), nil, brief{Comment: "rds1 g5 n=100", NQN: ours(5), Export: ExportOn}},
		"second":          {"both hosts use one name", vol("rds1 g4 m=50", ours(4), true), nil, brief{Comment: "rds1 g4 m=50 n=100"}},
		"second, off":     {"an export that should be on is repaired", vol("rds1 g4 m=50", ours(4), false), nil, brief{Comment: "rds1 g4 m=50 n=100", Export: ExportOn}},
		"second, hidden":  {"the array hides the name of an export that is off: it is no new one", vol("rds1 g4 m=50", "", false), nil, brief{Comment: "rds1 g4 m=50 n=100", Export: ExportOn}},
		"again":           {"nothing to do", vol("rds1 g4 n=50", ours(4), true), nil, brief{}},
		"again, off":      {"repair", vol("rds1 g4 n=50", ours(4), false), nil, brief{Export: ExportOn}},
		"third":           {"never", vol("rds1 g4 l=40 m=50", ours(4), true), nil, brief{Err: ErrInUse}},
		"third by view":   {"the cluster knows of two others", vol("", ours(4), true), []string{"l", "m"}, brief{Err: ErrInUse}},
		"deleting":        {"too late", vol("rds1 g4 deleting", ours(4), false), nil, brief{Err: ErrInUse}},
		"rebuilt":         {"what the cluster does not know of may be connected: the name stays", vol("", ours(4), true), nil, brief{Comment: "rds1 g4 n=100"}},
		"rebuilt, other":  {"the cluster's word", vol("", ours(4), true), []string{"m"}, brief{Comment: "rds1 g4 m=100 n=100"}},
		"rebuilt, self":   {"its own attachment", vol("", ours(4), true), []string{"n"}, brief{Comment: "rds1 g4 n=100"}},
		"their volume":    {"another plugin's name is never changed", vol("", theirs, true), []string{"n"}, brief{Comment: "rds1 g0 n=100"}},
		"their text":      {"kept behind the ledger", vol("mine", theirs, true), []string{"n"}, brief{Comment: "rds1 g0 n=100 | mine"}},
		"not ASCII":       {"no ledger can be kept beside it", vol("Größe", theirs, true), nil, brief{Err: ErrLedger}},
		"on, nobody":      {"a new name although it is on", vol("rds1 g4", ours(4), true), nil, brief{Comment: "rds1 g5 n=100", NQN: ours(5), Export: ExportOn}},
		"on, but itself":  {"its entry was lost: it keeps its name", vol("rds1 g4", ours(4), true), []string{"n"}, brief{Comment: "rds1 g4 n=100"}},
		"on, but another": {"the cluster says who", vol("rds1 g4", ours(4), true), []string{"m"}, brief{Comment: "rds1 g4 m=100 n=100"}},
		"theirs, adopted": {"with a ledger, too, their name stays", vol("rds1 g0", theirs, false), nil, brief{Comment: "rds1 g0 n=100", Export: ExportOn}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			compare(t, tc.reason, tc.want, short(Publish(tc.v, "n", tc.attached, at(100), prefix)))
		})
	}
}

func TestUnpublish(t *testing.T) {
	tests := map[string]struct {
		reason   string
		v        Volume
		node     string
		attached []string
		want     brief
	}{
		"last":             {"off, in one step with the ledger", vol("rds1 g4 n=50", ours(4), true), "n", nil, brief{Comment: "rds1 g4", Export: ExportOff}},
		"last, own VA":     {"the leaving attachment does not count", vol("rds1 g4 n=50", ours(4), true), "n", []string{"n"}, brief{Comment: "rds1 g4", Export: ExportOff}},
		"one of two":       {"the other runs on", vol("rds1 g4 m=40 n=50", ours(4), true), "n", nil, brief{Comment: "rds1 g4 m=40"}},
		"last but another": {"the cluster knows of one more", vol("rds1 g4 n=50", ours(4), true), "n", []string{"m"}, brief{Comment: "rds1 g4 m=100"}},
		"not listed":       {"nothing changes", vol("rds1 g4 m=40", ours(4), true), "n", nil, brief{}},
		"nobody, on":       {"not ours to switch off", vol("rds1 g4", ours(4), true), "n", nil, brief{}},
		"every":            {"an empty node means all", vol("rds1 g4 m=40 n=50", ours(4), true), "", []string{"m", "n"}, brief{Comment: "rds1 g4", Export: ExportOff}},
		"every but one":    {"the cluster knows of one more", vol("rds1 g4 m=40", ours(4), true), "", []string{"l", "m"}, brief{Comment: "rds1 g4 l=100", Export: KeepExport}},
		"unknown":          {"rebuilt; the export stays on", vol("", theirs, true), "n", []string{"m", "n"}, brief{Comment: "rds1 g0 m=100"}},
		"unknown, nobody":  {"even so it stays on", vol("", theirs, true), "n", nil, brief{Comment: "rds1 g0"}},
		"not ASCII":        {"refused", vol("Größe", theirs, true), "n", nil, brief{Err: ErrLedger}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			compare(t, tc.reason, tc.want, short(Unpublish(tc.v, tc.node, tc.attached, at(100))))
		})
	}
}

func TestExpand(t *testing.T) {
	tests := map[string]struct {
		reason  string
		comment string
		size    int64
		want    brief
	}{
		"grow":     {"", "rds1 g1", 2 << 30, brief{Size: 2 << 30}},
		"same":     {"done before", "rds1 g1", 1 << 30, brief{}},
		"smaller":  {"never shrinks", "rds1 g1", 1, brief{}},
		"held":     {"online", "rds1 g1 n=1", 2 << 30, brief{Size: 2 << 30}},
		"migrates": {"later", "rds1 g1 m=1 n=1", 2 << 30, brief{Err: ErrConflict}},
		"deleting": {"too late", "rds1 g1 deleting", 2 << 30, brief{Err: ErrInUse}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			compare(t, tc.reason, tc.want, short(Expand(vol(tc.comment, ours(1), false), tc.size)))
		})
	}
}

func TestDeletable(t *testing.T) {
	for comment, want := range map[string]error{"rds1 g1": nil, "rds1 g1 deleting": nil, "rds1 g1 n=1": ErrInUse, "": ErrLedger, "Größe": ErrLedger} {
		if err := Deletable(vol(comment, ours(1), false)); !errors.Is(err, want) {
			t.Errorf("Deletable with comment %q = %v, want %v", comment, err, want)
		}
	}
}

func TestAvailable(t *testing.T) {
	p := Pool{Size: 100, Free: 60, Allocated: 70}
	for reserve, want := range map[int64]int64{0: 30, 10: 20, 40: 0} {
		if got := p.Available(reserve); got != want {
			t.Errorf("Available(%d) = %d, want %d", reserve, got, want)
		}
	}
	if got := (Pool{Size: 100, Free: 10, Allocated: 0}).Available(0); got != 10 {
		t.Errorf("free space bounds it as well: %d", got)
	}
}

// apply does to a volume what an array would.
func apply(v Volume, c Change) Volume {
	if c.Ledger != nil {
		v.Comment, v.Ledger = c.Ledger.String(), ParseLedger(c.Ledger.String())
	}
	if c.NQN != "" {
		v.NQN = c.NQN
	}
	if c.Export != KeepExport {
		v.Exported = c.Export == ExportOn
	}
	return v
}

// TestHistory walks random histories of publications, with ledgers erased in
// between, against a model of who was told to hold the volume.
func TestHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := vol("rds1 g0", ours(0), false)
		var told []string             // by us, and not taken back: the truth
		owners := map[string]string{} // the first holder under each NQN
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			node := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node")
			now := at(int64(1000 + i))
			switch rapid.IntRange(0, 8).Draw(t, "step") {
			case 0:
				v.Comment, v.Ledger = "", ParseLedger("")
			case 1, 2, 3, 4:
				nobody := len(told) == 0 && v.Ledger.Known
				change, err := Publish(v, node, told, now, prefix)
				if err != nil {
					if slices.Contains(told, node) || len(told) < MaxHolders {
						t.Fatalf("publishing to %s, held by %v: %v", node, told, err)
					}
					continue
				}
				v = apply(v, change)
				if !slices.Contains(told, node) {
					told = append(told, node)
				}
				if first, used := owners[v.NQN]; nobody && used {
					t.Fatalf("the NQN %s of %s was given to %s", v.NQN, first, node)
				}
				owners[v.NQN] = node
			default:
				change, err := Unpublish(v, node, told, now)
				if err != nil {
					t.Fatal(err)
				}
				known := v.Ledger.Known
				v = apply(v, change)
				told = slices.DeleteFunc(told, func(n string) bool { return n == node })
				if change.Export == ExportOff && (!known || len(told) > 0) {
					t.Fatalf("switched off with a ledger known %v, held by %v", known, told)
				}
			}
			if len(told) > MaxHolders || len(told) > 0 && !v.Exported {
				t.Fatalf("held by %v, exported %v", told, v.Exported)
			}
			for _, n := range told {
				if v.Ledger.Known && !v.Ledger.Holds(n) {
					t.Fatalf("%s holds the volume and %q does not say so", n, v.Comment)
				}
			}
		}
	})
}
