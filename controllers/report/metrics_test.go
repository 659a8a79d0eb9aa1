package report

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// fixedArray is a view that does not change.
type fixedArray struct {
	view  rds.View
	stale bool
}

func (a fixedArray) Last() rds.View       { return a.view }
func (a fixedArray) Stale(time.Time) bool { return a.stale }

// TestArrays: an array that was never observed has no sizes; one that stopped
// answering keeps its last ones, and says so.
func TestArrays(t *testing.T) {
	view := rds.View{ObservedAt: time.UnixMilli(1760000000500), Pool: rds.Pool{Size: 1000, Free: 400, Allocated: 700}}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(Arrays(func() map[string]ArraySource {
		return map[string]ArraySource{
			"main": fixedArray{view: view},
			"old":  fixedArray{view: view, stale: true},
			"new":  fixedArray{stale: true},
		}
	}, func() time.Time { return noon }))
	const want = `
# HELP rds_csi_array_observed_timestamp_seconds When the array last answered, in seconds since the epoch.
# TYPE rds_csi_array_observed_timestamp_seconds gauge
rds_csi_array_observed_timestamp_seconds{array="main"} 1.7600000005e+09
rds_csi_array_observed_timestamp_seconds{array="old"} 1.7600000005e+09
# HELP rds_csi_array_pool_allocated_bytes Bytes promised to volumes in the array's pool.
# TYPE rds_csi_array_pool_allocated_bytes gauge
rds_csi_array_pool_allocated_bytes{array="main"} 700
rds_csi_array_pool_allocated_bytes{array="old"} 700
# HELP rds_csi_array_pool_free_bytes Free space of the array's pool in bytes.
# TYPE rds_csi_array_pool_free_bytes gauge
rds_csi_array_pool_free_bytes{array="main"} 400
rds_csi_array_pool_free_bytes{array="old"} 400
# HELP rds_csi_array_pool_size_bytes Size of the array's pool in bytes.
# TYPE rds_csi_array_pool_size_bytes gauge
rds_csi_array_pool_size_bytes{array="main"} 1000
rds_csi_array_pool_size_bytes{array="old"} 1000
# HELP rds_csi_array_up Whether the array answered lately (1) or not (0).
# TYPE rds_csi_array_up gauge
rds_csi_array_up{array="main"} 1
rds_csi_array_up{array="new"} 0
rds_csi_array_up{array="old"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// TestLeaderOnly: a replica that does not lead shows nothing of the domain.
func TestLeaderOnly(t *testing.T) {
	elected := make(chan struct{})
	registry := prometheus.NewPedanticRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "migrations_total", Help: "Migrations."})
	registry.MustRegister(LeaderOnly(elected, counter))
	for _, want := range []int{0, 1} {
		if got, err := testutil.GatherAndCount(registry); err != nil || got != want {
			t.Errorf("%d series, %v; want %d", got, err, want)
		}
		if want == 0 {
			close(elected)
		}
	}
}
