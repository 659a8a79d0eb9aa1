package guest

import (
	"bufio"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Image says what a guest finds in its file system.
type Image struct {
	Kernel   string            // folder of an unpacked kernel package
	Busybox  string            // static
	Programs []string          // of the host, copied with the libraries they need
	Files    map[string]string // other files: path in the guest → path on the host
	Modules  []string          // loaded at boot, with what they depend on
}

// init is the first process. It reaps what the agent's programs leave behind,
// and its end is the end of the guest.
//
//go:embed init.sh
var initScript []byte

// Write makes the initramfs.
func (i Image) Write(to string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	a := newArchive(out)
	for _, step := range []func(*archive) error{i.base, i.programs, i.files, i.modules, (*archive).close} {
		if err := step(a); err != nil {
			return fmt.Errorf("make the initramfs: %w", err)
		}
	}
	return out.Close()
}

func (i Image) base(a *archive) error {
	for _, folder := range []string{"proc", "sys", "dev", "run", "tmp", "var/lib", "mnt", "sbin", "bin"} {
		if err := a.folder(folder); err != nil {
			return err
		}
	}
	if err := a.bytes("init", 0o755, initScript); err != nil {
		return err
	}
	if err := a.link("etc/mtab", "/proc/self/mounts"); err != nil {
		return err
	}
	return a.file("bin/busybox", i.Busybox)
}

// programs copies each program to where the host has it, so that every PATH
// that works there works here; the applets of busybox fill the gaps at boot.
func (i Image) programs(a *archive) error {
	for _, name := range i.Programs {
		at, err := Find(name)
		if err != nil {
			return err
		}
		if err := a.file(at, at); err != nil {
			return err
		}
		libraries, err := libraries(at)
		if err != nil {
			return err
		}
		for _, l := range libraries {
			if err := a.file(l, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i Image) files(a *archive) error {
	for to, from := range i.Files {
		if err := a.file(to, from); err != nil {
			return err
		}
	}
	return nil
}

// Find is where this machine has a program, and a guest with that program, too.
// An ordinary user's PATH does not look everywhere.
func Find(name string) (string, error) {
	for _, folder := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		at := path.Join(folder, name)
		if info, err := os.Stat(at); err == nil && info.Mode().IsRegular() {
			return at, nil
		}
	}
	return "", fmt.Errorf("no program %s on this machine", name)
}

// libraries are the shared libraries of a program, with the loader.
func libraries(program string) ([]string, error) {
	out, err := exec.Command("ldd", program).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "not a dynamic executable") {
			return nil, nil
		}
		return nil, fmt.Errorf("ldd %s: %w: %s", program, err, out)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				found = append(found, word)
			}
		}
	}
	return found, nil
}

// Release is the kernel's version.
func (i Image) Release() (string, error) {
	version, err := os.ReadFile(filepath.Join(i.Kernel, "version"))
	return strings.TrimSpace(string(version)), err
}

// modules copies the kernel's modules in the order in which they load.
func (i Image) modules(a *archive) error {
	release, err := i.Release()
	if err != nil {
		return err
	}
	root := filepath.Join(i.Kernel, "lib/modules", release)
	needs, err := readDependencies(filepath.Join(root, "modules.dep"))
	if err != nil {
		return err
	}
	var order []string
	for _, name := range i.Modules {
		file, known := needs.byName[name]
		if !known {
			continue // built in
		}
		order = needs.load(order, file)
	}
	var list strings.Builder
	for _, file := range order {
		content, err := readModule(filepath.Join(root, file))
		if err != nil {
			return err
		}
		at := path.Join("modules", moduleName(file)+".ko")
		if err := a.bytes(at, 0o644, content); err != nil {
			return err
		}
		fmt.Fprintln(&list, "/"+at)
	}
	return a.bytes("modules/order", 0o644, []byte(list.String()))
}

func readModule(file string) ([]byte, error) {
	if strings.HasSuffix(file, ".xz") {
		return exec.Command("xz", "-dc", file).Output()
	}
	return os.ReadFile(file)
}

func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

type dependencies struct {
	byName map[string]string
	needs  map[string][]string
}

func readDependencies(file string) (dependencies, error) {
	d := dependencies{byName: map[string]string{}, needs: map[string][]string{}}
	in, err := os.Open(file)
	if err != nil {
		return d, err
	}
	defer in.Close()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		module, needs, _ := strings.Cut(lines.Text(), ":")
		d.byName[moduleName(module)] = module
		d.needs[module] = strings.Fields(needs)
	}
	return d, lines.Err()
}

// load appends a module and, before it, what it needs and order does not have.
func (d dependencies) load(order []string, file string) []string {
	for _, have := range order {
		if have == file {
			return order
		}
	}
	for _, need := range d.needs[file] {
		order = d.load(order, need)
	}
	return append(order, file)
}
