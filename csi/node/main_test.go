package node

import (
	"os"
	"testing"
)

// TestMain keeps the records of tests in memory, where there is such a place:
// they are synced to their disk at every step.
func TestMain(m *testing.M) {
	if _, err := os.Stat("/dev/shm"); err == nil {
		_ = os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}
