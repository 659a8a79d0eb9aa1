package scale

import (
	"os"
	"testing"
	"time"
)

func TestUsage(t *testing.T) {
	const stat = "4711 (a b) c) S 1 4711 4711 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 7 0 12345 0 0"
	if cpu, err := parseCPU(stat); cpu != 3*time.Second || err != nil {
		t.Errorf("processor time %s, %v", cpu, err)
	}
	if _, err := parseCPU("1 (x) S"); err == nil {
		t.Error("a short line was accepted")
	}
	var rss int64
	if err := parseKB("Name:\tx\nVmRSS:\t    2048 kB\n", "VmRSS:", &rss); rss != 2<<20 || err != nil {
		t.Errorf("memory %d, %v", rss, err)
	}
	if err := parseKB("", "VmRSS:", &rss); err == nil {
		t.Error("a missing line was accepted")
	}
	own, err := usageOf(os.Getpid())
	if err != nil || own.rss <= 0 || own.peak < own.rss {
		t.Errorf("of this process: %+v, %v", own, err)
	}
}
