package main

import (
	"strings"
	"testing"
	"time"
)

// TestNothingIsLostOnABadLine is the measurement in small, on a line that is more
// than twice as bad. (Much worse ones hardly let a deletion, of three commands, through:
// one cut ends all commands on the connection.)
func TestNothingIsLostOnABadLine(t *testing.T) {
	for _, seed := range []uint64{1, 2} {
		result, err := churn(t.Context(), churnOptions{
			volumes: 30, concurrency: 6, channels: 4, latency: time.Millisecond,
			cuts: 0.05, seed: seed, retryFirst: 5 * time.Millisecond, retryMost: 100 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := result.verdict(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		if result.cut < 5 || len(result.times["DeleteVolume"]) != 30 {
			t.Errorf("seed %d: %d commands cut and %d volumes deleted do not prove much", seed, result.cut, len(result.times["DeleteVolume"]))
		}
	}
}

// TestTheWitnessMissesVolumes: one that is gone without having been deleted is told.
func TestTheWitnessMissesVolumes(t *testing.T) {
	r, err := newRig(rigOptions{fs: "xfs", channels: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	array, err := r.client()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = array.Close() }()
	plugin, closePlugin, err := servePlugin(r, array)
	if err != nil {
		t.Fatal(err)
	}
	defer closePlugin()
	w := newWitness(plugin, r.server)
	w.exists("pvc-gone")
	w.exists("pvc-deleted")
	w.goes("pvc-deleted")
	if err := w.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.lost) != 1 || !strings.HasPrefix(w.lost[0], "pvc-gone ") {
		t.Errorf("lost: %q", w.lost)
	}
	if err := r.holds("pvc-gone"); err == nil {
		t.Error("a disk that is not there holds nothing")
	}
}
