package node

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	inaccessibleDesc = prometheus.NewDesc("rds_csi_node_volume_inaccessible", "1 if a volume that is staged on this node cannot be used, 0 otherwise.", []string{"volume_id"}, nil)
	degradedDesc     = prometheus.NewDesc("rds_csi_node_volume_degraded", "1 if a volume that is staged on this node has lost a path or is read-only, 0 otherwise.", []string{"volume_id"}, nil)
	stagedDesc       = prometheus.NewDesc("rds_csi_node_staged_volumes", "Volumes that are staged on this node.", nil, nil)
	hungDesc         = prometheus.NewDesc("rds_csi_node_hung_children", "Child processes that could not be killed because their disk does not answer.", nil, nil)
)

// Describe and Collect make the Server a collector. Its series are made from the
// records and the kernel at every scrape, so none outlives its volume.
func (s *Server) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inaccessibleDesc, degradedDesc, stagedDesc, hungDesc} {
		descs <- d
	}
}

// Collect is Describe's counterpart.
func (s *Server) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.MustNewConstMetric(hungDesc, prometheus.GaugeValue, float64(s.config.Processes.Hung()))
	verdicts, err := s.judgeAll()
	if err != nil {
		metrics <- prometheus.NewInvalidMetric(stagedDesc, err)
		return
	}
	metrics <- prometheus.MustNewConstMetric(stagedDesc, prometheus.GaugeValue, float64(len(verdicts)))
	for volume, problems := range verdicts {
		lost, worse := 0.0, 0.0
		if usable(problems) != nil {
			lost = 1
		} else if len(problems) > 0 {
			worse = 1
		}
		metrics <- prometheus.MustNewConstMetric(inaccessibleDesc, prometheus.GaugeValue, lost, volume)
		metrics <- prometheus.MustNewConstMetric(degradedDesc, prometheus.GaugeValue, worse, volume)
	}
}

// judgeAll judges every volume that is staged here, by handle.
func (s *Server) judgeAll() (map[string][]problem, error) {
	all, unreadable, err := s.records.list()
	if err != nil || unreadable != nil {
		return nil, errors.Join(err, unreadable)
	}
	now, err := s.look()
	if err != nil {
		return nil, err
	}
	verdicts := map[string][]problem{}
	for _, r := range all {
		if r.Step == stepStaged && r.BootID == s.config.BootID {
			verdicts[r.Volume] = judge(r, now)
		}
	}
	return verdicts, nil
}

// watchInterval is how often the health of staged volumes is looked at for the
// log. It costs some reads of sysfs.
const watchInterval = 15 * time.Second

// Watch writes a line to the log whenever the health of a staged volume changes,
// for example when a connection came back with another device. It ends with ctx.
func (s *Server) Watch(ctx context.Context) {
	known := map[string]string{}
	for {
		s.report(ctx, known)
		select {
		case <-ctx.Done():
			return
		case <-s.config.Clock.After(watchInterval):
		}
	}
}

func (s *Server) report(ctx context.Context, known map[string]string) {
	log := logr.FromContextOrDiscard(ctx)
	verdicts, err := s.judgeAll()
	if err != nil {
		log.Error(err, "the health of the staged volumes is unknown")
		return
	}
	for volume, problems := range verdicts {
		words := summary(problems)
		switch words {
		case known[volume]:
		case "":
			log.Info("a volume is well again", "volume", volume)
		default:
			log.Info("a staged volume is not well", "volume", volume, "health", words)
		}
		known[volume] = words
	}
	for volume := range known {
		if _, staged := verdicts[volume]; !staged {
			delete(known, volume)
		}
	}
}
