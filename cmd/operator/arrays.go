package main

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/poll"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// observedArrays are the pollers of all arrays.
type observedArrays struct {
	views    gather.Arrays
	observed chan event.GenericEvent // one for every new view
}

// addArrays starts a poller for each array with the manager and registers the
// arrays' metrics.
func addArrays(mgr manager.Manager, o Options, log logr.Logger) (*observedArrays, error) {
	a := &observedArrays{views: gather.Arrays{}, observed: make(chan event.GenericEvent, 1)}
	if o.ArraysFile == "" {
		return a, nil
	}
	configs, err := routeros.LoadArrays(o.ArraysFile)
	if err != nil {
		return nil, err
	}
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: report.MetricSSHDuration,
		Help: "Duration of commands to arrays in seconds.", Buckets: prometheus.DefBuckets}, []string{"verb", "result"})
	sources := map[string]report.ArraySource{}
	for _, config := range configs {
		array, err := routeros.New(config, routeros.WithLogger(log.WithName("array").WithValues("array", config.Name)),
			routeros.WithObserver(func(verb, result string, d time.Duration) { seconds.WithLabelValues(verb, result).Observe(d.Seconds()) }))
		if err != nil {
			return nil, err
		}
		poller := poll.New(array, o.PollInterval)
		sources[config.Name] = poller
		a.views[config.Name] = poller
		if config.Default {
			a.views[""] = poller
		}
		if err := mgr.Add(everywhere(func(ctx context.Context) error {
			return errors.Join(poller.Start(ctx), array.Close())
		})); err != nil {
			return nil, err
		}
		if err := mgr.Add(everywhere(func(ctx context.Context) error { return a.forward(ctx, poller, log) })); err != nil {
			return nil, err
		}
	}
	metrics.Registry.MustRegister(seconds, report.Arrays(sources, time.Now))
	return a, nil
}

// forward tells the controllers of new views, and the log when an array stops or
// starts answering.
func (a *observedArrays) forward(ctx context.Context, poller *poll.Poller, log logr.Logger) error {
	seen := poller.Subscribe()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-seen:
		}
		switch err := poller.Err(); {
		case err != nil && !failing:
			log.Error(err, "an array stopped answering")
			failing = true
		case err == nil && failing:
			log.Info("the array answers again")
			failing = false
		}
		select {
		case a.observed <- event.GenericEvent{Object: observedMarker}:
		case <-ctx.Done():
			return nil
		default: // nobody listens yet, or a wake-up is under way
		}
	}
}
