package stack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/process"
)

var notDNS = regexp.MustCompile(`[^a-z0-9]+`)

// NamespaceFor makes a namespace's name of a test's.
func NamespaceFor(test string) string {
	name := strings.Trim(notDNS.ReplaceAllString(strings.ToLower(test), "-"), "-")
	return name[:min(len(name), 60)]
}

// MustStart starts a stack that ends with the test.
func MustStart(ctx context.Context, t testing.TB, opts Options) *Stack {
	t.Helper()
	s, err := Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	if opts.Lab.Keep {
		t.Logf("the lab's folder is %s", s.Dir)
	}
	t.Cleanup(func() {
		s.ExplainFailure(t, "")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ExplainFailure shows, if the test failed, how the operators' logs end, or what they
// say last of a namespace if one is given, and the events there.
func (s *Stack) ExplainFailure(t testing.TB, namespace string) {
	if !t.Failed() {
		return
	}
	for _, o := range s.Operators {
		t.Logf("the end of the log of %s (%s):\n%s", o.Name(), namespace, process.TailNaming(o.LogFile(), namespace, 60))
	}
	if namespace == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lab.DefaultWait)
	defer cancel()
	events, err := s.Kubectl(ctx, "-n", namespace, "get", "events", "--sort-by=.metadata.creationTimestamp",
		"-o", `custom-columns=AT:.metadata.creationTimestamp,KIND:.involvedObject.kind,NAME:.involvedObject.name,REASON:.reason,MESSAGE:.message`)
	if err != nil {
		events = err.Error()
	}
	t.Logf("the events in %s:\n%s", namespace, events)
}

// MustStartVM starts a VM whose only disk is a shared volume; its claim has the
// VM's name. change, if given, is applied to the VMI.
func (s *Stack) MustStartVM(ctx context.Context, t testing.TB, namespace, name string, change ...func(lab.VMIBuilder) lab.VMIBuilder) *lab.VMI {
	t.Helper()
	vm, err := s.StartVM(ctx, namespace, name, change...)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// StartVM is MustStartVM for callers without a test.
func (s *Stack) StartVM(ctx context.Context, namespace, name string, change ...func(lab.VMIBuilder) lab.VMIBuilder) (*lab.VMI, error) {
	if _, err := s.CreateRWXClaim(ctx, namespace, name, nil); err != nil {
		return nil, err
	}
	b := lab.NewVMI(namespace, name).WithDisk(name)
	for _, f := range change {
		b = f(b)
	}
	vm, err := s.CreateVMI(ctx, b)
	if err != nil {
		return nil, err
	}
	return vm, s.WaitVMIRunning(ctx, vm)
}

// ExchangeOperators stops the operators that run and has others in their place
// until the test ends.
func (s *Stack) ExchangeOperators(ctx context.Context, t testing.TB, others ...OperatorOptions) {
	t.Helper()
	before := s.Operators
	for _, o := range before {
		if err := o.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s.Operators = nil
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*lab.DefaultWait)
		defer cancel()
		s.ExplainFailure(t, "")
		for _, o := range s.Operators {
			_ = o.Stop(ctx) // killed if it does not
		}
		s.Operators = before
		for _, o := range before {
			if err := errors.Join(o.Run(), s.WaitOperator(ctx, o)); err != nil {
				t.Error(err)
			}
		}
	})
	for _, o := range others {
		if _, err := s.StartOperator(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
}

// Series is a scrape of the metrics page.
type Series map[string]*dto.MetricFamily

// Scrape reads an operator's metrics.
func (s *Stack) Scrape(ctx context.Context, o *Operator) (Series, error) {
	text, err := o.Scrape(ctx)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(strings.NewReader(text))
}

// MustScrape reads the first operator's metrics.
func (s *Stack) MustScrape(ctx context.Context, t testing.TB) Series {
	t.Helper()
	series, err := s.Scrape(ctx, s.Operators[0])
	if err != nil {
		t.Fatal(err)
	}
	return series
}

// Find is the value of the series with these labels; ok is false when it is missing.
func (all Series) Find(name string, labels map[string]string) (value float64, ok bool) {
	for _, m := range all[name].GetMetric() {
		got := map[string]string{}
		for _, l := range m.GetLabel() {
			got[l.GetName()] = l.GetValue()
		}
		if maps.Equal(got, labels) || (len(got) == 0 && len(labels) == 0) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue(), true
		}
	}
	return 0, false
}

// Count is how many series of a metric have a label with a value.
func (all Series) Count(name, label, value string) int {
	n := 0
	for _, m := range all[name].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == label && l.GetValue() == value {
				n++
			}
		}
	}
	return n
}

// Value is Find's value, 0 for a series that is missing.
func (all Series) Value(name string, labels map[string]string) float64 {
	value, _ := all.Find(name, labels)
	return value
}

// WantMetric waits until a series has a value: counters follow the conditions.
func (s *Stack) WantMetric(ctx context.Context, t testing.TB, name string, labels map[string]string, want float64) {
	t.Helper()
	var got float64
	err := s.WaitFor(ctx, fmt.Sprintf("%s%v to be %v", name, labels, want), func(ctx context.Context) (bool, error) {
		series, err := s.Scrape(ctx, s.Operators[0])
		got = series.Value(name, labels)
		return got == want, err
	})
	if err != nil {
		t.Errorf("%v; it is %v", err, got)
	}
}

// SettledMetric waits until a series is there and the array has been observed
// once more since, and gives its value.
func (s *Stack) SettledMetric(ctx context.Context, t testing.TB, name string, labels map[string]string) float64 {
	t.Helper()
	observed := map[string]string{"array": ArrayName}
	first := s.MustScrape(ctx, t).Value("rds_csi_array_observed_timestamp_seconds", observed)
	var value float64
	err := s.WaitFor(ctx, fmt.Sprintf("%s%v after another look at the array", name, labels), func(ctx context.Context) (bool, error) {
		series, err := s.Scrape(ctx, s.Operators[0])
		if err != nil {
			return false, err
		}
		var ok bool
		value, ok = series.Find(name, labels)
		return ok && series.Value("rds_csi_array_observed_timestamp_seconds", observed) > first, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}
