package migration

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
)

// metrics are the domain's series. Counters and histograms are counted when
// something happened; gauges are computed from the table at every scrape, so they
// cannot drift, go negative or outlive their object.
type metrics struct {
	table         *table
	migrations    *prometheus.CounterVec
	timeouts      *prometheus.CounterVec
	duration      prometheus.Histogram
	stageDuration *prometheus.HistogramVec

	active, deadline, dualAttached *prometheus.Desc
}

// durationBuckets reach from a small VM to an hour, in seconds.
var durationBuckets = []float64{15, 30, 60, 120, 300, 600, 1200, 1800, 3600}

func newMetrics(t *table) *metrics {
	m := &metrics{
		table: t,
		migrations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: report.MetricMigrations,
			Help: "Live migrations of VMs with shared RDS volumes, by result: one per migration, at its first deadline passed or at its end."}, []string{"result"}),
		timeouts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: report.MetricTimeouts,
			Help: "Deadlines passed, by the stage that lasted too long."}, []string{"stage"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: report.MetricDuration, Buckets: durationBuckets,
			Help: "Time from the target pod's creation until one node holds the volumes again, in seconds."}),
		stageDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: report.MetricStageDuration, Buckets: durationBuckets,
			Help: "Time that migrations spent in a stage, in seconds."}, []string{"stage"}),
		active: prometheus.NewDesc(report.MetricActive, "Migrations of VMs with shared RDS volumes that are not over yet.", nil, nil),
		deadline: prometheus.NewDesc(report.MetricDeadline, "When the stage of a migration under way is due to end, in seconds since the epoch; in the past: it is stuck.",
			[]string{"namespace", "vmi", "migration", "stage"}, nil),
		dualAttached: prometheus.NewDesc(report.MetricDualAttached, "Claims whose RDS volume is attached on two nodes for a migration (1).",
			[]string{"namespace", "persistentvolumeclaim"}, nil),
	}
	for _, result := range dualattach.Results() {
		m.migrations.WithLabelValues(string(result))
	}
	for _, stage := range dualattach.UnderWay() {
		m.timeouts.WithLabelValues(stage.String())
		m.stageDuration.WithLabelValues(stage.String())
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.counted() {
		c.Describe(ch)
	}
	ch <- m.active
	ch <- m.deadline
	ch <- m.dualAttached
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.counted() {
		c.Collect(ch)
	}
	active := 0
	type claim struct{ namespace, name string }
	dual := map[claim]bool{}
	m.table.each(func(key types.NamespacedName, e *entry) {
		if !e.underWay() {
			return
		}
		active++
		if d := e.latest.Deadline; d.Set() {
			ch <- prometheus.MustNewConstMetric(m.deadline, prometheus.GaugeValue, float64(d.At.UnixMilli())/1000,
				key.Namespace, key.Name, e.known.Migration.Name, e.stage.String())
		}
		for _, name := range e.latest.DualAttachedClaims {
			dual[claim{key.Namespace, name}] = true
		}
	})
	ch <- prometheus.MustNewConstMetric(m.active, prometheus.GaugeValue, float64(active))
	for c := range dual {
		ch <- prometheus.MustNewConstMetric(m.dualAttached, prometheus.GaugeValue, 1, c.namespace, c.name)
	}
}

func (m *metrics) counted() []prometheus.Collector {
	return []prometheus.Collector{m.migrations, m.timeouts, m.duration, m.stageDuration}
}

// underWay reports whether the migration counts as active.
func (e *entry) underWay() bool {
	return e.stage != dualattach.Undecided && e.stage != dualattach.NotInvolved && !e.stage.Final()
}
