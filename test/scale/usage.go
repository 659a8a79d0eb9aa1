package scale

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the kernel's unit in /proc/PID/stat, USER_HZ: 100 on all of Linux.
const clockTick = 10 * time.Millisecond

// usage is what a process has taken so far.
type usage struct {
	at   time.Time
	cpu  time.Duration
	rss  int64 // bytes now
	peak int64 // bytes at most, ever
}

func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return usage{}, err
	}
	u := usage{at: time.Now()}
	u.cpu, err = parseCPU(string(stat))
	return u, errors.Join(err, parseKB(string(status), "VmRSS:", &u.rss), parseKB(string(status), "VmHWM:", &u.peak))
}

// parseCPU adds the user and system time of a line of /proc/PID/stat.
func parseCPU(stat string) (time.Duration, error) {
	// The second field, the name, may hold anything; count from its end.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("%d fields in %q", len(fields), stat)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, systemErr := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err, systemErr)
}

// parseKB reads a line such as "VmRSS:   1234 kB" of /proc/PID/status into bytes.
func parseKB(status, name string, into *int64) error {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			*into = kb << 10
			return err
		}
	}
	return fmt.Errorf("no %s in /proc/PID/status", name)
}

// share is the part of one core taken between two looks.
func (u usage) share(since usage) float64 {
	return float64(u.cpu-since.cpu) / float64(u.at.Sub(since.at))
}

func (u usage) String() string {
	return fmt.Sprintf("%.1f MB RSS, %.1f MB at most", float64(u.rss)/1e6, float64(u.peak)/1e6)
}
