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
	m := newMetrics()
	for _, c := range []prometheus.Collector{m.rpc, m.ssh} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	m.begin(changing)
	for _, verb := range verbs {
		for _, result := range results {
			m.ssh.WithLabelValues(verb, result)
		}
	}
	return m, nil
}

// NewNodeMetrics registers the metrics of a process that serves the Node service
// and speaks to no array.
func NewNodeMetrics(registry prometheus.Registerer) (*Metrics, error) {
	m := newMetrics()
	if err := registry.Register(m.rpc); err != nil {
		return nil, err
	}
	m.begin(changingNode)
	return m, nil
}

// begin makes the series of methods.
func (m *Metrics) begin(methods []string) {
	for _, method := range methods {
		m.rpc.WithLabelValues(method, codes.OK.String())
		for _, known := range codeOf {
			m.rpc.WithLabelValues(method, known.code.String())
		}
	}
}

func newMetrics() *Metrics {
	return &Metrics{
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
}

func (m *Metrics) observeRPC(method string, code codes.Code, took time.Duration) {
	m.rpc.WithLabelValues(method, code.String()).Observe(took.Seconds())
}

// ObserveCommand takes down one command on an array.
func (m *Metrics) ObserveCommand(verb, result string, took time.Duration) {
	m.ssh.WithLabelValues(verb, result).Observe(took.Seconds())
}
