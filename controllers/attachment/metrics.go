package attachment

import (
	"github.com/prometheus/client_golang/prometheus"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
)

// metrics are gauges computed from the table at every scrape, so they cannot drift
// or outlive their volume.
type metrics struct {
	table                    *table
	dualAttached, divergence *prometheus.Desc
}

func newMetrics(t *table) *metrics {
	return &metrics{
		table: t,
		dualAttached: prometheus.NewDesc(report.MetricUnexplained,
			"Claims whose RDS volume live pods use on two nodes, which no migration explains (1).", []string{"namespace", "persistentvolumeclaim"}, nil),
		divergence: prometheus.NewDesc(report.MetricDivergence,
			"Attachments of RDS volumes that are not as they should be, by what is the matter.", []string{"kind"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.dualAttached
	ch <- m.divergence
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	counts := map[unexplained.Kind]int{}
	m.table.each(func(e *entry) {
		for _, f := range e.standing {
			counts[f.Kind]++
			if f.Kind == unexplained.DualAttach {
				ch <- prometheus.MustNewConstMetric(m.dualAttached, prometheus.GaugeValue, 1, e.claim.Namespace, e.claim.Name)
			}
		}
	})
	for _, kind := range unexplained.Divergences() {
		ch <- prometheus.MustNewConstMetric(m.divergence, prometheus.GaugeValue, float64(counts[kind]), kind.String())
	}
}
