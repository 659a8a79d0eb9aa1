package alerts

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	manifests = "../../config/prometheus"
	binaries  = "../../.cache/monitoring/usr/bin"
)

// rule is one alert of the PrometheusRule.
type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type ruleSpec struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

// readSpec gives the rules as Prometheus reads them.
func readSpec(t *testing.T) ruleSpec {
	t.Helper()
	var manifest struct {
		Spec ruleSpec `json:"spec"`
	}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(manifests, "rules.yaml"))), &manifest); err != nil {
		t.Fatal(err)
	}
	return manifest.Spec
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var all []rule
	for _, group := range readSpec(t).Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// binary is one of Debian's that prerequisites.sh unpacked.
func binary(t *testing.T, name string) string {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(binaries, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%s is missing: run test/alerts/prerequisites.sh, as make test-alerts does (%v)", name, err)
	}
	return file
}

// TestRules runs promtool's tests, one for firing and one for not firing of each
// alert: promtool knows of none that has no test, so that is checked here.
func TestRules(t *testing.T) {
	const tests = "rules.test.yaml"
	dir := t.TempDir()
	writeYAML(t, dir, "rules.yaml", readSpec(t))
	write(t, dir, tests, read(t, filepath.Join("testdata", tests)))
	for _, args := range [][]string{{"check", "rules", filepath.Join(dir, "rules.yaml")}, {"test", "rules", filepath.Join(dir, tests)}} {
		if out, err := exec.CommandContext(t.Context(), binary(t, "promtool"), args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args[:2], " "), err, out)
		}
	}
	fires, quiet := alertTests(t, read(t, filepath.Join("testdata", tests)))
	for _, r := range readRules(t) {
		if severity := r.Labels["severity"]; !fires[r.Alert+"/"+severity] || !quiet[r.Alert] {
			t.Errorf("alert %s (%s): tested to fire: %v, to be quiet: %v", r.Alert, severity, fires[r.Alert+"/"+severity], quiet[r.Alert])
		}
	}
}

// alertTests are the alerts that promtool's file expects to fire, as NAME/SEVERITY, and
// those that it expects not to fire.
func alertTests(t *testing.T, file string) (fires, quiet map[string]bool) {
	t.Helper()
	var content struct {
		Tests []struct {
			Alerts []struct {
				Name     string `json:"alertname"`
				Expected []struct {
					Labels map[string]string `json:"exp_labels"`
				} `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	if err := yaml.Unmarshal([]byte(file), &content); err != nil {
		t.Fatal(err)
	}
	fires, quiet = map[string]bool{}, map[string]bool{}
	for _, test := range content.Tests {
		for _, a := range test.Alerts {
			quiet[a.Name] = quiet[a.Name] || len(a.Expected) == 0
			for _, e := range a.Expected {
				fires[a.Name+"/"+e.Labels["severity"]] = true
			}
		}
	}
	return fires, quiet
}

// TestConventions: KubeVirt's labels and annotations, and a runbook that exists.
func TestConventions(t *testing.T) {
	for _, r := range readRules(t) {
		for _, label := range []string{"severity", "operator_health_impact", "kubernetes_operator_part_of", "kubernetes_operator_component"} {
			if r.Labels[label] == "" {
				t.Errorf("alert %s has no label %s", r.Alert, label)
			}
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("alert %s: severity %q", r.Alert, r.Labels["severity"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("alert %s lacks summary or description", r.Alert)
		}
		book := path.Base(r.Annotations["runbook_url"])
		if book != r.Alert+".md" {
			t.Errorf("alert %s: runbook %q", r.Alert, book)
		}
		text := read(t, filepath.Join(manifests, "runbooks", book))
		for _, link := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(manifests, "runbooks", link[1])); err != nil {
				t.Errorf("runbook %s: %v", book, err)
			}
		}
		for _, part := range []string{"**What it means.**", "**Look.**", "**Do.**", "kubectl "} {
			if !strings.Contains(text, part) {
				t.Errorf("runbook %s lacks %q", book, part)
			}
		}
	}
}
