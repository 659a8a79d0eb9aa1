package binaries

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"sync/atomic"
	"time"
)

// progressEvery is how often a running build says how far it is.
const progressEvery = 15 * time.Second

// key is a hash of everything that decides what m builds: its pins, its own
// sources, its build tags, the Go release and this machine's kind.
func (m Module) key(source string) (string, error) {
	files, err := filepath.Glob(filepath.Join(source, "*", "*.go"))
	if err != nil {
		return "", err
	}
	files = append(files, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum"))
	sort.Strings(files)
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if m.tags != "" {
		fmt.Fprintln(hash, m.tags)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(hash, filepath.Base(file), len(content))
		hash.Write(content)
	}
	return hex.EncodeToString(hash.Sum(nil))[:12], nil
}

// build compiles all tools of the module into a new folder and moves it to
// dir once it is whole.
func (m Module) build(ctx context.Context, source, dir string, progress Progress) error {
	flags, err := m.ldflags(source)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), m.Name+"-building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := m.goBuild(ctx, source, tmp, flags, progress); err != nil {
		return err
	}
	// etcd's main package is the root of its module go.etcd.io/etcd/server.
	if m.Name == Etcd.Name {
		if err := os.Rename(filepath.Join(tmp, "server"), filepath.Join(tmp, "etcd")); err != nil {
			return err
		}
	}
	if !m.complete(tmp) {
		return fmt.Errorf("the tool lines of %s/go.mod do not build all of %v", source, m.Binaries)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

func (m Module) goBuild(ctx context.Context, source, out, ldflags string, progress Progress) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-mod=readonly", "-tags", m.tags, "-ldflags", ldflags, "-o", out+"/", "tool")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stderr = writer
	if err := cmd.Start(); err != nil {
		return errors.Join(err, reader.Close(), writer.Close())
	}
	_ = writer.Close() // the child holds its own
	output := report(ctx, m.Name, reader, progress)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", source, err, strings.Join(output, "\n"))
	}
	return nil
}

// report counts what `go build -v` says and tells from time to time how far it
// is; it returns the last lines, for an error.
func report(ctx context.Context, name string, reader io.ReadCloser, progress Progress) []string {
	defer reader.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var packages, downloads atomic.Int64
	started := time.Now()
	progress("%s: building; a first build compiles everything and takes minutes", name)
	go func() {
		ticks := time.NewTicker(progressEvery)
		defer ticks.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
				progress("%s: %s, %d modules downloaded, %d packages compiled",
					name, time.Since(started).Round(time.Second), downloads.Load(), packages.Load())
			}
		}
	}()
	var last []string
	lines := bufio.NewScanner(reader)
	for lines.Scan() {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "go: downloading"):
			downloads.Add(1)
		case !strings.ContainsAny(line, " :"): // a package's path
			packages.Add(1)
		default:
			last = append(last, line)
			last = last[max(0, len(last)-40):]
		}
	}
	return last
}

var semver = regexp.MustCompile(`v(\d+)\.(\d+)\.\S+`)

// ldflags strips the binaries and tells them the version of the module they
// come from, which release builds get from a script: an API server that does
// not know its version behaves like one of the distant past.
func (m Module) ldflags(source string) (string, error) {
	const strip = "-s -w"
	if m.version == "" {
		return strip, nil
	}
	mod, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	line := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(m.version) + ` v\S+`).Find(mod)
	found := semver.FindSubmatch(line)
	if found == nil {
		return "", fmt.Errorf("%s/go.mod names no version of %s", source, m.version)
	}
	const pkg = " -X k8s.io/component-base/version."
	return strip + pkg + "gitVersion=" + string(found[0]) +
		pkg + "gitMajor=" + string(found[1]) + pkg + "gitMinor=" + string(found[2]) +
		pkg + "gitTreeState=clean", nil
}
