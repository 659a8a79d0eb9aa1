package alerts

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	storagev1 "k8s.io/api/storage/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
)

// command is a command in a document for people: on a line of its own, or in backquotes.
var command = regexp.MustCompile("(?m)^    ((?:kubectl|csi-plugin|/disk) ?.*)$|`((?:kubectl|csi-plugin|/disk)[ /][^`]*)`")

// eventReason is what a command asks events for.
var eventReason = regexp.MustCompile(`reason=(\w+)`)

// runbookCommands: each command in a runbook or an alert works as it stands, but for
// the placeholders; those that change something are tried without effect. Commands of
// the array run on the simulator.
func runbookCommands(ctx context.Context, t *testing.T, w *watched) {
	root := filepath.Join(manifests, "..")
	for _, apply := range []func() error{
		func() error { return w.ApplyKustomize(ctx, filepath.Join(root, "crd")) },
		func() error { return w.ApplyFile(ctx, filepath.Join(root, "samples/rdsdriver.yaml")) },
		func() error { return w.ApplyFile(ctx, filepath.Join(root, "manager/priority_class.yaml")) },
		func() error { return w.ApplyFile(ctx, filepath.Join(root, "manager/deployment.yaml")) },
	} {
		if err := apply(); err != nil {
			t.Fatal(err)
		}
	}
	names := w.placeholders(ctx, t)
	commands := commandsOf(t)
	t.Logf("%d commands", len(commands))
	for _, line := range commands {
		filled := placeholder.ReplaceAllStringFunc(line, func(name string) string { return names[name] })
		if strings.HasPrefix(line, "/") {
			if out, err := w.Array.Run(ctx, filled); err != nil || strings.Contains(line, "print") == (out == "") {
				t.Errorf("%s: %v, %q", filled, err, out)
			}
			continue
		}
		if reason := eventReason.FindStringSubmatch(line); reason != nil && !slices.Contains(reasons, reason[1]) {
			t.Errorf("%s: there are no events %s", line, reason[1])
		}
		out, err := w.shell(ctx, t, filled)
		if err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		if strings.HasPrefix(line, "kubectl rds explain ") && !strings.Contains(out, "\n- migration "+w.vmim.Name+": ") {
			t.Errorf("%s does not tell that the migration hangs:\n%s", line, out)
		}
	}
}

// reasons are those of the events that the operator makes, and of the node plugin's.
var reasons = []string{
	unexplained.EventDualAttach, unexplained.EventLingering, unexplained.EventNodeGone, unexplained.EventDivergence, dualattach.EventFailed,
	"VolumeInaccessible",
}

// placeholder is what a reader is to put a name for.
var placeholder = regexp.MustCompile(`\b(NAMESPACE|MIGRATION|VMI|CLAIM|NODE|NAME|SLOT|LEDGER|POOL)\b`)

// placeholders are names of what there is, by what stands for them in runbooks.
func (w *watched) placeholders(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	var attachments storagev1.VolumeAttachmentList
	if err := w.Client.List(ctx, &attachments); err != nil || len(attachments.Items) == 0 {
		t.Fatalf("%d attachments, %v", len(attachments.Items), err)
	}
	names := map[string]string{
		"NAMESPACE": vms, "MIGRATION": w.vmim.Name, "VMI": w.vm.Name, "CLAIM": "disk", "NODE": "node-c", "NAME": attachments.Items[0].Name, "POOL": "raid10",
	}
	for _, d := range w.Array.Disks() {
		if strings.HasPrefix(d.Slot, "pvc-") {
			names["SLOT"], names["LEDGER"] = d.Slot, d.Comment
		}
	}
	return names
}

// shell runs a command as people do, up to its first pipe.
func (w *watched) shell(ctx context.Context, t *testing.T, line string) (string, error) {
	t.Helper()
	kubectl, err := w.KubectlPath()
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := w.AdminKubeconfig()
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ = strings.Cut(line, " | ")
	switch words := strings.Fields(line); {
	case len(words) == 2:
		line += " --help" // a mere mention
	case slices.Contains(words, "delete"), slices.Contains(words, "taint"):
		line += " --dry-run=server"
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	path := strings.Join([]string{filepath.Dir(kubectl), filepath.Dir(w.Program("csi-plugin")), os.Getenv("PATH")}, ":")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HOME="+w.Dir, "PATH="+path)
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "NotFound") || strings.Contains(string(out), "doesn't have a resource type") {
		err = errors.Join(errors.New("it does not find what it names"), err)
	}
	return string(out), err
}

// commandsOf are the commands in runbooks and alerts, without comments.
func commandsOf(t *testing.T) []string {
	t.Helper()
	books, err := filepath.Glob(filepath.Join(manifests, "runbooks", "*.md"))
	if err != nil || len(books) == 0 {
		t.Fatalf("%d runbooks, %v", len(books), err)
	}
	all := map[string]bool{}
	for _, book := range books {
		for _, found := range command.FindAllStringSubmatch(read(t, book), -1) {
			line, _, _ := strings.Cut(found[1]+found[2], " #")
			all[strings.TrimSpace(line)] = true
		}
	}
	for _, r := range readRules(t) {
		// The command ends the description; those with a label's value arrive in an alert.
		_, line, ok := strings.Cut(r.Annotations["description"], "kubectl ")
		if ok && !strings.Contains(line, "{{") {
			all["kubectl "+strings.TrimSuffix(strings.TrimSpace(line), ".")] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}
