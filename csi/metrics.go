package csi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// Metrics are the durations of requests and of the arrays' commands.
type Metrics struct {
	rpc *prometheus.HistogramVec
	ssh *prometheus.HistogramVec
}

// NewMetrics registers the metrics. verbs and results are the label values that
// the transport reports; series exist from the start, so that the first failure
// is a step from 0 that a rate shows.
func NewMetrics(registry prometheus.Registerer, verbs, results []string) (*Metrics, error) {
	m := &Metrics{
		rpc: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rds_csi_rpc_duration_seconds",
			Help:    "Duration of CSI requests, by method and gRPC code.",
			Buckets: []float64{0.05, 0.25, 1, 2.5, 10, 30, 60},
		}, []string{"method", "code"}),
		ssh: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rds_csi_ssh_command_duration_seconds",
			Help:    "Duration of commands on arrays over SSH, by verb and result.",
			Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60},
		}, []string{"verb", "result"}),
	}
	for _, c := range []prometheus.Collector{m.rpc, m.ssh} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	for _, method := range changing {
		m.rpc.WithLabelValues(method, codes.OK.String())
		for _, known := range codeOf {
			m.rpc.WithLabelValues(method, known.code.String())
		}
	}
	for _, verb := range verbs {
		for _, result := range results {
			m.ssh.WithLabelValues(verb, result)
		}
	}
	return m, nil
}

func (m *Metrics) observeRPC(method string, code codes.Code, took time.Duration) {
	m.rpc.WithLabelValues(method, code.String()).Observe(took.Seconds())
}

// ObserveCommand takes down one command on an array.
func (m *Metrics) ObserveCommand(verb, result string, took time.Duration) {
	m.ssh.WithLabelValues(verb, result).Observe(took.Seconds())
}
