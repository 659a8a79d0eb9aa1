package process

import (
	"os"
	"os/exec"
	"runtime"
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

// Tail is the last n lines of a file, cut to what a person will read.
func Tail(path string, n int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	const most = 16 << 10
	content = content[max(0, len(content)-most):]
	lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		if len(line) > 400 {
			lines[i] = line[:400] + "…"
		}
	}
	return strings.Join(lines, "\n")
}
