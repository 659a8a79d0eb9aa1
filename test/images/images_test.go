package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/yaml"
)

const root = "../.."

// timeout bounds the building and each start.
const timeout = 15 * time.Minute

// builder runs buildah on a storage of its own.
type builder struct {
	storage string
	// imported are the bases that stand in for those of a registry.
	imported []string
}

// run gives what buildah prints on standard output; its errors tell what it printed
// besides.
func (b *builder) run(ctx context.Context, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := b.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("buildah %s: %w\n%s%s", strings.Join(args, " "), err, tail(out.String()), tail(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

func (b *builder) command(ctx context.Context, args ...string) *exec.Cmd {
	options := []string{"--storage-driver=vfs", "--root=" + filepath.Join(b.storage, "root"), "--runroot=" + filepath.Join(b.storage, "run")}
	cmd := exec.CommandContext(ctx, "buildah", append(options, args...)...)
	cmd.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot", "TMPDIR="+b.storage)
	return cmd
}

func (b *builder) must(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.run(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tail(text string) string { return text[max(0, len(text)-4000):] }

// newBuilder has the bases: the base system under the name of Debian's image, and with
// the toolchain of this test under that of Go's.
func newBuilder(ctx context.Context, t *testing.T) *builder {
	t.Helper()
	cache, err := filepath.Abs(filepath.Join(root, ".cache", "images"))
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(cache, "debian.tar")
	if _, err := os.Stat(base); err != nil {
		t.Fatalf("run test/images/prerequisites.sh, as make test-images does: %v", err)
	}
	storage, err := os.MkdirTemp(cache, "storage-")
	if err != nil {
		t.Fatal(err)
	}
	b := &builder{storage: storage}
	t.Cleanup(func() {
		if _, err := b.run(context.Background(), "rm", "--all"); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(storage); err != nil {
			t.Error(err)
		}
	})
	debian, golang := dockerfileArg(t, "DEBIAN_IMAGE"), dockerfileArg(t, "GO_IMAGE")
	if want := "golang:" + strings.TrimPrefix(runtime.Version(), "go") + "-"; !strings.Contains(golang, want) {
		t.Errorf("the images are built with %s, tests run with %s", golang, runtime.Version())
	}
	b.importBase(ctx, t, debian, "", func(c string) { b.must(ctx, t, "add", "--quiet", c, base, "/") })
	b.importBase(ctx, t, golang, debian, func(c string) {
		b.must(ctx, t, "copy", "--quiet", c, goEnv(ctx, t, "GOROOT"), "/usr/local/go")
		b.must(ctx, t, "config", "--env=PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin", "--env=GOPATH=/go", "--env=GOTOOLCHAIN=local", c)
	})
	return b
}

// importBase makes an image by hand.
func (b *builder) importBase(ctx context.Context, t *testing.T, name, from string, fill func(container string)) {
	t.Helper()
	if from == "" {
		from = "scratch"
	}
	container := b.must(ctx, t, "from", "--pull-never", from)
	fill(container)
	b.must(ctx, t, "commit", "--quiet", "--rm", container, name)
	b.imported = append(b.imported, name)
}

// dockerfileArg is the default of an argument of the Dockerfile.
func dockerfileArg(t *testing.T, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^ARG ` + name + `=(\S+)$`).FindStringSubmatch(read(t, "Dockerfile"))
	if found == nil {
		t.Fatalf("the Dockerfile has no ARG %s", name)
	}
	return found[1]
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// build builds a target of the Dockerfile as make images does, but for the caches of
// this machine's Go, which spare the downloads, and gives a container of it.
func (b *builder) build(ctx context.Context, t *testing.T, target string) (container string) {
	t.Helper()
	started := time.Now()
	var volumes []string
	for variable, at := range map[string]string{"GOMODCACHE": "/go/pkg/mod", "GOCACHE": "/root/.cache/go-build"} {
		volumes = append(volumes, "--volume="+goEnv(ctx, t, variable)+":"+at)
	}
	b.must(ctx, t, slices.Concat([]string{"build", "--pull-never", "--layers=false", "--target=" + target, "--build-arg=VERSION=" + version, "--tag=" + target},
		volumes, []string{root})...)
	t.Logf("%s is built after %s", target, time.Since(started).Round(time.Second))
	return b.must(ctx, t, "from", "--pull-never", "localhost/"+target)
}

func goEnv(ctx context.Context, t *testing.T, variable string) string {
	t.Helper()
	out, err := exec.CommandContext(ctx, "go", "env", variable).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

const version = "0.0.0-test"

// config is what an image says of how it is started.
type config struct {
	OCIv1 struct {
		Config struct {
			User       string
			Entrypoint []string
		} `json:"config"`
	}
}

// inspect reads how a container's image is to be started.
func (b *builder) inspect(ctx context.Context, t *testing.T, container string) (user string, entrypoint []string) {
	t.Helper()
	var c config
	if err := json.Unmarshal([]byte(b.must(ctx, t, "inspect", container)), &c); err != nil {
		t.Fatal(err)
	}
	return c.OCIv1.Config.User, c.OCIv1.Config.Entrypoint
}

// TestImages builds both images and starts what is in them, as their users.
func TestImages(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	b := newBuilder(ctx, t)
	t.Run("operator", func(t *testing.T) { operatorStarts(ctx, t, b) })
	t.Run("csi-plugin", func(t *testing.T) { pluginStarts(ctx, t, b) })
}

// operatorStarts: the image holds nothing but the binary, which runs as nobody.
func operatorStarts(ctx context.Context, t *testing.T, b *builder) {
	c := b.build(ctx, t, "operator")
	user, entrypoint := b.inspect(ctx, t, c)
	if user != "65532:65532" || !slices.Equal(entrypoint, []string{"/operator"}) {
		t.Fatalf("user %q, entrypoint %q", user, entrypoint)
	}
	b.wantHelp(ctx, t, c, user, entrypoint[0], "-metrics-secure")
	// Without a cluster it says what it misses, which takes more than its flags.
	if out, err := b.start(ctx, t, c, user, entrypoint[0], "--lease-namespace=rds-csi"); err == nil || !strings.Contains(out, "KUBERNETES_SERVICE_HOST") {
		t.Errorf("without a cluster: %s, %v", out, err)
	}
	entries, err := os.ReadDir(b.must(ctx, t, "mount", c))
	if err != nil || len(entries) != 1 || entries[0].Name() != "operator" {
		t.Errorf("the image holds %v, %v", entries, err)
	}
}

// pluginStarts: as the controller's user and as root, with all programs that the Node
// service executes.
func pluginStarts(ctx context.Context, t *testing.T, b *builder) {
	c := b.build(ctx, t, "csi-plugin")
	user, entrypoint := b.inspect(ctx, t, c)
	if user != "" || !slices.Equal(entrypoint, []string{"/csi-plugin"}) {
		t.Fatalf("user %q, entrypoint %q", user, entrypoint)
	}
	b.wantHelp(ctx, t, c, user, entrypoint[0], "-max-volumes-per-node")
	b.wantHelp(ctx, t, c, "65532:65532", entrypoint[0], "-lease-namespace")
	for _, program := range programs(t) {
		if out, err := b.start(ctx, t, c, user, "/bin/sh", "-c", "PATH=/usr/sbin:/usr/bin:/sbin:/bin; command -v "+program); err != nil {
			t.Errorf("the image lacks %s: %v\n%s", program, err, out)
		}
	}
	for _, version := range []string{"nvme version", "mkfs.ext4 -V", "mkfs.xfs -V", "mount --version", "blkid --version", "modprobe --version"} {
		if _, err := b.run(ctx, append([]string{"run", c, "--"}, strings.Fields(version)...)...); err != nil {
			t.Error(err)
		}
	}
	for _, identity := range []string{"hostnqn", "hostid"} {
		if _, err := os.Stat(filepath.Join(b.must(ctx, t, "mount", c), "etc/nvme", identity)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("all nodes would have the same %s: %v", identity, err)
		}
	}
	nodeServes(ctx, t, b, c, entrypoint[0])
}

// nodeServes starts the Node service in the image, and asks it who it is.
func nodeServes(ctx context.Context, t *testing.T, b *builder, container, entrypoint string) {
	t.Helper()
	var log bytes.Buffer
	cmd := b.command(ctx, "run", container, "--", entrypoint, "--mode=node", "--endpoint=unix:///tmp/csi.sock", "--state-dir=/tmp/stages",
		"--node-name=node-a", "--volume-events=false", "--metrics-address=")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The socket from outside, by a path that is short enough for one.
	outside := filepath.Join(t.TempDir(), "c")
	if err := os.Symlink(b.must(ctx, t, "mount", container), outside); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		cancel(fmt.Errorf("the Node service ended: %w", cmd.Wait()))
		close(ended)
	}()
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // unless it has ended
		<-ended
	}()
	conn, err := grpc.NewClient("unix://"+filepath.Join(outside, "tmp/csi.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	info, err := csi.NewIdentityClient(conn).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	if err != nil || info.GetVendorVersion() != version {
		t.Fatalf("%v, want version %s; %v, %v; its log:\n%s", info, version, err, context.Cause(ctx), log.String())
	}
}

// wantHelp: the entrypoint starts and lists its flags.
func (b *builder) wantHelp(ctx context.Context, t *testing.T, container, user, entrypoint, flag string) {
	t.Helper()
	if out, err := b.start(ctx, t, container, user, entrypoint, "--help"); err != nil || !strings.Contains(out, flag) {
		t.Errorf("%s --help as %q: %v\n%s", entrypoint, user, err, tail(out))
	}
}

// start runs a program in a container's files as a user (UID:GID, or empty for root),
// and gives all that it prints: buildah run loses some of it now and then.
func (b *builder) start(ctx context.Context, t *testing.T, container, user, program string, args ...string) (string, error) {
	t.Helper()
	var as syscall.Credential
	if user != "" {
		if _, err := fmt.Sscanf(user, "%d:%d", &as.Uid, &as.Gid); err != nil {
			t.Fatalf("user %q: %v", user, err)
		}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: b.must(ctx, t, "mount", container), Credential: &as}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// fromMountUtils are the programs that mount-utils executes for csi/mount: to look what
// is on a device, and to grow ext4 and XFS; and those that fsck and resizing execute.
var fromMountUtils = []string{"blkid", "blockdev", "resize2fs", "xfs_growfs", "fsck.ext4", "e2fsck"}

// programs are what the plugin executes, read from its code.
func programs(t *testing.T) []string {
	t.Helper()
	all := slices.Clone(fromMountUtils)
	for _, dir := range []string{"csi/nvme", "csi/mount", "csi/node", "cmd/csi-plugin"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range regexp.MustCompile(`child\.Command\{Name: "([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
				if found[1] == "mkfs." { // + the type of the filesystem
					all = append(all, "mkfs.ext4", "mkfs.xfs")
				} else {
					all = append(all, found[1])
				}
			}
		}
	}
	slices.Sort(all)
	if all = slices.Compact(all); !slices.Contains(all, "nvme") || !slices.Contains(all, "mkfs.xfs") {
		t.Fatalf("the code does not show what it executes: %v", all)
	}
	return all
}

// TestNames: make images makes what the manifests deploy.
func TestNames(t *testing.T) {
	makefile := read(t, "Makefile")
	variable := func(name string) string {
		found := regexp.MustCompile(`(?m)^` + name + ` *\?= (\S+)$`).FindStringSubmatch(makefile)
		if found == nil {
			t.Fatalf("the Makefile sets no %s", name)
		}
		return found[1]
	}
	var component struct {
		Images []struct{ Name, NewName, NewTag string }
	}
	if err := yaml.Unmarshal([]byte(read(t, "config/components/images/kustomization.yaml")), &component); err != nil {
		t.Fatal(err)
	}
	deployed := map[string]string{}
	for _, image := range component.Images {
		deployed[image.Name] = image.NewName + ":" + image.NewTag
	}
	targets := regexp.MustCompile(`--target (\S+) -t \$\(REGISTRY\)/(\S+):\$\(TAG\)`).FindAllStringSubmatch(makefile, -1)
	if len(targets) != 2 {
		t.Fatalf("make images builds %d images", len(targets))
	}
	for _, target := range targets {
		if made := variable("REGISTRY") + "/" + target[2] + ":" + variable("TAG"); deployed[target[1]] != made {
			t.Errorf("make images makes %s of target %s, the manifests deploy %q", made, target[1], deployed[target[1]])
		}
	}
}
