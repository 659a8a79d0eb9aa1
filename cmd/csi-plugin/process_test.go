package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube/kubetest"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// asPlugin makes the test binary be the plugin, so that tests run real processes.
const asPlugin = "RDS_CSI_TEST_AS_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(asPlugin) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// writeArrays makes an arrays file; address may be one where nobody answers.
func writeArrays(t *testing.T, address string) string {
	t.Helper()
	dir := t.TempDir()
	keyFile := filepath.Join(dir, "key")
	if err := routeros.WriteKey(keyFile); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "arrays.yaml")
	text := fmt.Sprintf("arrays:\n- name: main\n  address: %s\n  user: csi\n  keyFile: %s\n  insecureAcceptAnyHostKey: true\n  basePath: raid10/k8s\n  nvmeAddresses: [10.0.0.1]\n", address, keyFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// plugin is one process.
type plugin struct {
	*exec.Cmd
	socket   string
	admin    string
	identity spec.IdentityClient
	stderr   *bytes.Buffer
	exited   chan struct{} // closed when it has; ProcessState is set then
}

// start runs a plugin with fast lease times against a kubeconfig.
func start(t *testing.T, kubeconfig, arrays string, extra ...string) *plugin {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "csi.sock")
	admin := freeAddress(t)
	args := append([]string{
		"--endpoint=unix://" + socket, "--kubeconfig=" + kubeconfig, "--arrays-file=" + arrays, "--metrics-address=" + admin,
		"--lease-duration=3s", "--lease-renew-deadline=1s", "--lease-retry-period=200ms", "--log-format=console",
	}, extra...)
	p := &plugin{Cmd: exec.Command(os.Args[0], args...), socket: socket, admin: "http://" + admin, stderr: &bytes.Buffer{}, exited: make(chan struct{})}
	p.Env = append(os.Environ(), asPlugin+"=1")
	p.Stderr = p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.Wait() // how it ended is in ProcessState
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("process %d said:\n%s", p.Process.Pid, p.stderr)
		}
	})
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p.identity = spec.NewIdentityClient(conn)
	return p
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serves reports whether the process answers CSI now. A new connection each
// time: a kept one would back off.
func (p *plugin) serves() bool {
	conn, err := grpc.NewClient("unix://"+p.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return false
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err = spec.NewIdentityClient(conn).GetPluginInfo(ctx, &spec.GetPluginInfoRequest{})
	return err == nil
}

func (p *plugin) exitCode(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatal("the process does not exit")
		return 0
	}
}

func (p *plugin) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// watchBoth looks all the time whether both processes serve.
func watchBoth(t *testing.T, a, b *plugin) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			if a.serves() && b.serves() && a.serves() {
				t.Error("two processes serve at once")
				return
			}
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
}

func TestHandOverAtShutdown(t *testing.T) {
	t.Parallel()
	api, arrays := kubetest.New(t), writeArrays(t, "127.0.0.1:1")
	first := start(t, api.Kubeconfig(t), arrays)
	eventually(t, "the first serves", first.serves)
	second := start(t, api.Kubeconfig(t), arrays)
	watchBoth(t, first, second)
	eventually(t, "the second lives", func() bool { return get(second.admin+"/healthz") == http.StatusOK })
	if got := get(second.admin + "/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("the second is ready (%d)", got)
	}
	if got := get(first.admin + "/readyz"); got != http.StatusOK {
		t.Errorf("the first is not ready (%d)", got)
	}
	if info, err := os.Stat(first.socket); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	first.signal(t, syscall.SIGTERM)
	if code := first.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(first.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
	stopped := time.Now()
	eventually(t, "the second serves", second.serves)
	if took := time.Since(stopped); took > 2500*time.Millisecond {
		t.Errorf("the Lease was not released: %s", took)
	}
	second.signal(t, syscall.SIGTERM)
	if code := second.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestTakeOverAfterACrash(t *testing.T) {
	t.Parallel()
	api, arrays := kubetest.New(t), writeArrays(t, "127.0.0.1:1")
	first := start(t, api.Kubeconfig(t), arrays)
	eventually(t, "the first serves", first.serves)
	second := start(t, api.Kubeconfig(t), arrays)
	watchBoth(t, first, second)
	first.signal(t, syscall.SIGKILL)
	eventually(t, "the second serves", second.serves)
	// The container restarts with the socket that the crash left behind.
	again := start(t, api.Kubeconfig(t), arrays, "--endpoint=unix://"+first.socket)
	again.socket = first.socket
	second.signal(t, syscall.SIGTERM)
	eventually(t, "the restarted one serves", again.serves)
}

// A holder that cannot renew its Lease is gone before anybody else serves.
func TestLostLeaseEndsTheProcess(t *testing.T) {
	t.Parallel()
	api, arrays := kubetest.New(t), writeArrays(t, "127.0.0.1:1")
	var cut atomic.Bool
	path := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cut.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { path.CloseClientConnections(); path.Close() })
	kubeconfig := api.Kubeconfig(t)
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kubeconfig, bytes.ReplaceAll(text, []byte(api.URL), []byte(path.URL)), 0o600); err != nil {
		t.Fatal(err)
	}
	first := start(t, kubeconfig, arrays)
	eventually(t, "the first serves", first.serves)
	second := start(t, api.Kubeconfig(t), arrays)
	watchBoth(t, first, second)
	cut.Store(true)
	if code := first.exitCode(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if second.serves() {
		t.Error("the second served before the first was gone")
	}
	if !strings.Contains(first.stderr.String(), "Lease is lost") {
		t.Error("it does not say why it ended")
	}
	if _, err := os.Stat(first.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
	eventually(t, "the second serves", second.serves)
}

// A process that was frozen past its Lease wakes up believing that it holds it.
func TestFrozenProcessServesNothingWhenItWakes(t *testing.T) {
	t.Parallel()
	api, arrays := kubetest.New(t), writeArrays(t, "127.0.0.1:1")
	first := start(t, api.Kubeconfig(t), arrays)
	eventually(t, "the first serves", first.serves)
	if _, err := first.identity.GetPluginInfo(t.Context(), &spec.GetPluginInfoRequest{}); err != nil {
		t.Fatal(err) // a connection that is open already
	}
	second := start(t, api.Kubeconfig(t), arrays)
	first.signal(t, syscall.SIGSTOP)
	eventually(t, "the second serves", second.serves)
	answer := make(chan error, 1)
	go func() {
		_, err := first.identity.GetPluginInfo(context.WithoutCancel(t.Context()), &spec.GetPluginInfoRequest{})
		answer <- err
	}()
	first.signal(t, syscall.SIGCONT)
	if err := <-answer; err == nil {
		t.Error("it answered after another had taken over")
	}
	if code := first.exitCode(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
}

func TestSocketOfALiveProcessIsNotTaken(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	first, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if l, err := listen(socket); err == nil {
		l.Close()
		t.Error("two listen at one path")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := listen(file); err == nil {
		l.Close()
		t.Error("a file was taken for a socket")
	}
}

func TestBadConfigurationEndsAtOnce(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t)
	for name, args := range map[string][]string{
		"no arrays file": {"--arrays-file=" + filepath.Join(t.TempDir(), "absent.yaml")},
		"no kubeconfig":  {"--kubeconfig=" + filepath.Join(t.TempDir(), "absent")},
		"bad flag":       {"--mode=both"},
		"an argument":    {"serve"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, api.Kubeconfig(t), writeArrays(t, "127.0.0.1:1"), args...)
			if code := p.exitCode(t); code == 0 {
				t.Error("exit code 0")
			}
			if p.stderr.Len() == 0 {
				t.Error("it does not say why")
			}
		})
	}
}

func TestMetricsAreServed(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t)
	p := start(t, api.Kubeconfig(t), writeArrays(t, "127.0.0.1:1"), "--leader-election=false")
	eventually(t, "it serves", p.serves)
	r, err := http.Get(p.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`rds_csi_ssh_command_duration_seconds_count{result="unreachable",verb="update"} 0`,
		`rds_csi_rpc_duration_seconds_count{code="Unavailable",method="ControllerPublishVolume"} 0`,
		`go_goroutines`,
	} {
		if !strings.Contains(string(body), line) {
			t.Errorf("no %s", line)
		}
	}
	for _, request := range api.Requests() {
		if strings.Contains(request, "leases") {
			t.Errorf("without leader election: %s", request)
		}
	}
}

func get(url string) int {
	r, err := http.Get(url)
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	return r.StatusCode
}
