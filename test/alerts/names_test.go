package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are the files that name metrics: the README must name all, the others may
// name some.
func documents(t *testing.T) map[string]string {
	t.Helper()
	files := []string{readme, filepath.Join(manifests, "rules.yaml")}
	for _, pattern := range []string{"runbooks/*.md", "dashboard/*.json"} {
		found, err := filepath.Glob(filepath.Join(manifests, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	all := map[string]string{}
	for _, file := range files {
		all[file] = read(t, file)
	}
	return all
}

const readme = "../../README.md"

// Ways to name a metric: alone, with its labels (README), with matchers (expressions;
// in JSON with escaped quotes).
var (
	metricName   = regexp.MustCompile(`rds_csi_[a-z_]*[a-z]`)
	withLabels   = regexp.MustCompile(`(rds_csi_[a-z_]*[a-z])\{([a-z_,]+)\}`)
	withMatchers = regexp.MustCompile(`(rds_csi_[a-z_]*[a-z])\{([^{}]*=[^{}]*)\}`)
	matcher      = regexp.MustCompile(`([a-z_]+) *(=~|!~|!=|=) *\\?"([^"\\]*)\\?"`)
)

// namesExist: every metric, label and value that a document names is in a scrape of the
// operator and the plugin, and the README names every metric that is.
func namesExist(ctx context.Context, t *testing.T, w *watched) {
	served := w.families(ctx, t)
	named := documents(t)
	for file, text := range named {
		for _, name := range metricName.FindAllString(text, -1) {
			if !served[family(name, served)] {
				t.Errorf("%s names %s, which is not served", filepath.Base(file), name)
			}
		}
		for _, found := range withLabels.FindAllStringSubmatch(text, -1) {
			for label := range strings.SplitSeq(found[2], ",") {
				w.wantSeries(ctx, t, file, fmt.Sprintf(`{__name__=~"%s(_bucket)?",%s!=""}`, found[1], label))
			}
		}
		for _, selector := range selectors(text) {
			w.wantSeries(ctx, t, file, selector)
		}
	}
	for name := range served {
		if !regexp.MustCompile(name + `\b`).MatchString(named[readme]) {
			t.Errorf("%s is served, and README does not name it", name)
		}
	}
	t.Logf("%d metrics are served: %s", len(served), strings.Join(slices.Sorted(maps.Keys(served)), " "))
}

// selectors ask for each value that an expression compares a label with; whether it
// wants it or not, it has to exist.
func selectors(text string) []string {
	var all []string
	for _, found := range withMatchers.FindAllStringSubmatch(text, -1) {
		for _, m := range matcher.FindAllStringSubmatch(found[2], -1) {
			for value := range strings.SplitSeq(m[3], "|") {
				if !strings.HasPrefix(value, "$") { // a variable of the dashboard
					all = append(all, fmt.Sprintf(`%s{%s="%s"}`, found[1], m[1], value))
				}
			}
		}
	}
	return all
}

func (w *watched) wantSeries(ctx context.Context, t *testing.T, file, selector string) {
	t.Helper()
	series, err := w.series(ctx, modes[0].name, selector)
	if err != nil || len(series) == 0 {
		t.Errorf("%s speaks of %s: %d series, %v", filepath.Base(file), selector, len(series), err)
	}
}

// families are the metrics of ours that were ever scraped; a histogram is one.
func (w *watched) families(ctx context.Context, t *testing.T) map[string]bool {
	t.Helper()
	data, err := w.get(ctx, modes[0].name, "/api/v1/label/__name__/values", nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	raw, served := map[string]bool{}, map[string]bool{}
	for _, name := range all {
		raw[name] = strings.HasPrefix(name, "rds_csi_")
	}
	for name := range raw {
		if base := histogram(name); raw[name] && raw[base+"_bucket"] {
			served[base] = true
		} else if raw[name] {
			served[name] = true
		}
	}
	return served
}

// histogram is a series' name without the endings of a histogram's series.
func histogram(name string) string {
	for _, ending := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, ending); ok {
			return base
		}
	}
	return name
}

// family is the metric that a name in an expression means.
func family(name string, served map[string]bool) string {
	if base := histogram(name); served[base] {
		return base
	}
	return name
}

// TestSelectors: what is looked for is what is named.
func TestSelectors(t *testing.T) {
	got := selectors(`sum(rds_csi_a_total{result!="success"}) / rds_csi_b{kind=~"x|y",pod="$pod"} and rds_csi_c{kind} "rds_csi_d{le=\"1\"}"`)
	want := []string{`rds_csi_a_total{result="success"}`, `rds_csi_b{kind="x"}`, `rds_csi_b{kind="y"}`, `rds_csi_d{le="1"}`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := os.Stat(readme); err != nil {
		t.Error(err)
	}
}
