package node

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	inaccessibleDesc = prometheus.NewDesc("rds_csi_node_volume_inaccessible", "1 if a volume that is staged on this node cannot be used, 0 otherwise.", []string{"volume_id"}, nil)
	degradedDesc     = prometheus.NewDesc("rds_csi_node_volume_degraded", "1 if a volume that is staged on this node has lost a path or is read-only, 0 otherwise.", []string{"volume_id"}, nil)
	stagedDesc       = prometheus.NewDesc("rds_csi_node_staged_volumes", "Volumes that are staged on this node.", nil, nil)
	unreadableDesc   = prometheus.NewDesc("rds_csi_node_unreadable_records", "Records of volumes on this node that cannot be read: how these volumes are is not known.", nil, nil)
	hungDesc         = prometheus.NewDesc("rds_csi_node_hung_children", "Child processes that could not be killed because their disk does not answer.", nil, nil)
)

// Describe and Collect make the Server a collector. Its series are made from the
// records and the kernel at every scrape, so none outlives its volume.
func (s *Server) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inaccessibleDesc, degradedDesc, stagedDesc, unreadableDesc, hungDesc} {
		descs <- d
	}
}

// Collect is Describe's counterpart.
func (s *Server) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.MustNewConstMetric(hungDesc, prometheus.GaugeValue, float64(s.config.Processes.Hung()))
	verdicts, unreadable, err := s.judgeAll()
	if err != nil {
		metrics <- prometheus.NewInvalidMetric(stagedDesc, err)
		return
	}
	metrics <- prometheus.MustNewConstMetric(stagedDesc, prometheus.GaugeValue, float64(len(verdicts)))
	metrics <- prometheus.MustNewConstMetric(unreadableDesc, prometheus.GaugeValue, float64(len(unreadable)))
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

// judgeAll judges every volume that is staged here, by handle. unreadable says which
// records it could not read; of their volumes it says nothing.
func (s *Server) judgeAll() (verdicts map[string][]problem, unreadable []error, err error) {
	all, unreadable, err := s.records.list()
	if err != nil {
		return nil, nil, err
	}
	now, err := s.look()
	if err != nil {
		return nil, nil, err
	}
	verdicts = map[string][]problem{}
	for _, r := range all {
		if r.Step == stepStaged && r.BootID == s.config.BootID {
			verdicts[r.Volume] = judge(r, now)
		}
	}
	return verdicts, unreadable, nil
}

// HealthChange is a change in the health of a volume that is staged here.
type HealthChange struct {
	Volume       string // its handle
	Inaccessible bool   // it cannot be used
	Problems     string // what is wrong; empty: it is well again
}

// watch is what was said of the health of staged volumes, by handle.
type watch struct {
	logged    map[string]string
	announced map[string]string
}

// Watch tells whenever the health of a staged volume changes, for example when a
// connection came back with another device: in the log, and to whom the Config
// says. It ends with ctx.
func (s *Server) Watch(ctx context.Context) {
	w := watch{logged: map[string]string{}, announced: map[string]string{}}
	for {
		s.report(ctx, w)
		select {
		case <-ctx.Done():
			return
		case <-s.config.Clock.After(s.config.Options.HealthInterval):
		}
	}
}

func (s *Server) report(ctx context.Context, w watch) {
	log := logr.FromContextOrDiscard(ctx)
	verdicts, unreadable, err := s.judgeAll()
	if err != nil {
		log.Error(err, "the health of the staged volumes is unknown")
		return
	}
	if len(unreadable) > 0 {
		log.Error(errors.Join(unreadable...), "the health of some staged volumes is unknown")
	}
	for volume, problems := range verdicts {
		words := summary(problems)
		switch words {
		case w.logged[volume]:
		case "":
			log.Info("a volume is well again", "volume", volume)
		default:
			log.Info("a staged volume is not well", "volume", volume, "health", words)
		}
		w.logged[volume] = words
	}
	if s.config.Announce != nil {
		s.announce(ctx, verdicts, w.announced)
	}
	if len(unreadable) > 0 {
		return // a volume that is not judged may be staged all the same
	}
	for _, known := range []map[string]string{w.logged, w.announced} {
		maps.DeleteFunc(known, func(volume, _ string) bool { _, staged := verdicts[volume]; return !staged })
	}
}

// announce tells what changed. What could not be told is told the next time.
func (s *Server) announce(ctx context.Context, verdicts map[string][]problem, announced map[string]string) {
	for _, volume := range slices.Sorted(maps.Keys(verdicts)) {
		problems := verdicts[volume]
		words := summary(problems)
		if words == announced[volume] {
			continue
		}
		if err := s.config.Announce(ctx, HealthChange{Volume: volume, Inaccessible: usable(problems) != nil, Problems: words}); err != nil {
			logr.FromContextOrDiscard(ctx).Info("no event could be made of a volume's health; it is tried again", "volume", volume, "reason", err.Error())
			return // the next one would fare no better
		}
		announced[volume] = words
	}
}
