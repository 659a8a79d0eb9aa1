package process

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// dieWithParent makes the kernel kill a child when we die, and gives it a
// process group, so that a terminal's ^C reaches us alone and we can end things in order.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

var (
	spawnOnce sync.Once
	spawns    chan func()
)

// spawn starts cmd from a thread that lives as long as this process: the
// kernel's "parent died" means the thread that forked, and Go's threads come
// and go.
func spawn(cmd *exec.Cmd) error {
	spawnOnce.Do(func() {
		spawns = make(chan func())
		go func() {
			runtime.LockOSThread()
			for f := range spawns {
				f()
			}
		}()
	})
	done := make(chan error, 1)
	spawns <- func() { done <- cmd.Start() }
	return <-done
}

// Tail is the last n lines of a file, each cut to what a person will read.
func Tail(path string, n int) string { return TailNaming(path, "", n) }

// TailNaming is Tail of the lines that name something.
func TailNaming(path, name string, n int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	lines := slices.DeleteFunc(strings.Split(strings.TrimRight(string(content), "\n"), "\n"),
		func(line string) bool { return !strings.Contains(line, name) })
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		if len(line) > 800 {
			lines[i] = line[:800] + "…"
		}
	}
	return strings.Join(lines, "\n")
}
