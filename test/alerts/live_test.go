package alerts

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// notification is what Alertmanager posts.
type notification struct {
	Alerts []notifiedAlert `json:"alerts"`
}

type notifiedAlert struct {
	Status      string            `json:"status"` // firing or resolved
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// pager keeps what arrived.
type pager struct {
	mu      sync.Mutex
	arrived []notifiedAlert
}

func (p *pager) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var n notification
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrived = append(p.arrived, n.Alerts...)
}

// find is the first alert that arrived with these labels, among others.
func (p *pager) find(status string, labels map[string]string) (notifiedAlert, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.arrived {
		matches := a.Status == status
		for key, value := range labels {
			matches = matches && a.Labels[key] == value
		}
		if matches {
			return a, true
		}
	}
	return notifiedAlert{}, false
}

// Two ways to scrape the operator: as its ServiceMonitor says, and where a cluster
// does not let it keep its own labels.
var modes = map[string]struct{ honorLabels bool }{"honoured": {true}, "overwritten": {false}}

// TestAlertsArrive: a migration that hangs pages somebody, and so does an operator
// that dies meanwhile; both resolve.
func TestAlertsArrive(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	s, err := stack.Start(ctx, stack.Options{Lab: lab.Options{Nodes: []string{"node-a", "node-b"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	pages := &pager{}
	startMonitoring(ctx, t, s, pages)
	const ns = "vms"
	if err := s.CreateNamespace(ctx, ns); err != nil {
		t.Fatal(err)
	}
	vm := s.MustStartVM(ctx, t, ns, "db", func(b lab.VMIBuilder) lab.VMIBuilder {
		return b.WithAnnotation(dualattach.TimeoutAnnotation, "5s")
	})
	vmim, err := s.Migrate(ctx, vm, lab.Following(handler.HoldingAt(handler.Switch)))
	if err != nil {
		t.Fatal(err)
	}
	for mode, about := range map[string]string{"honoured": "namespace", "overwritten": "exported_namespace"} {
		a := pages.wait(ctx, t, s, "firing", map[string]string{"alertname": "RDSMigrationTimedOut", "mode": mode, about: ns, "vmi": "db", "migration": vmim.Name, "stage": "DualAttached"})
		if want := fmt.Sprintf("kubectl -n %s describe vmim %s", ns, vmim.Name); !bytes.Contains([]byte(a.Annotations["description"]), []byte(want)) {
			t.Errorf("the description does not tell %q: %s", want, a.Annotations["description"])
		}
		for _, label := range []string{"pod", "instance", "endpoint"} {
			if value, ok := a.Labels[label]; ok {
				t.Errorf("the alert is about %s %s", label, value)
			}
		}
	}

	// The operator dies in the middle of it.
	s.Operators[0].Kill()
	pages.wait(ctx, t, s, "firing", map[string]string{"alertname": "RDSOperatorDown", "severity": "critical", "mode": "honoured"})
	if err := s.Operators[0].Run(); err != nil {
		t.Fatal(err)
	}
	pages.wait(ctx, t, s, "resolved", map[string]string{"alertname": "RDSOperatorDown", "severity": "critical", "mode": "honoured"})

	if err := s.WaitStep(ctx, vmim, handler.Switch); err != nil {
		t.Fatal(err)
	}
	s.Release(vm)
	pages.wait(ctx, t, s, "resolved", map[string]string{"alertname": "RDSMigrationTimedOut", "mode": "honoured", "vmi": "db"})
}

func (p *pager) wait(ctx context.Context, t *testing.T, s *stack.Stack, status string, labels map[string]string) notifiedAlert {
	t.Helper()
	var found notifiedAlert
	started := time.Now()
	err := s.WaitFor(ctx, fmt.Sprintf("alert %v to be %s", labels, status), func(context.Context) (ok bool, _ error) {
		found, ok = p.find(status, labels)
		return ok, nil
	})
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Fatalf("%v; what arrived: %+v", err, p.arrived)
	}
	t.Logf("%s (%s) is %s after %s", labels["alertname"], labels["mode"], status, time.Since(started).Round(100*time.Millisecond))
	return found
}

// startMonitoring runs an Alertmanager that pages, and a Prometheus for each mode.
func startMonitoring(ctx context.Context, t *testing.T, s *stack.Stack, pages *pager) {
	t.Helper()
	webhook := httptest.NewServer(pages)
	t.Cleanup(webhook.Close)
	dir := t.TempDir()
	readRules(t, dir)
	alertmanager := freeAddress(t, s)
	config := write(t, dir, "alertmanager.yaml", fmt.Sprintf(`route: {receiver: pager, group_by: ["..."], group_wait: 1s, group_interval: 1s}
receivers: [{name: pager, webhook_configs: [{url: %q, send_resolved: true}]}]
`, webhook.URL))
	if _, err := s.RunProcess("alertmanager", binary(t, "prometheus-alertmanager"), []string{
		"--config.file=" + config, "--storage.path=" + filepath.Join(dir, "alertmanager"), "--web.listen-address=" + alertmanager, "--cluster.listen-address="}); err != nil {
		t.Fatal(err)
	}
	for mode, m := range modes {
		config := write(t, dir, mode+".yaml", fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s, external_labels: {mode: %s}}
rule_files: [rules.yaml]
alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}
scrape_configs:
- job_name: rds-csi-operator
  honor_labels: %v
  static_configs:
  - targets: [%q]
    labels: {namespace: %s, pod: rds-csi-operator-1, container: operator, endpoint: metrics, service: rds-csi-operator}
`, mode, alertmanager, m.honorLabels, s.Operators[0].Metrics, stack.Namespace))
		address := freeAddress(t, s)
		if _, err := s.RunProcess("prometheus-"+mode, binary(t, "prometheus"), []string{
			"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, mode), "--web.listen-address=" + address}); err != nil {
			t.Fatal(err)
		}
		err := s.WaitFor(ctx, "Prometheus to be ready", func(ctx context.Context) (bool, error) {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/-/ready", nil)
			if err != nil {
				return false, err
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return false, nil // not listening yet
			}
			defer response.Body.Close()
			return response.StatusCode == http.StatusOK, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func freeAddress(t *testing.T, s *stack.Stack) string {
	t.Helper()
	port, err := s.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
