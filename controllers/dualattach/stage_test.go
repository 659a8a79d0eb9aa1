package dualattach

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const golden = "testdata/stages.golden"

const goldenHeader = `# The stage of every migration, by all that it depends on. This file is written by
# "go test -update" from the function StageOf and read back by its test, which checks
# that every combination stands here exactly once.
#
#   involved  shared volumes of ours take part, and the migration shares them (one that
#             copies blocks to other claims, or to another cluster, does not)
#   vmi       live: the VMI exists and is not final; over: it is final or gone
#   vmim      active: neither succeeded nor failed; succeeded; ended: failed, cancelled
#             or vanished without success
#   source    how many of the shared volumes are attached on the source node
#   target    the same on the target node; none as long as that is not known
#   newer     the target of a newer migration, or the node on which the VM was started
#             anew, is the one that this migration is to release: the source after
#             success, else the target
#   stage     what follows
#
# any: it makes no difference.

`

// columns are the inputs in the order of the golden file, with all their values.
var columns = []struct {
	name   string
	values []string
	set    func(f *Facts, value int)
}{
	{"involved", []string{"no", "yes"}, func(f *Facts, v int) { f.Involved = v == 1 }},
	{"vmi", []string{"live", "over"}, func(f *Facts, v int) { f.InstanceLive = v == 0 }},
	{"vmim", []string{"active", "succeeded", "ended"}, func(f *Facts, v int) { f.Phase = Phase(v) }},
	{"source", []string{"none", "some", "all"}, func(f *Facts, v int) { f.Source = Extent(v) }},
	{"target", []string{"none", "some", "all"}, func(f *Facts, v int) { f.Target = Extent(v) }},
	{"newer", []string{"no", "yes"}, func(f *Facts, v int) { f.Superseded = v == 1 }},
}

const anyValue = "any"

// TestStageGolden tells the stage of every combination of facts. Read the golden
// file: it is the documentation of the decision.
func TestStageGolden(t *testing.T) {
	want := renderStages()
	if *update {
		if err := os.WriteFile(golden, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s is not what StageOf says (-StageOf +file); go test -update rewrites it:\n%s", golden, diff)
	}
}

// TestStageGoldenIsComplete reads the file alone, without the code that wrote it.
func TestStageGoldenIsComplete(t *testing.T) {
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	times := map[Facts]int{}
	for _, row := range goldenRows(string(text)) {
		if len(row) != len(columns)+1 {
			t.Fatalf("row %q has %d fields, want %d", row, len(row), len(columns)+1)
		}
		for _, f := range combinations(row) {
			times[f]++
			if got := StageOf(f).String(); got != row[len(columns)] {
				t.Errorf("StageOf(%+v) = %s, the file says %s", f, got, row[len(columns)])
			}
		}
	}
	all := combinations(slices.Repeat([]string{anyValue}, len(columns)))
	for _, f := range all {
		if times[f] != 1 {
			t.Errorf("%+v stands in the file %d times, want once", f, times[f])
		}
	}
	if len(times) != len(all) {
		t.Errorf("the file holds %d combinations, there are %d", len(times), len(all))
	}
}

// goldenRows are the fields of the rows below the header.
func goldenRows(text string) [][]string {
	var rows [][]string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) > 0 && fields[0] != "#" && fields[0] != columns[0].name {
			rows = append(rows, fields)
		}
	}
	return rows
}

// combinations are the facts that a row stands for.
func combinations(row []string) []Facts {
	out := []Facts{{}}
	for i, column := range columns {
		var next []Facts
		for value, name := range column.values {
			if row[i] != name && row[i] != anyValue {
				continue
			}
			for _, f := range out {
				column.set(&f, value)
				next = append(next, f)
			}
		}
		out = next
	}
	return out
}

func renderStages() string {
	var b strings.Builder
	b.WriteString(goldenHeader)
	line := func(fields []string) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-9s %-5s %-10s %-7s %-7s %-6s %s",
			fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], fields[6]), " ") + "\n")
	}
	header := make([]string, 0, len(columns)+1)
	for _, column := range columns {
		header = append(header, column.name)
	}
	line(append(header, "stage"))
	previous := ""
	for _, row := range stageRows() {
		if previous != "" && row[2] != previous {
			b.WriteString("\n")
		}
		previous = row[2]
		line(row)
	}
	return b.String()
}

// stageRows lists the facts in the order of the columns. A column for which every
// value gives the same stage is "any": all of them where nothing is involved,
// vmi and newer elsewhere.
func stageRows() [][]string {
	rows := [][]string{{"no", anyValue, anyValue, anyValue, anyValue, anyValue, NotInvolved.String()}}
	for _, phase := range columns[2].values {
		for _, source := range columns[3].values {
			for _, target := range columns[4].values {
				rows = append(rows, split([]string{"yes", anyValue, phase, source, target, anyValue}, 1, 5)...)
			}
		}
	}
	return rows
}

// split gives the row with its stage, or, where it has no single one, the rows of
// each value of the first column given that makes a difference.
func split(row []string, by ...int) [][]string {
	if stage, ok := onlyStage(row); ok {
		return [][]string{append(slices.Clone(row), stage.String())}
	}
	for n, i := range by {
		var rows [][]string
		useful := false
		for _, value := range columns[i].values {
			narrowed := slices.Clone(row)
			narrowed[i] = value
			_, ok := onlyStage(narrowed)
			useful = useful || ok
			rows = append(rows, split(narrowed, append(slices.Clone(by[:n]), by[n+1:]...)...)...)
		}
		if useful {
			return rows
		}
	}
	return nil
}

// onlyStage is the stage that all combinations of a row have in common.
func onlyStage(row []string) (Stage, bool) {
	facts := combinations(row)
	for _, f := range facts {
		if StageOf(f) != StageOf(facts[0]) {
			return Undecided, false
		}
	}
	return StageOf(facts[0]), true
}

func TestStageNamesAndOrder(t *testing.T) {
	seen := map[string]bool{}
	for stage := Undecided; stage <= Superseded; stage++ {
		name := stage.String()
		if name == "" || seen[name] {
			t.Errorf("stage %d has the name %q, want one of its own", stage, name)
		}
		seen[name] = true
		if stagesByName[name] != stage {
			t.Errorf("the name %s reads back as %s", name, stagesByName[name])
		}
		underWayOrIdle := stage < Completed
		if stage.Final() == underWayOrIdle {
			t.Errorf("%s.Final() = %t", name, stage.Final())
		}
	}
	if diff := cmp.Diff([]Stage{AttachingTarget, DualAttached, ReleasingSource, ReleasingTarget}, UnderWay()); diff != "" {
		t.Errorf("UnderWay() (-want +got):\n%s", diff)
	}
}
