package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// vms is the namespace of what is watched.
const vms = "vms"

// watched is a product at work, and who watches it.
type watched struct {
	*stack.Stack
	*watchers
	pages *pager
	vm    *lab.VMI
	vmim  *kubevirtv1.VirtualMachineInstanceMigration
}

// TestLive: a migration that hangs pages somebody, and so do two strangers on one
// volume and an operator that dies; all of it resolves. Along the way everything that
// rules, runbooks and README name is looked for.
func TestLive(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	s, err := stack.Start(ctx, stack.Options{
		Lab: lab.Options{Nodes: []string{"node-a", "node-b", "node-c"}}, OperatorArgs: []string{"--metrics-secure=true", "--settle=2s"}, PluginArgs: []string{"--metrics-secure=true"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	pages := &pager{}
	w := &watched{Stack: s, pages: pages, watchers: startMonitoring(ctx, t, s, pages, startNode(ctx, t, s))}
	if err := s.CreateNamespace(ctx, vms); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		run  func(context.Context, *testing.T, *watched)
	}{
		{"a migration hangs", migrationHangs},
		{"strangers share a volume", strangersShare},
		{"a node cannot use a volume", nodeCannotUse},
		{"the operator dies", operatorDies},
		{"the commands of the runbooks", runbookCommands},
		{"the manifests", manifestsRender},
		{"the dashboard", dashboardAnswers},
		{"the migration ends", migrationEnds},
		{"names in rules, runbooks, dashboard and README", namesExist},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(ctx, t, w) }) {
			return // the next ones stand on it
		}
	}
}

// lostVolume is the handle of a volume without a device.
const lostVolume = "pvc-lost"

// startNode runs the plugin's Node service, and gives the address of its metrics. It
// remembers a volume whose device is not there: this machine has none.
func startNode(ctx context.Context, t *testing.T, s *stack.Stack) string {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t, s)
	record, err := json.Marshal(map[string]any{
		"volume": lostVolume, "bootID": strings.TrimSpace(read(t, "/proc/sys/kernel/random/boot_id")), "step": "staged",
		"staging": dir, "block": true, "nqn": "nqn.2000-02.com.mikrotik:" + lostVolume + ".g1", "nsid": 1, "portals": 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, lostVolume+".json", string(record))
	kubeconfig, err := s.KubeconfigFor(ctx, stack.Namespace, "rds-csi-node")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RunProcess("csi-node", s.Program("csi-plugin"), []string{
		"--mode=node", "--endpoint=unix://" + s.Dir + "/node.sock", "--node-name=node-a", "--state-dir=" + dir, "--volume-events=false",
		"--kubeconfig=" + kubeconfig, "--metrics-address=" + address, "--metrics-secure=true"}); err != nil {
		t.Fatal(err)
	}
	return address
}

// migrationHangs: the alert arrives, in words that help, and is not about a pod.
func migrationHangs(ctx context.Context, t *testing.T, w *watched) {
	w.vm = w.MustStartVM(ctx, t, vms, "db", func(b lab.VMIBuilder) lab.VMIBuilder {
		return b.WithAnnotation(dualattach.TimeoutAnnotation, "5s")
	})
	var err error
	if w.vmim, err = w.Migrate(ctx, w.vm, lab.Following(handler.HoldingAt(handler.Switch))); err != nil {
		t.Fatal(err)
	}
	for _, m := range modes {
		a := w.pages.wait(ctx, t, w.Stack, "firing", w.timedOut(m))
		_, command, _ := strings.Cut(strings.TrimSuffix(a.Annotations["description"], "."), "See kubectl ")
		if out, err := w.Kubectl(ctx, strings.Fields(command)...); err != nil || !strings.Contains(out, "storageMigrationTimedOut") {
			t.Errorf("the description's command shows no condition: %v\n%s\n%s", err, a.Annotations["description"], out)
		}
		for _, label := range []string{"pod", "instance", "endpoint", "container"} {
			if value, ok := a.Labels[label]; ok {
				t.Errorf("the alert is about %s %s", label, value)
			}
		}
	}
}

func (w *watched) timedOut(m mode) map[string]string {
	return map[string]string{"alertname": "RDSMigrationTimedOut", "mode": m.name, m.about: vms, "vmi": "db", "migration": w.vmim.Name, "stage": "DualAttached"}
}

// strangersShare: a pod gets a volume that another one uses, past the plugin: on the
// array somebody wrote that its node holds it.
func strangersShare(ctx context.Context, t *testing.T, w *watched) {
	claim, err := w.CreateRWXClaim(ctx, vms, "disk", nil)
	if err != nil {
		t.Fatal(err)
	}
	pv := &corev1.PersistentVolume{}
	if err := w.Client.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, pv); err != nil {
		t.Fatal(err)
	}
	slot := pv.Spec.CSI.VolumeHandle
	for pod, node := range map[string]string{"first": "node-a", "second": "node-b"} { // in any order
		ledger := rds.ParseLedger(w.Comment(slot))
		if len(ledger.Publications) > 0 {
			ledger.Generation++
			ledger.Publications = append(ledger.Publications, rds.Publication{Node: rds.NodeKey(node), Since: time.Now()})
			if out, err := w.Array.Run(ctx, fmt.Sprintf(`/disk set [find slot="%s"] comment="%s"`, slot, ledger)); err != nil || out != "" {
				t.Fatalf("%q, %v", out, err)
			}
		}
		p := lab.NewPod(vms, pod, node, claim.Name)
		if err := w.Client.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
		if err := w.WaitPod(ctx, p, corev1.PodRunning); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range modes {
		w.pages.wait(ctx, t, w.Stack, "firing", map[string]string{
			"alertname": "RDSUnexplainedDualAttach", "severity": "critical", "mode": m.name, m.about: vms, "persistentvolumeclaim": claim.Name})
	}
}

// nodeCannotUse: the alert is on its way, and names the node; it would arrive after five
// minutes.
func nodeCannotUse(ctx context.Context, t *testing.T, w *watched) {
	for _, m := range modes {
		expr := fmt.Sprintf(`ALERTS{alertname="RDSVolumeInaccessible",node="node-a",volume_id=%q}`, lostVolume)
		if err := w.WaitFor(ctx, expr, func(ctx context.Context) (bool, error) {
			found, err := w.query(ctx, m.name, expr)
			return len(found) == 1, err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// operatorDies while a migration is under way, and comes back. Without it nobody tells of
// the migration any more; then it is told again.
func operatorDies(ctx context.Context, t *testing.T, w *watched) {
	down := func(m mode) map[string]string {
		return map[string]string{"alertname": "RDSOperatorDown", "severity": "critical", "mode": m.name}
	}
	w.Operators[0].Kill()
	for _, m := range modes {
		w.pages.wait(ctx, t, w.Stack, "firing", down(m))
		w.pages.wait(ctx, t, w.Stack, "resolved", w.timedOut(m))
	}
	if err := w.Operators[0].Run(); err != nil {
		t.Fatal(err)
	}
	for _, m := range modes {
		w.pages.wait(ctx, t, w.Stack, "resolved", down(m))
		w.pages.wait(ctx, t, w.Stack, "firing", w.timedOut(m))
	}
}

// manifestsRender: what is applied by hand is all there.
func manifestsRender(ctx context.Context, t *testing.T, w *watched) {
	for dir, want := range map[string]string{"": "kind: PrometheusRule", "dashboard": "grafana_dashboard"} {
		if out, err := w.Kubectl(ctx, "kustomize", filepath.Join(manifests, dir)); err != nil || !strings.Contains(out, want) {
			t.Errorf("config/prometheus/%s: %v\n%s", dir, err, out)
		}
	}
}

// migrationEnds: the handler that held it lets it go.
func migrationEnds(ctx context.Context, t *testing.T, w *watched) {
	if err := w.WaitStep(ctx, w.vmim, handler.Switch); err != nil {
		t.Fatal(err)
	}
	w.Release(w.vm)
	if err := w.WaitMigration(ctx, w.vmim, kubevirtv1.MigrationSucceeded); err != nil {
		t.Fatal(err)
	}
	for _, m := range modes {
		w.pages.wait(ctx, t, w.Stack, "resolved", w.timedOut(m))
	}
}
