package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	kubevirtv1 "kubevirt.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/attachment"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// run composes the operator and runs it until ctx ends.
func run(ctx context.Context, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	log, err := newLogger(o)
	if err != nil {
		return err
	}
	ctrl.SetLogger(log)
	config, err := restConfig(o)
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	lease, err := newLease(config, o)
	if err != nil {
		return err
	}
	mgr, err := newManager(config, o, lease)
	if err != nil {
		return err
	}
	arrays, settings := newArrays(o.PollInterval, log, metrics.Registry), newSettings(o.Limits)
	if err := mgr.Add(arrays); err != nil {
		return err
	}
	if err := configure(mgr, o, arrays, settings); err != nil {
		return err
	}
	if err := addControllers(ctx, mgr, o, arrays, settings, lease.heldByAnother); err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("caches", cachesSynced(mgr)); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// configure says which arrays there are: a file does, or the RDSDriver.
func configure(mgr manager.Manager, o Options, arrays *observedArrays, set *settings) error {
	if o.ArraysFile == "" {
		return addDriver(mgr, o, arrays, set)
	}
	configs, err := routeros.LoadArrays(o.ArraysFile)
	if err != nil {
		return err
	}
	return arrays.set(configs)
}

// addControllers adds the one of attachments, and those of KubeVirt's kinds for when
// these are served.
func addControllers(ctx context.Context, mgr manager.Manager, o Options, arrays *observedArrays, set *settings, lastRun func() time.Time) error {
	if err := gather.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	g := &gather.Gatherer{Client: mgr.GetClient(), Driver: o.DriverName, Views: arrays}
	kubevirt := &kubevirtStarter{mgr: mgr, options: o, gather: g, observed: arrays.subscribe(), settings: set, lastRun: lastRun}
	current := func() unexplained.Limits {
		now := set.limits()
		return unexplained.Limits{Settle: o.Settle, Release: now.Release, ReleaseNotReady: now.ReleaseNotReady}
	}
	kubevirt.attachments = attachment.New(g, mgr.GetClient(), mgr.GetAPIReader(), kubevirt.Migrating, current, clock.RealClock{})
	if err := kubevirt.attachments.SetupWithManager(mgr, arrays.subscribe()); err != nil {
		return err
	}
	if err := metrics.Registry.Register(report.LeaderOnly(mgr.Elected(), kubevirt.attachments.Collector())); err != nil {
		return err
	}
	return mgr.Add(kubevirt)
}

func restConfig(o Options) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = float32(o.KubeQPS), o.KubeBurst
	return rest.AddUserAgent(config, "rds-csi-operator"), nil
}

func newManager(config *rest.Config, o Options, lease *watchedLease) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(kubevirtv1.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	options := ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsOptions(o),
		Cache: cache.Options{
			DefaultTransform: gather.Slim,
			ByObject:         cached(o),
		},
		HealthProbeBindAddress:        o.ProbeAddress,
		LeaderElection:                o.LeaderElection,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       new(5 * time.Second),
	}
	if lease != nil {
		options.LeaderElectionResourceLockInterface = lease
		options.RenewDeadline = new(renewDeadline)
	}
	return ctrl.NewManager(config, options)
}

// cached says what is kept of the kinds that are many or secret.
func cached(o Options) map[client.Object]cache.ByObject {
	kinds := map[client.Object]cache.ByObject{}
	if o.ArraysFile != "" {
		return kinds // nothing is deployed
	}
	if namespace, err := ownNamespace(o); err == nil { // addDriver tells of an error
		for _, kind := range []client.Object{&corev1.Secret{}, &corev1.ConfigMap{}, &appsv1.Deployment{}, &appsv1.DaemonSet{}} {
			kinds[kind] = cache.ByObject{Namespaces: map[string]cache.Config{namespace: {}}}
		}
	}
	return kinds
}

func metricsOptions(o Options) server.Options {
	options := server.Options{BindAddress: o.MetricsAddress}
	if o.MetricsSecure {
		options.SecureServing, options.FilterProvider = true, filters.WithAuthenticationAndAuthorization
	}
	return options
}

// cachesSynced is ready once what is watched so far has been read.
func cachesSynced(mgr manager.Manager) healthz.Checker {
	synced := make(chan struct{})
	utilruntime.Must(mgr.Add(everywhere(func(ctx context.Context) error {
		if mgr.GetCache().WaitForCacheSync(ctx) {
			close(synced)
		}
		return nil
	})))
	return func(req *http.Request) error {
		select {
		case <-synced:
			return nil
		default:
			return fmt.Errorf("the caches are not synced yet")
		}
	}
}

// everywhere is a Runnable that does not wait for the Lease.
type everywhere func(context.Context) error

func (f everywhere) Start(ctx context.Context) error { return f(ctx) }
func (f everywhere) NeedLeaderElection() bool        { return false }

func newLogger(o Options) (logr.Logger, error) {
	config := zap.NewProductionConfig()
	config.Encoding = o.LogFormat
	config.Level = zap.NewAtomicLevelAt(zapcore.Level(-o.LogLevel))
	config.EncoderConfig.TimeKey = "time"
	config.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	config.Sampling = nil
	logger, err := config.Build()
	if err != nil {
		return logr.Logger{}, err
	}
	return zapr.NewLogger(logger), nil
}
