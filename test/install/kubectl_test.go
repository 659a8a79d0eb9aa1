package install

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// kubectlRDS: while a migration hangs, the plugin of kubectl tells where it is, who
// holds the volume by the cluster's and by the array's word, and how it goes on. It
// writes nothing.
func (s *site) kubectlRDS(ctx context.Context, t *testing.T) {
	mark, err := s.MarkAudit()
	must(t, err)
	vm := &lab.VMI{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "vm"}}
	vmim, err := s.Migrate(ctx, vm, lab.Following(handler.HoldingAt(handler.Switch)))
	must(t, err)
	watched := s.watchRDS(ctx, t, "migrations", "-n", tenant, "-w")
	watched.wait(t, vmim.Name+` +vm +node-[ab] +node-[ab] +DualAttached +\d+m\S* +- `)
	must(t, s.WaitStep(ctx, vmim, handler.Switch))

	volumes, warnings := s.rds(ctx, t, "volumes", "-A", "-o", "wide")
	for _, node := range []string{"node-a", "node-b"} {
		want(t, volumes, `(?m)^shop +disk +`+node+` +Attached \d+[ms]\S* +Told \d+[ms]\S* +vmi/vm +- +pvc-\S+ +pvc-\S+ +on$`)
	}
	if warnings != "" {
		t.Errorf("the array answers, and there are warnings: %s", warnings)
	}
	explained, _ := s.rds(ctx, t, "explain", "vmi/vm", "-n", tenant)
	for _, part := range []string{`^VMI shop/vm is Running on node-`, `(?m)^` + vmim.Name + ` .* DualAttached `, `RDS shared volume of claim disk: node-[ab] → node-[ab], attached on both nodes\n`,
		`What is the matter\nnothing\n`, `MigrationStarted +persistentvolumeclaim/disk`} {
		want(t, explained, part)
	}
	structured, _ := s.rds(ctx, t, "volumes", "-n", tenant, "-o", "json")
	want(t, structured, `"arrayKnown": true`)

	s.Release(vm)
	watched.wait(t, vmim.Name+` +vm +node-[ab] +node-[ab] +Completed +- +success `)
	watched.interrupt(t)
	must(t, s.WaitMigration(ctx, vmim, kubevirtv1.MigrationSucceeded))
	s.judgeReaders(t, mark)
	s.kubectlRDSRefusals(ctx, t)
}

// judgeReaders: it read, and wrote nothing.
func (s *site) judgeReaders(t *testing.T, mark lab.AuditMark) {
	t.Helper()
	events, err := s.AuditSince(mark)
	must(t, err)
	asked := 0
	for _, e := range events {
		if !strings.HasPrefix(e.Agent, "kubectl-rds/") {
			continue
		}
		asked++
		if e.Verb != "get" && e.Verb != "list" && e.Verb != "watch" {
			t.Errorf("kubectl rds did %s %s", e.Verb, e.URI)
		}
	}
	if asked == 0 {
		t.Error("the audit log shows no request of kubectl rds")
	}
}

// kubectlRDSRefusals: what cannot be told is refused in words that help.
func (s *site) kubectlRDSRefusals(ctx context.Context, t *testing.T) {
	t.Helper()
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no such VM":    {[]string{"explain", "vmi/none", "-n", tenant}, "there is no VMI none in namespace shop: the VM does not run"},
		"another kind":  {[]string{"explain", "pod/vm", "-n", tenant}, "it is vmi/NAME or vm/NAME that can be explained"},
		"a watch":       {[]string{"migrations", "-w", "-o", "json"}, "--watch prints a table"},
		"another form":  {[]string{"volumes", "-A", "-o", "xml"}, "json"},
		"without right": {[]string{"migrations", "-A", "--as", "nobody"}, `User "nobody" cannot list resource`},
	} {
		stdout, stderr, err := s.runRDS(ctx, t, tt.args...)
		if err == nil || stdout != "" || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") > 2 {
			t.Errorf("%s: %v\n%s%s\nwant %q", name, err, stdout, stderr, tt.want)
		}
	}
}

// kubectlRDSWithoutArray: an array that does not answer makes the ledger unknown, which
// is told, and is never "nobody".
func (s *site) kubectlRDSWithoutArray(ctx context.Context, t *testing.T) {
	t.Helper()
	volumes, warnings := s.rds(ctx, t, "volumes", "-n", tenant)
	want(t, volumes, `(?m)^disk +node-[ab] +Attached \S+ +\? +vmi/vm +-$`)
	want(t, warnings, `^Warning: read the array on array main: array unreachable: `)
	explained, _ := s.rds(ctx, t, "explain", "vmi/vm", "-n", tenant)
	want(t, explained, `claim disk: who holds it on the array is not known: the array has not been observed lately`)
}

// kubectlRDSWithoutKubeVirt: there are no migrations to tell of, and volumes are told of
// all the same.
func (s *site) kubectlRDSWithoutKubeVirt(ctx context.Context, t *testing.T) {
	t.Helper()
	if _, stderr, err := s.runRDS(ctx, t, "migrations", "-A"); err == nil || !strings.Contains(stderr, "KubeVirt is not installed in this cluster") {
		t.Errorf("migrations without KubeVirt: %v, %s", err, stderr)
	}
	if volumes, said := s.rds(ctx, t, "volumes", "-A"); volumes != "" || said != "No RDS volumes found in any namespace.\n" {
		t.Errorf("volumes without KubeVirt: %q, %q", volumes, said)
	}
}

func want(t *testing.T, text, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(text) {
		t.Errorf("%q does not match:\n%s", pattern, text)
	}
}

// rds runs `kubectl rds`, as kubectl finds it.
func (s *site) rds(ctx context.Context, t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, err := s.runRDS(ctx, t, args...)
	if err != nil {
		t.Fatalf("kubectl rds %q: %v\n%s", args, err, stderr)
	}
	return stdout, stderr
}

func (s *site) runRDS(ctx context.Context, t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := s.commandRDS(ctx, t, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (s *site) commandRDS(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	kubectl, err := s.KubectlPath()
	must(t, err)
	admin, err := s.AdminKubeconfig()
	must(t, err)
	cmd := exec.CommandContext(ctx, kubectl, append([]string{"rds"}, args...)...)
	path := filepath.Dir(s.plugin) + string(os.PathListSeparator) + os.Getenv("PATH")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+admin, "HOME="+s.Dir, "PATH="+path)
	return cmd
}

// watching is a command that goes on printing.
type watching struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	seen  strings.Builder
}

func (s *site) watchRDS(ctx context.Context, t *testing.T, args ...string) *watching {
	t.Helper()
	cmd := s.commandRDS(ctx, t, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return &watching{cmd: cmd, lines: bufio.NewScanner(out)}
}

// wait reads on until a line matches; the test's context bounds it.
func (w *watching) wait(t *testing.T, pattern string) {
	t.Helper()
	for line := regexp.MustCompile(pattern); w.lines.Scan(); {
		w.seen.WriteString(w.lines.Text() + "\n")
		if line.MatchString(w.lines.Text()) {
			return
		}
	}
	t.Fatalf("%q was not printed:\n%s", pattern, w.seen.String())
}

// interrupt ends it as a user does, which is no failure.
func (w *watching) interrupt(t *testing.T) {
	t.Helper()
	must(t, w.cmd.Process.Signal(syscall.SIGINT))
	if err := w.cmd.Wait(); err != nil {
		t.Errorf("the watch ended with %v after an interrupt; it had printed:\n%s", err, w.seen.String())
	}
}
