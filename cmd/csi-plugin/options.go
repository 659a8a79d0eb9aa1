package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/node"
)

const (
	modeController = "controller"
	modeNode       = "node"
)

// Options are what the command line says.
type Options struct {
	Mode       string
	Endpoint   string // unix:///path
	DriverName string
	ArraysFile string
	Kubeconfig string // empty: in-cluster
	KubeQPS    float64
	KubeBurst  int

	LeaderElection bool
	LeaseNamespace string
	LeaseDuration  time.Duration
	RenewDeadline  time.Duration
	RetryPeriod    time.Duration

	Node         node.Options
	VolumeEvents bool

	MetricsAddress  string // empty: none
	MetricsSecure   bool
	ShutdownTimeout time.Duration
	LogLevel        int
	LogFormat       string
}

// AddFlags declares the flags with their defaults.
func (o *Options) AddFlags(f *flag.FlagSet) {
	f.StringVar(&o.Mode, "mode", modeController, "which services to serve: controller or node")
	f.StringVar(&o.Endpoint, "endpoint", "unix:///csi/csi.sock", "the unix socket to serve CSI at")
	f.StringVar(&o.DriverName, "driver-name", csi.DefaultDriverName, "name of the CSI driver")
	f.StringVar(&o.ArraysFile, "arrays-file", "/etc/rds-csi/arrays.yaml", "YAML file that lists the arrays")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file; empty: the pod's service account")
	f.Float64Var(&o.KubeQPS, "kube-api-qps", 50, "requests per second to the Kubernetes API")
	f.IntVar(&o.KubeBurst, "kube-api-burst", 100, "requests to the Kubernetes API in a burst")
	f.BoolVar(&o.LeaderElection, "leader-election", true, "serve only while holding a Lease; switch off for tests only")
	f.StringVar(&o.LeaseNamespace, "lease-namespace", "rds-csi", "namespace of the Lease")
	f.DurationVar(&o.LeaseDuration, "lease-duration", 15*time.Second, "how long after the last renewal another process may take the Lease")
	f.DurationVar(&o.RenewDeadline, "lease-renew-deadline", 10*time.Second, "how long to try to renew the Lease before giving up and exiting")
	f.DurationVar(&o.RetryPeriod, "lease-retry-period", 2*time.Second, "time between attempts to get or renew the Lease")
	o.Node.AddFlags(f)
	f.BoolVar(&o.VolumeEvents, "volume-events", true, "node mode: tell on a volume's claim, by events, that the volume cannot be used on this node, or can again")
	f.StringVar(&o.MetricsAddress, "metrics-address", "127.0.0.1:8080", "where to serve /metrics, /healthz and /readyz; empty: nowhere")
	f.BoolVar(&o.MetricsSecure, "metrics-secure", false, "serve these over HTTPS, and /metrics only to whom RBAC allows to get it")
	f.DurationVar(&o.ShutdownTimeout, "shutdown-timeout", 20*time.Second, "how long requests may take to end after SIGTERM")
	f.IntVar(&o.LogLevel, "log-level", 0, "verbosity: 0 what changed, 1 why, 3 requests without their secrets")
	f.StringVar(&o.LogFormat, "log-format", "json", "json or console")
}

var driverNamePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// Validate reports everything that is wrong with the options at once.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(o.Mode == modeController || o.Mode == modeNode, "--mode is %q; it is %s or %s", o.Mode, modeController, modeNode)
	check(filepath.IsAbs(o.socket()), "--endpoint is %q; it is like unix:///csi/csi.sock", o.Endpoint)
	check(len(o.socket()) < 108, "--endpoint: the path of a unix socket has at most 107 bytes")
	check(driverNamePattern.MatchString(o.DriverName), "--driver-name is %q; it is a domain name of at most 63 characters", o.DriverName)
	check(o.ShutdownTimeout > 0, "--shutdown-timeout must be positive")
	check(o.LogFormat == "json" || o.LogFormat == "console", "--log-format is %q; it is json or console", o.LogFormat)
	check(o.LogLevel >= 0 && o.LogLevel <= 10, "--log-level is %d; it is 0 to 10", o.LogLevel)
	if o.MetricsAddress != "" {
		_, _, err := net.SplitHostPort(o.MetricsAddress)
		check(err == nil, "--metrics-address: %v", err)
	}
	if o.Mode == modeNode {
		return errors.Join(append(errs, o.Node.Validate())...)
	}
	check(o.ArraysFile != "", "--arrays-file is missing")
	check(o.KubeQPS > 0 && o.KubeBurst > 0, "--kube-api-qps and --kube-api-burst must be positive")
	if o.LeaderElection {
		check(o.LeaseNamespace != "", "--lease-namespace is missing")
		check(o.RetryPeriod > 0, "--lease-retry-period must be positive")
		// A holder notices the loss at the latest a retry and a deadline after the last
		// renewal, and must be gone before anybody else may serve.
		check(o.LeaseDuration > o.RenewDeadline+o.RetryPeriod, "--lease-duration (%s) must be longer than --lease-renew-deadline and --lease-retry-period together (%s)", o.LeaseDuration, o.RenewDeadline+o.RetryPeriod)
		check(o.RenewDeadline > o.RetryPeriod*6/5, "--lease-renew-deadline (%s) must be more than 1.2 times --lease-retry-period (%s)", o.RenewDeadline, o.RetryPeriod)
		check(o.LeaseDuration%time.Second == 0, "--lease-duration is in whole seconds")
	}
	return errors.Join(errs...)
}

// socket is the path of the endpoint, or empty if it is not a unix socket's.
func (o *Options) socket() string {
	path, ok := strings.CutPrefix(o.Endpoint, "unix://")
	if !ok {
		return ""
	}
	return path
}

// leaseName is one per driver, so that two deployments of one driver exclude
// each other and two drivers do not.
func (o *Options) leaseName() string {
	return strings.ReplaceAll(o.DriverName, ".", "-") + "-" + o.Mode
}
