package main

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// version is set by the linker.
var version = ""

// run serves CSI as the options say, until ctx ends or the Lease is lost.
func run(ctx context.Context, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	log, err := newLogger(o)
	if err != nil {
		return err
	}
	klog.SetLogger(log.WithName("client-go"))
	ctx, cancel := context.WithCancel(logr.NewContext(ctx, log))
	defer cancel()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if o.Mode == modeNode {
		return runNode(ctx, o, log, registry)
	}
	metrics, err := csi.NewMetrics(registry, routeros.Verbs(), routeros.Results())
	if err != nil {
		return err
	}
	backends, closeArrays, err := openArrays(o.ArraysFile, log, metrics)
	if err != nil {
		return err
	}
	defer closeArrays()
	client, err := newClient(o)
	if err != nil {
		return err
	}
	cluster, err := kube.New(client, o.DriverName, rds.NodeKey)
	if err != nil {
		return err
	}
	go cluster.Run(ctx)
	return serve(ctx, o, log, registry, metrics, backends, cluster, client)
}

// serve puts the parts together and runs them.
func serve(ctx context.Context, o Options, log logr.Logger, registry *prometheus.Registry, metrics *csi.Metrics, backends []csi.Backend, cluster *kube.Cluster, client kubernetes.Interface) error {
	mine, err := newLease(client, o)
	if err != nil {
		return err
	}
	ready := func() error { return nil }
	if o.LeaderElection {
		ready = mine.held
	}
	server, err := csi.New(csi.Config{
		DriverName: o.DriverName, Version: buildVersion(), Backends: backends,
		Cluster: cluster, Guard: cluster, Ready: ready,
	})
	if err != nil {
		return err
	}
	at := &endpoint{
		path: o.socket(), grace: o.ShutdownTimeout,
		register: func(g *grpc.Server) { server.Register(g) },
		edge:     csi.Interceptor(log, metrics, ready),
	}
	stopAdmin, err := serveAdmin(log, o, registry, at.serving.Load)
	if err != nil {
		return err
	}
	defer stopAdmin()
	if !cache.WaitForCacheSync(ctx.Done(), cluster.Synced) {
		return nil // told to stop before it began
	}
	if !o.LeaderElection {
		return at.serve(ctx, nil)
	}
	return mine.lead(ctx, at.serve)
}

// openArrays reads the arrays' configuration; it connects to none of them.
func openArrays(path string, log logr.Logger, metrics *csi.Metrics) ([]csi.Backend, func(), error) {
	configs, err := routeros.LoadArrays(path)
	if err != nil {
		return nil, nil, err
	}
	var arrays []*routeros.Array
	closeAll := func() {
		for _, a := range arrays {
			_ = a.Close() // nothing is kept in a connection
		}
	}
	var backends []csi.Backend
	for _, config := range configs {
		array, err := routeros.New(config, routeros.WithLogger(log.WithValues("array", config.Name)), routeros.WithObserver(metrics.ObserveCommand))
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("array %s: %w", config.Name, err)
		}
		arrays = append(arrays, array)
		backend := csi.Backend{
			Name: config.Name, Array: array, Addresses: config.NVMeAddresses, Port: config.NVMePort,
			NQNPrefix: config.NQNPrefix, Reserve: config.ReserveBytes,
		}
		if config.Default {
			backends = append([]csi.Backend{backend}, backends...)
		} else {
			backends = append(backends, backend)
		}
	}
	return backends, closeAll, nil
}

func newClient(o Options) (kubernetes.Interface, error) {
	config, err := clientConfig(o)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("configure the Kubernetes client: %w", err)
	}
	return client, nil
}

func clientConfig(o Options) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("configure the Kubernetes client: %w", err)
	}
	config.QPS, config.Burst = float32(o.KubeQPS), o.KubeBurst
	config.UserAgent = "rds-csi-plugin/" + buildVersion()
	// Lists of all attachments are several times smaller than in JSON.
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	return config, nil
}

func newLogger(o Options) (logr.Logger, error) {
	config := zap.NewProductionConfig()
	config.Sampling = nil // every request leaves its line
	config.Level = zap.NewAtomicLevelAt(zapcore.Level(-o.LogLevel))
	config.Encoding = o.LogFormat
	config.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	config.DisableStacktrace = true
	logger, err := config.Build()
	if err != nil {
		return logr.Logger{}, fmt.Errorf("configure the log: %w", err)
	}
	return zapr.NewLogger(logger), nil
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
