package binaries

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Module is one module under test/tools and what it builds.
type Module struct {
	Name     string   // folder under test/tools
	Binaries []string // names of the built programs
	version  string   // module whose version the programs report, if any
	tags     string   // build tags
}

// The modules, in the order a lab needs them.
var (
	Etcd       = Module{Name: "etcd", Binaries: []string{"etcd"}}
	Kubernetes = Module{
		Name:     "kubernetes",
		Binaries: []string{"kube-apiserver", "kube-controller-manager", "kubectl", "csi-attacher"},
		version:  "k8s.io/kubernetes",
	}
	KubeVirt    = Module{Name: "kubevirt", Binaries: []string{"virt-api", "virt-controller", "manifests"}}
	Provisioner = Module{Name: "provisioner", Binaries: []string{"csi-provisioner", "csi-resizer"}}
	CDI         = Module{Name: "cdi", Binaries: []string{"cdi-controllers", "cdi-manifests"}}
	// OLM is olm-operator, catalog-operator and opm, under the names of their packages.
	OLM = Module{
		Name:     "olm",
		Binaries: []string{"olm", "catalog", "opm", "olm-crds"},
		tags:     "containers_image_openpgp,exclude_graphdriver_btrfs", // no C libraries
	}
)

// All is every module.
func All() []Module { return append(Common(), CDI, OLM) }

// Common are the modules that most tests need.
func Common() []Module { return []Module{Etcd, Kubernetes, KubeVirt, Provisioner} }

// Named finds modules by their names.
func Named(names ...string) ([]Module, error) {
	var found []Module
	for _, name := range names {
		at := slices.IndexFunc(All(), func(m Module) bool { return m.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("the lab has no module %q", name)
		}
		found = append(found, All()[at])
	}
	return found, nil
}

// Progress receives one line of progress at a time.
type Progress func(format string, args ...any)

// Set finds binaries by name.
type Set map[string]string

// Path is the path of a binary; it is an error to ask for one of a module
// that was not ensured.
func (s Set) Path(name string) (string, error) {
	path, ok := s[name]
	if !ok {
		return "", fmt.Errorf("the lab has no binary %q: its module was not asked for", name)
	}
	return path, nil
}

// Ensure builds what is missing of the given modules and returns where all
// their binaries are. Several processes may do so at once: one builds, the
// others wait for it.
func Ensure(ctx context.Context, progress Progress, modules ...Module) (Set, error) {
	root, err := checkout()
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir(root)
	if err != nil {
		return nil, err
	}
	set := Set{}
	for _, m := range modules {
		dir, err := m.ensure(ctx, root, cache, progress)
		if err != nil {
			return nil, fmt.Errorf("building the lab's %s binaries: %w", m.Name, err)
		}
		for _, name := range m.Binaries {
			set[name] = filepath.Join(dir, name)
		}
	}
	return set, nil
}

// ensure returns the folder of m's binaries, building it under a file lock if
// it is not there yet.
func (m Module) ensure(ctx context.Context, root, cache string, progress Progress) (string, error) {
	source := filepath.Join(root, "test", "tools", m.Name)
	key, err := m.key(source)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, m.Name+"-"+key)
	if m.complete(dir) {
		return dir, nil
	}
	unlock, err := lock(ctx, filepath.Join(cache, m.Name+".lock"), func() {
		progress("%s: waiting for another process that builds it", m.Name)
	})
	if err != nil {
		return "", err
	}
	defer unlock()
	if m.complete(dir) { // the other process was building the same
		return dir, nil
	}
	started := time.Now()
	if err := m.build(ctx, source, dir, progress); err != nil {
		return "", err
	}
	progress("%s: built in %s", m.Name, time.Since(started).Round(time.Second))
	return dir, m.prune(cache, dir)
}

// complete tells whether dir holds all of m's binaries. The folder appears by
// a rename, so one that exists is whole unless a person deleted from it.
func (m Module) complete(dir string) bool {
	for _, name := range m.Binaries {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// prune removes what older pins of m left behind.
func (m Module) prune(cache, current string) error {
	old, err := filepath.Glob(filepath.Join(cache, m.Name+"-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range old {
		if dir != current {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// checkout is the folder of this project, found upwards from the working
// directory, which for a test is its package's folder.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "test", "tools", Kubernetes.Name, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no test/tools/kubernetes above the working directory: run inside a checkout of this project")
		}
		dir = parent
	}
}

// cacheDir makes the folder that keeps the binaries. It ignores itself, so
// that git never sees it.
func cacheDir(root string) (string, error) {
	top := filepath.Join(root, ".cache")
	dir := filepath.Join(top, "lab")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	ignore := filepath.Join(top, ".gitignore")
	if _, err := os.Stat(ignore); err == nil {
		return dir, nil
	}
	return dir, os.WriteFile(ignore, []byte("*\n"), 0o644)
}
