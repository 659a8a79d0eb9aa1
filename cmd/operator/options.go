package main

import (
	"errors"
	"flag"
	"fmt"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
)

// Options are what the command line says.
type Options struct {
	DriverName   string
	ArraysFile   string
	PollInterval time.Duration
	Limits       dualattach.Limits
	Settle       time.Duration
	// PlainImpersonation acts as KubeVirt's controller by plain impersonation.
	PlainImpersonation bool

	Kubeconfig     string // empty: in-cluster
	KubeQPS        float64
	KubeBurst      int
	LeaderElection bool
	LeaseNamespace string // empty: the pod's own
	LeaseName      string

	MetricsAddress string // "0": none
	MetricsSecure  bool
	ProbeAddress   string
	LogLevel       int
	LogFormat      string
}

// AddFlags declares the flags with their defaults.
func (o *Options) AddFlags(f *flag.FlagSet) {
	limits := dualattach.DefaultLimits()
	f.StringVar(&o.DriverName, "driver-name", "rds.csi.srvlab.io", "name of the CSI driver whose volumes are watched")
	f.StringVar(&o.ArraysFile, "arrays-file", "", "YAML file that lists the arrays, where they do not come from an RDSDriver")
	f.DurationVar(&o.PollInterval, "poll-interval", 10*time.Second, "how often each array is read; a view of three intervals ago is stale")
	f.DurationVar(&o.Limits.Unbounded, "unbounded-deadline", limits.Unbounded, "how long a migration may take where KubeVirt sets no limit (post-copy, or its completion deadline is off)")
	f.DurationVar(&o.Limits.Release, "release-deadline", limits.Release, "how long a Ready node may take to release a volume that no pod there uses any more")
	f.DurationVar(&o.Limits.ReleaseNotReady, "release-deadline-not-ready", limits.ReleaseNotReady, "the same for a node that is not Ready; Kubernetes forces the detach after 6 minutes")
	f.BoolVar(&o.PlainImpersonation, "plain-impersonation", false, "for clusters before Kubernetes 1.36: write conditions on VMIs by plain impersonation of KubeVirt's controller, which, where granted, allows whatever that may do")
	f.DurationVar(&o.Settle, "settle", unexplained.DefaultSettle, "how long an attachment that nothing explains must last before it is spoken of")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file; empty: the pod's service account")
	f.Float64Var(&o.KubeQPS, "kube-api-qps", 100, "requests per second to the API server")
	f.IntVar(&o.KubeBurst, "kube-api-burst", 200, "requests at once to the API server")
	f.BoolVar(&o.LeaderElection, "leader-election", true, "act only while holding the Lease; switch it off only for a single process")
	f.StringVar(&o.LeaseNamespace, "lease-namespace", "", "namespace of the Lease; empty: the pod's own")
	f.StringVar(&o.LeaseName, "lease-name", "rds-csi-operator", "name of the Lease")
	f.StringVar(&o.MetricsAddress, "metrics-bind-address", ":8080", "address to serve /metrics at; 0: none")
	f.BoolVar(&o.MetricsSecure, "metrics-secure", false, "serve /metrics over HTTPS, and only to whom RBAC allows to get it")
	f.StringVar(&o.ProbeAddress, "health-probe-bind-address", ":8081", "address to serve /healthz and /readyz at; 0: none")
	f.IntVar(&o.LogLevel, "log-level", 0, "0 says what changed, 1 why as well")
	f.StringVar(&o.LogFormat, "log-format", "json", "json or console")
}

// Validate reports everything that is wrong with the options at once.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(o.DriverName != "", "--driver-name is missing")
	check(o.PollInterval >= time.Second, "--poll-interval is %s; it is at least 1s, as the array is shared", o.PollInterval)
	check(o.Limits.Unbounded > 0, "--unbounded-deadline must be positive")
	check(o.Limits.Release > 0, "--release-deadline must be positive")
	check(o.Limits.ReleaseNotReady > 0, "--release-deadline-not-ready must be positive")
	check(o.Settle > 0, "--settle must be positive")
	check(o.KubeQPS > 0 && o.KubeBurst > 0, "--kube-api-qps and --kube-api-burst must be positive")
	check(o.LeaseName != "", "--lease-name is missing")
	check(o.LogFormat == "json" || o.LogFormat == "console", "--log-format is %q; it is json or console", o.LogFormat)
	check(o.LogLevel >= 0 && o.LogLevel <= 10, "--log-level is %d; it is 0 to 10", o.LogLevel)
	return errors.Join(errs...)
}
