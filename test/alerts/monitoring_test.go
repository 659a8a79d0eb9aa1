package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// mode is a way in which clusters scrape: as the ServiceMonitors say, or as OpenShift
// does for projects of users. There the target's labels win over ours, which become
// exported_namespace, and every expression of a rule is asked with the namespace of the
// rule (the Prometheus operator's overrideHonorLabels and enforcedNamespaceLabel).
type mode struct {
	name       string
	overwrites bool
	// about is the label that has the namespace of the VM or claim.
	about string
}

var modes = []mode{{name: "honoured", about: "namespace"}, {name: "overwritten", overwrites: true, about: "exported_namespace"}}

// serviceMonitor is the part of a ServiceMonitor that says how to scrape.
type serviceMonitor struct {
	metav1.TypeMeta `json:",inline"`

	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		Endpoints []struct {
			Port            string         `json:"port"`
			Scheme          string         `json:"scheme"`
			HonorLabels     bool           `json:"honorLabels"`
			BearerTokenFile string         `json:"bearerTokenFile"`
			TLSConfig       map[string]any `json:"tlsConfig"`
			Relabelings     []struct {
				SourceLabels []string `json:"sourceLabels"`
				TargetLabel  string   `json:"targetLabel"`
			} `json:"relabelings"`
		} `json:"endpoints"`
		Selector metav1.LabelSelector `json:"selector"`
	} `json:"spec"`
}

// serviceMonitors are those that ship, by name.
func serviceMonitors(t *testing.T) map[string]serviceMonitor {
	t.Helper()
	all := map[string]serviceMonitor{}
	for text := range strings.SplitSeq(read(t, filepath.Join(manifests, "servicemonitor.yaml")), "\n---\n") {
		var m serviceMonitor
		if err := yaml.UnmarshalStrict([]byte(text), &m); err != nil {
			t.Fatal(err) // or the Prometheus operator does what is not known here
		}
		if len(m.Spec.Endpoints) != 1 {
			t.Fatalf("ServiceMonitor %s has %d endpoints", m.Metadata.Name, len(m.Spec.Endpoints))
		}
		all[m.Metadata.Name] = m
	}
	return all
}

// scrapeConfig is what the Prometheus operator makes of a ServiceMonitor, the discovery
// of pods aside: one pod is at target.
func scrapeConfig(m serviceMonitor, as mode, target, container, tokenFile string) map[string]any {
	endpoint, name := m.Spec.Endpoints[0], m.Metadata.Name
	config := map[string]any{
		"job_name": m.Metadata.Namespace + "/" + name, "scheme": endpoint.Scheme, "honor_labels": endpoint.HonorLabels && !as.overwrites,
		"static_configs": []any{map[string]any{"targets": []string{target}, "labels": map[string]string{
			"job": name, "namespace": stack.Namespace, "service": name, "pod": name + "-1", "container": container, "endpoint": endpoint.Port,
			"__meta_kubernetes_pod_node_name": "node-a",
		}}},
	}
	var relabel []any
	for _, r := range endpoint.Relabelings {
		relabel = append(relabel, map[string]any{"source_labels": r.SourceLabels, "target_label": r.TargetLabel})
	}
	config["relabel_configs"] = relabel
	if endpoint.Scheme == "" {
		config["scheme"] = "http"
	}
	if endpoint.BearerTokenFile != "" {
		config["authorization"] = map[string]string{"credentials_file": tokenFile}
	}
	if endpoint.TLSConfig["insecureSkipVerify"] == true {
		config["tls_config"] = map[string]bool{"insecure_skip_verify": true}
	}
	return config
}

// selector is a metric of ours in an expression, with the beginning of its matchers.
var selector = regexp.MustCompile(`(rds_csi_[a-z_]+)(\{)?`)

// enforce puts a namespace into every selector of an expression.
func enforce(expr string) string {
	return selector.ReplaceAllStringFunc(expr, func(found string) string {
		name, matchers := strings.CutSuffix(found, "{")
		if matchers {
			return name + `{namespace="` + stack.Namespace + `",`
		}
		return name + `{namespace="` + stack.Namespace + `"}`
	})
}

// watchers are a Prometheus for each mode, and an Alertmanager.
type watchers struct {
	s            *stack.Stack
	dir          string
	alertmanager string            // address
	prometheus   map[string]string // addresses, by mode
	node         string            // address of a node plugin's metrics
	token        string            // file
}

// startMonitoring runs an Alertmanager that pages, and a Prometheus for each mode.
func startMonitoring(ctx context.Context, t *testing.T, s *stack.Stack, pages *pager, node string) *watchers {
	t.Helper()
	webhook := httptest.NewServer(pages)
	t.Cleanup(webhook.Close)
	w := &watchers{s: s, dir: t.TempDir(), alertmanager: freeAddress(t, s), prometheus: map[string]string{}, node: node}
	w.token = write(t, w.dir, "token", w.account(ctx, t))
	config := write(t, w.dir, "alertmanager.yaml", fmt.Sprintf(`route: {receiver: pager, group_by: ["..."], group_wait: 1s, group_interval: 1s}
receivers: [{name: pager, webhook_configs: [{url: %q, send_resolved: true}]}]
`, webhook.URL))
	if _, err := s.RunProcess("alertmanager", binary(t, "alertmanager"), []string{
		"--config.file=" + config, "--storage.path=" + filepath.Join(w.dir, "alertmanager"), "--web.listen-address=" + w.alertmanager, "--cluster.listen-address="}); err != nil {
		t.Fatal(err)
	}
	for _, m := range modes {
		w.startPrometheus(ctx, t, m)
	}
	return w
}

// account makes Prometheus' account, which may read metrics and nothing else, and gives
// its token.
func (w *watchers) account(ctx context.Context, t *testing.T) string {
	t.Helper()
	const name = "prometheus"
	meta := metav1.ObjectMeta{Namespace: stack.Namespace, Name: name}
	if err := w.s.Client.Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}); err != nil {
		t.Fatal(err)
	}
	if err := w.s.Client.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "rds-csi-metrics-reader"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: stack.Namespace, Name: name}},
	}); err != nil {
		t.Fatal(err)
	}
	config, err := w.s.ConfigFor(ctx, stack.Namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return config.BearerToken
}

// startPrometheus runs one with the rules as they ship; it only looks more often than
// by default.
func (w *watchers) startPrometheus(ctx context.Context, t *testing.T, as mode) {
	t.Helper()
	dir := filepath.Join(w.dir, as.name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	spec := readSpec(t)
	if as.overwrites {
		for _, group := range spec.Groups {
			for i := range group.Rules {
				group.Rules[i].Expr = enforce(group.Rules[i].Expr)
				group.Rules[i].Labels["namespace"] = stack.Namespace
			}
		}
	}
	writeYAML(t, dir, "rules.yaml", spec)
	monitors := serviceMonitors(t)
	if len(monitors) != 3 {
		t.Fatalf("%d ServiceMonitors, but three programs to scrape", len(monitors))
	}
	config := writeYAML(t, dir, "prometheus.yaml", map[string]any{
		"global":     map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s", "external_labels": map[string]string{"mode": as.name}},
		"rule_files": []string{"rules.yaml"},
		"alerting":   map[string]any{"alertmanagers": []any{map[string]any{"static_configs": []any{map[string]any{"targets": []string{w.alertmanager}}}}}},
		"scrape_configs": []any{
			scrapeConfig(monitors["rds-csi-operator"], as, w.s.Operators[0].Metrics, "operator", w.token),
			scrapeConfig(monitors["rds-csi-controller"], as, w.s.PluginMetrics, "csi-plugin", w.token),
			scrapeConfig(monitors["rds-csi-node"], as, w.node, "csi-plugin", w.token),
		},
	})
	w.prometheus[as.name] = freeAddress(t, w.s)
	if _, err := w.s.RunProcess("prometheus-"+as.name, binary(t, "prometheus"), []string{
		"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + w.prometheus[as.name]}); err != nil {
		t.Fatal(err)
	}
	if err := w.s.WaitFor(ctx, "Prometheus ("+as.name+") to scrape all its targets", func(ctx context.Context) (bool, error) {
		up, err := w.query(ctx, as.name, "sum(up)")
		return err == nil && len(up) == 1 && up[0].value() == "3", nil // not listening yet
	}); err != nil {
		problems, _ := w.get(ctx, as.name, "/api/v1/targets", nil)
		t.Fatalf("%v; its targets are %s", err, problems)
	}
}

// sample is one series of the answer to a query.
type sample struct {
	Labels map[string]string `json:"metric"`
	Value  [2]any            `json:"value"` // time and value
}

func (s sample) value() string { return fmt.Sprint(s.Value[1]) }

// query asks the Prometheus of a mode.
func (w *watchers) query(ctx context.Context, mode, expr string) ([]sample, error) {
	data, err := w.get(ctx, mode, "/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	var vector struct {
		Result []sample `json:"result"`
	}
	if err := json.Unmarshal(data, &vector); err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	return vector.Result, nil
}

// series are the label sets that the Prometheus of a mode has ever seen of a metric.
func (w *watchers) series(ctx context.Context, mode, match string) ([]map[string]string, error) {
	data, err := w.get(ctx, mode, "/api/v1/series", url.Values{"match[]": {match}, "start": {fmt.Sprint(time.Now().Add(-time.Hour).Unix())}})
	if err != nil {
		return nil, err
	}
	var all []map[string]string
	return all, json.Unmarshal(data, &all)
}

func (w *watchers) get(ctx context.Context, mode, path string, parameters url.Values) (json.RawMessage, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.prometheus[mode]+path+"?"+parameters.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("Prometheus says: %s", answer.Error)
	}
	return answer.Data, nil
}

// TestServiceMonitorsFindPods: each selects a Service, which selects pods, and the port
// has the same name all the way.
func TestServiceMonitorsFindPods(t *testing.T) {
	var services []corev1.Service
	for text := range strings.SplitSeq(read(t, filepath.Join(manifests, "../manager/service.yaml")), "\n---\n") {
		var s corev1.Service
		if err := yaml.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		services = append(services, s)
	}
	var pods []corev1.PodTemplateSpec
	for _, file := range []string{"manager/deployment.yaml", "csi/controller.yaml", "csi/node.yaml"} {
		var workload appsv1.Deployment // a DaemonSet has its template in the same place
		if err := yaml.Unmarshal([]byte(read(t, filepath.Join(manifests, "..", file))), &workload); err != nil {
			t.Fatal(err)
		}
		pods = append(pods, workload.Spec.Template)
	}
	for name, m := range serviceMonitors(t) {
		found := 0
		for _, s := range services {
			if !selects(m.Spec.Selector.MatchLabels, s.Labels) {
				continue
			}
			for _, port := range s.Spec.Ports {
				for _, pod := range pods {
					if port.Name == m.Spec.Endpoints[0].Port && selects(s.Spec.Selector, pod.Labels) && hasPort(pod, port.TargetPort.StrVal) {
						found++
					}
				}
			}
		}
		if found != 1 {
			t.Errorf("ServiceMonitor %s finds %d kinds of pods", name, found)
		}
	}
}

func selects(selector, labels map[string]string) bool {
	return len(selector) > 0 && maps.Equal(selector, map[string]string{nameLabel: labels[nameLabel]})
}

const nameLabel = "app.kubernetes.io/name"

func hasPort(pod corev1.PodTemplateSpec, name string) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
	})
}

func freeAddress(t *testing.T, s *stack.Stack) string {
	t.Helper()
	port, err := s.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func writeYAML(t *testing.T, dir, name string, content any) string {
	t.Helper()
	text, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, dir, name, string(text))
}
