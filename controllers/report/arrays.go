package report

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// ArraySource is the last view of one array and whether it still answers.
type ArraySource interface {
	Last() rds.View
	Stale(now time.Time) bool
}

// Arrays makes the arrays' series from the last views of those there are. What was never observed
// has no series but array_up: an error is not a zero.
func Arrays(sources func() map[string]ArraySource, now func() time.Time) prometheus.Collector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"array"}, nil)
	}
	return &arrays{
		sources: sources, now: now,
		up:        desc(MetricArrayUp, "Whether the array answered lately (1) or not (0)."),
		observed:  desc(MetricArrayObserved, "When the array last answered, in seconds since the epoch."),
		size:      desc(MetricPoolSize, "Size of the array's pool in bytes."),
		free:      desc(MetricPoolFree, "Free space of the array's pool in bytes."),
		allocated: desc(MetricPoolAllocated, "Bytes promised to volumes in the array's pool."),
	}
}

type arrays struct {
	sources                             func() map[string]ArraySource
	now                                 func() time.Time
	up, observed, size, free, allocated *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (a *arrays) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{a.up, a.observed, a.size, a.free, a.allocated} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (a *arrays) Collect(ch chan<- prometheus.Metric) {
	for name, source := range a.sources() {
		gauge := func(desc *prometheus.Desc, value float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, name)
		}
		up := 1.0
		if source.Stale(a.now()) {
			up = 0
		}
		gauge(a.up, up)
		view := source.Last()
		if !view.Observed() {
			continue
		}
		gauge(a.observed, float64(view.ObservedAt.UnixMilli())/1000)
		gauge(a.size, float64(view.Pool.Size))
		gauge(a.free, float64(view.Pool.Free))
		gauge(a.allocated, float64(view.Pool.Allocated))
	}
}
