package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/poll"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// observedArrays are the pollers of all arrays. Which arrays there are can change
// while they are observed.
type observedArrays struct {
	observed []chan event.GenericEvent // one for each who wants to know of new views
	interval time.Duration
	log      logr.Logger
	seconds  *prometheus.HistogramVec
	changed  func() // told of new views, and when an array does not answer; may be nil

	// current is replaced as a whole, so that readers need no lock.
	current atomic.Pointer[gather.Arrays]

	mu      sync.Mutex
	ctx     context.Context // ends all pollers; nil before Start
	running map[string]*observedArray
}

// observedArray is one of them.
type observedArray struct {
	config routeros.Config
	array  *routeros.Array
	poller *poll.Poller
	stop   context.CancelFunc
}

// newArrays makes the set, empty, and registers its metrics.
func newArrays(interval time.Duration, log logr.Logger, registry metrics.RegistererGatherer) *observedArrays {
	a := &observedArrays{
		interval: interval, log: log.WithName("array"), running: map[string]*observedArray{},
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: report.MetricSSHDuration,
			Help: "Duration of commands to arrays in seconds.", Buckets: prometheus.DefBuckets}, []string{"verb", "result"}),
	}
	a.current.Store(&gather.Arrays{})
	registry.MustRegister(a.seconds, report.Arrays(a.sources, time.Now))
	return a
}

// subscribe gives a channel that is sent to for every new view, or once for several.
// Call it before Start.
func (a *observedArrays) subscribe() <-chan event.GenericEvent {
	c := make(chan event.GenericEvent, 1)
	a.observed = append(a.observed, c)
	return c
}

// Told implements gather.Views.
func (a *observedArrays) Told(handle string, now time.Time) unexplained.Told {
	return a.current.Load().Told(handle, now)
}

// NeedLeaderElection is false: every replica observes, so that the next leader knows.
func (a *observedArrays) NeedLeaderElection() bool { return false }

// Start observes what is set, until ctx ends.
func (a *observedArrays) Start(ctx context.Context) error {
	a.mu.Lock()
	a.ctx = ctx
	for _, o := range a.running {
		a.start(o)
	}
	a.mu.Unlock()
	<-ctx.Done()
	return a.set(nil)
}

// set makes the arrays those of configs. One whose configuration is the same is
// observed on, and one that cannot be opened is left out, or stays as it was if it is
// among those to keep.
func (a *observedArrays) set(configs []routeros.Config, keep ...string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := map[string]*observedArray{}
	for _, name := range keep {
		if old := a.running[name]; old != nil {
			next[name] = old
		}
	}
	var errs []error
	for _, config := range configs {
		if old := a.running[config.Name]; old != nil && sameConfig(old.config, config) {
			next[config.Name] = old
			continue
		}
		o, err := a.open(config)
		if err != nil {
			errs = append(errs, fmt.Errorf("array %s: %w", config.Name, err))
			continue
		}
		next[config.Name] = o
	}
	previous := a.running
	a.running = next
	a.publish()
	for name, o := range next {
		if previous[name] != o && a.ctx != nil {
			a.start(o)
		}
	}
	for name, o := range previous {
		if next[name] != o {
			errs = append(errs, o.close())
		}
	}
	return errors.Join(errs...)
}

func sameConfig(a, b routeros.Config) bool {
	return bytes.Equal(a.Key, b.Key) && reflect.DeepEqual(a, b)
}

func (a *observedArrays) open(config routeros.Config) (*observedArray, error) {
	array, err := routeros.New(config, routeros.WithLogger(a.log.WithValues("array", config.Name)),
		routeros.WithObserver(func(verb, result string, d time.Duration) {
			a.seconds.WithLabelValues(verb, result).Observe(d.Seconds())
		}))
	if err != nil {
		return nil, err
	}
	return &observedArray{config: config, array: array, poller: poll.New(array, a.interval)}, nil
}

// publish shows readers what is running.
func (a *observedArrays) publish() {
	views := gather.Arrays{}
	for name, o := range a.running {
		views.Add(name, o.config.Default, o.poller)
	}
	a.current.Store(&views)
}

// start observes one array until it is closed. It is called with mu held.
func (a *observedArrays) start(o *observedArray) {
	ctx, stop := context.WithCancel(a.ctx)
	o.stop = stop
	go a.forward(ctx, o, o.poller.Subscribe())
	go func() { _ = o.poller.Start(ctx) }() // it never fails
}

func (o *observedArray) close() error {
	if o.stop != nil {
		o.stop()
	}
	return o.array.Close()
}

// sources are what the metrics are made of.
func (a *observedArrays) sources() map[string]report.ArraySource {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string]report.ArraySource, len(a.running))
	for name, o := range a.running {
		all[name] = o.poller
	}
	return all
}

// pollerOf is the poller of an array, nil if there is none of that name.
func (a *observedArrays) pollerOf(name string) *poll.Poller {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.running[name]; o != nil {
		return o.poller
	}
	return nil
}

// forward tells the controllers of new views, and the log when an array stops or
// starts answering, or does not for another reason.
func (a *observedArrays) forward(ctx context.Context, o *observedArray, seen <-chan struct{}) {
	var failing error
	for {
		select {
		case <-ctx.Done():
			return
		case <-seen:
		}
		log := a.log.WithValues("array", o.config.Name)
		switch err := o.poller.Err(); {
		case err == nil && failing != nil:
			log.Info("the array answers again")
			failing = nil
		case !rds.SameFailure(err, failing):
			log.Error(err, "an array does not answer")
			failing = err
		}
		if a.changed != nil {
			a.changed()
		}
		for _, observed := range a.observed {
			select {
			case observed <- event.GenericEvent{Object: observedMarker}:
			default: // nobody listens yet, or a wake-up is under way
			}
		}
	}
}
