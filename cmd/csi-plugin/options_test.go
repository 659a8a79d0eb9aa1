package main

import (
	"flag"
	"io"
	"strings"
	"testing"
	"time"
)

func defaults(t *testing.T, args ...string) Options {
	t.Helper()
	var o Options
	f := flag.NewFlagSet("test", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	o.AddFlags(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestDefaultsAreValid(t *testing.T) {
	o := defaults(t)
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	if got := o.leaseName(); got != "rds-csi-srvlab-io-controller" {
		t.Errorf("the Lease is called %s", got)
	}
	if !o.LeaderElection {
		t.Error("leader election is off")
	}
}

func TestValidate(t *testing.T) {
	for name, args := range map[string][]string{
		"mode":               {"--mode=both"},
		"node name":          {"--node-name=", "--mode=node"},
		"parallel connects":  {"--max-parallel-connects=0", "--mode=node", "--node-name=a"},
		"queues":             {"--nr-io-queues=0", "--mode=node", "--node-name=a"},
		"health interval":    {"--health-interval=0s", "--mode=node", "--node-name=a"},
		"no scheme":          {"--endpoint=/csi/csi.sock"},
		"tcp":                {"--endpoint=tcp://127.0.0.1:1"},
		"relative":           {"--endpoint=unix://csi.sock"},
		"endpoint too long":  {"--endpoint=unix:///" + strings.Repeat("x", 108)},
		"driver name":        {"--driver-name=RDS!"},
		"no driver name":     {"--driver-name="},
		"no arrays":          {"--arrays-file="},
		"metrics address":    {"--metrics-address=8080"},
		"no namespace":       {"--lease-namespace="},
		"lease too short":    {"--lease-duration=12s"},
		"deadline too short": {"--lease-renew-deadline=2s"},
		"no retry":           {"--lease-retry-period=0"},
		"split second":       {"--lease-duration=15500ms"},
		"shutdown":           {"--shutdown-timeout=0"},
		"log level":          {"--log-level=-1"},
		"log format":         {"--log-format=xml"},
		"rate":               {"--kube-api-qps=0"},
	} {
		t.Run(name, func(t *testing.T) {
			o := defaults(t, args...)
			flag, _, _ := strings.Cut(args[0], "=")
			if err := o.Validate(); err == nil || !strings.Contains(err.Error(), flag) {
				t.Errorf("%v: %v", args, err)
			}
		})
	}
	t.Run("everything at once", func(t *testing.T) {
		o := Options{LeaderElection: true, LeaseDuration: time.Second}
		err := o.Validate()
		for _, flag := range []string{"--mode", "--endpoint", "--driver-name", "--arrays-file", "--lease-namespace"} {
			if !strings.Contains(err.Error(), flag) {
				t.Errorf("%s is not mentioned", flag)
			}
		}
	})
}
