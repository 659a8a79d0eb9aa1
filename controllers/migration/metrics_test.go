package migration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
)

// counts are all counters and histograms that are not zero: "name{label} n".
func counts(t *testing.T, m *metrics) []string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, family := range families {
		for _, series := range family.GetMetric() {
			n := series.GetCounter().GetValue() + float64(series.GetHistogram().GetSampleCount())
			if family.GetType() == dto.MetricType_GAUGE || n == 0 {
				continue
			}
			name := strings.TrimPrefix(family.GetName(), "rds_csi_migration_")
			for _, label := range series.GetLabel() {
				name += "{" + label.GetValue() + "}"
			}
			out = append(out, fmt.Sprintf("%s %g", name, n))
		}
	}
	return out
}

// decision is an assessment at a time, with the VMIM as it was before it.
type decision struct {
	seconds int
	before  *kubevirtv1.VirtualMachineInstanceMigration
	a       dualattach.Assessment
}

func assessed(stage dualattach.Stage, result dualattach.Result, overdue bool) dualattach.Assessment {
	a := dualattach.Assessment{Stage: stage, Result: result, Conditions: []dualattach.Condition{}}
	if overdue {
		a.Late = stage
	}
	return a
}

// TestCount: what each course of a migration leaves in the counters, in one process
// and over a restart, where the conditions tell what was counted.
func TestCount(t *testing.T) {
	fresh := vmim("a", "1", 0)
	running := vmim("a", "2", 0, migrated(corev1.ConditionUnknown, "DualAttached"), timedOut(corev1.ConditionFalse, "WithinDeadline"))
	late := vmim("a", "3", 0, migrated(corev1.ConditionUnknown, "DualAttached"), timedOut(corev1.ConditionTrue, "DualAttached"))
	done := vmim("a", "4", 0, migrated(corev1.ConditionTrue, "Completed"), timedOut(corev1.ConditionFalse, "WithinDeadline"))
	attaching := assessed(dualattach.AttachingTarget, "", false)
	dual := assessed(dualattach.DualAttached, "", false)
	dualLate := assessed(dualattach.DualAttached, dualattach.Timeout, true)
	releasing := assessed(dualattach.ReleasingSource, "", false)
	releasingLate := assessed(dualattach.ReleasingSource, dualattach.Timeout, true)
	reported := dualattach.Assessment{Stage: dualattach.Completed, Result: dualattach.Success, Reported: true}
	cases := map[string]struct {
		reason string
		args   []decision
		want   []string
	}{
		"a course without trouble": {
			reason: "One result, one duration, one time for each stage that was left.",
			args: []decision{{5, fresh, attaching}, {20, running, dual}, {30, running, dual}, {90, running, releasing},
				{100, running, assessed(dualattach.Completed, dualattach.Success, false)}},
			want: []string{"duration_seconds 1", "migrations_total{success} 1",
				"stage_duration_seconds{AttachingTarget} 1", "stage_duration_seconds{DualAttached} 1", "stage_duration_seconds{ReleasingSource} 1"},
		},
		"late, then well": {
			reason: "The timeout is the result; the end is not counted again.",
			args: []decision{{20, fresh, dual}, {500, running, dualLate}, {510, late, dualLate},
				{600, late, assessed(dualattach.Completed, dualattach.Timeout, false)}},
			want: []string{"duration_seconds 1", "migrations_total{timeout} 1", "stage_duration_seconds{DualAttached} 1", "timeouts_total{DualAttached} 1"},
		},
		"late in two stages": {
			reason: "Two deadlines, one result.",
			args: []decision{{20, fresh, dual}, {500, running, dualLate}, {600, late, assessed(dualattach.ReleasingSource, dualattach.Timeout, false)},
				{900, late, releasingLate}, {910, late, releasingLate}},
			want: []string{"migrations_total{timeout} 1", "stage_duration_seconds{DualAttached} 1", "timeouts_total{DualAttached} 1", "timeouts_total{ReleasingSource} 1"},
		},
		"restarted after the deadline": {
			reason: "The condition says that it is counted.",
			args:   []decision{{510, late, dualLate}, {600, late, assessed(dualattach.Completed, dualattach.Timeout, false)}},
			want:   []string{"duration_seconds 1", "stage_duration_seconds{DualAttached} 1"},
		},
		"restarted before the deadline": {
			reason: "Nothing was counted yet.",
			args:   []decision{{400, running, dual}, {500, running, dualLate}},
			want:   []string{"migrations_total{timeout} 1", "timeouts_total{DualAttached} 1"},
		},
		"restarted after the deadline of the stage before": {
			reason: "The next deadline is a new one, the result is not.",
			args:   []decision{{910, late, releasingLate}},
			want:   []string{"timeouts_total{ReleasingSource} 1"},
		},
		"restarted after the end": {
			reason: "All is counted.",
			args:   []decision{{600, done, reported}},
			want:   nil,
		},
		"vanished": {
			reason: "A VMIM that is gone keeps no condition; the entry remembers.",
			args: []decision{{500, running, dualLate}, {510, running, dualLate},
				{600, running, assessed(dualattach.RolledBack, dualattach.Timeout, false)}},
			want: []string{"duration_seconds 1", "migrations_total{timeout} 1", "stage_duration_seconds{DualAttached} 1", "timeouts_total{DualAttached} 1"},
		},
		"not involved": {
			reason: "None of ours, nothing counted.",
			args:   []decision{{5, fresh, dualattach.Assessment{Stage: dualattach.NotInvolved}}},
			want:   nil,
		},
		"history": {
			reason: "The same.",
			args:   []decision{{5, fresh, dualattach.Assessment{Reported: true}}},
			want:   nil,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			table := newTable()
			m := newMetrics(table)
			e := table.track(shows(fresh), time.Time{}, noon)[0]
			for _, d := range tc.args {
				s := &dualattach.Snapshot{Now: at(d.seconds), Migration: d.before, Target: dualattach.Side{PodCreated: noon}}
				m.count(e, d.before, s, d.a)
			}
			if diff := cmp.Diff(tc.want, counts(t, m)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestStageDuration is the time from decision to decision, in the stage that was left.
func TestStageDuration(t *testing.T) {
	m := newMetrics(newTable())
	e := &entry{known: gather.Known{Migration: vmim("a", "1", 0)}, late: map[dualattach.Stage]bool{}}
	for _, d := range []decision{{5, nil, assessed(dualattach.AttachingTarget, "", false)}, {10, nil, assessed(dualattach.AttachingTarget, "", false)},
		{25, nil, assessed(dualattach.DualAttached, "", false)}, {125, nil, assessed(dualattach.Completed, dualattach.Success, false)}} {
		m.count(e, e.known.Migration, &dualattach.Snapshot{Now: at(d.seconds), Migration: e.known.Migration}, d.a)
	}
	for stage, want := range map[dualattach.Stage]float64{dualattach.AttachingTarget: 20, dualattach.DualAttached: 100, dualattach.ReleasingSource: 0} {
		var got dto.Metric
		if err := m.stageDuration.WithLabelValues(stage.String()).(prometheus.Histogram).Write(&got); err != nil {
			t.Fatal(err)
		}
		if sum := got.GetHistogram().GetSampleSum(); sum != want {
			t.Errorf("%s lasted %g s, want %g", stage, sum, want)
		}
	}
}

// TestCollector: the gauges are what the table holds at the scrape, and die with it.
func TestCollector(t *testing.T) {
	r := New(nil, nil, nil, dualattach.DefaultLimits, nil, nil, nil)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.Collector())
	gauges := []string{report.MetricActive, report.MetricDeadline, report.MetricDualAttached}
	const none = `
# HELP rds_csi_migration_active_migrations Migrations of VMs with shared RDS volumes that are not over yet.
# TYPE rds_csi_migration_active_migrations gauge
rds_csi_migration_active_migrations 0
`
	const some = `
# HELP rds_csi_migration_active_migrations Migrations of VMs with shared RDS volumes that are not over yet.
# TYPE rds_csi_migration_active_migrations gauge
rds_csi_migration_active_migrations 3
# HELP rds_csi_migration_deadline_timestamp_seconds When the stage of a migration under way is due to end, in seconds since the epoch; in the past: it is stuck.
# TYPE rds_csi_migration_deadline_timestamp_seconds gauge
rds_csi_migration_deadline_timestamp_seconds{migration="dual",namespace="shop",stage="DualAttached",vmi="web"} 1.7855861e+09
rds_csi_migration_deadline_timestamp_seconds{migration="release",namespace="shop",stage="ReleasingSource",vmi="web"} 1.7855862005e+09
# HELP rds_csi_volume_dual_attached Claims whose RDS volume is attached on two nodes for a migration (1).
# TYPE rds_csi_volume_dual_attached gauge
rds_csi_volume_dual_attached{namespace="shop",persistentvolumeclaim="data"} 1
rds_csi_volume_dual_attached{namespace="shop",persistentvolumeclaim="disk"} 1
`
	check := func(want string) {
		t.Helper()
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), gauges...); err != nil {
			t.Error(err)
		}
	}
	check(none)
	entries := map[types.UID]*entry{}
	r.table.entries[web] = entries
	for i, x := range []struct {
		name   string
		stage  dualattach.Stage
		due    int
		claims []string
	}{
		{"attach", dualattach.AttachingTarget, 0, nil},
		{"dual", dualattach.DualAttached, 500, []string{"disk", "data"}},
		{"release", dualattach.ReleasingSource, 600, []string{"disk"}},
		{"none", dualattach.NotInvolved, 0, nil},
		{"over", dualattach.Completed, 0, nil},
		{"new", dualattach.Undecided, 0, nil},
	} {
		e := &entry{known: gather.Known{Migration: vmim(x.name, "1", i)}, stage: x.stage,
			latest: dualattach.Assessment{Stage: x.stage, DualAttachedClaims: x.claims}}
		if x.due > 0 {
			e.latest.Deadline = dualattach.Deadline{Start: noon, At: at(x.due)}
		}
		if x.name == "release" {
			e.latest.Deadline.At = e.latest.Deadline.At.Add(500 * time.Millisecond)
		}
		entries[e.known.Migration.UID] = e
	}
	check(some)
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	for uid := range entries {
		r.table.forget(web, uid)
	}
	check(none)
}

// TestLabelsFromZero: a rate needs a beginning.
func TestLabelsFromZero(t *testing.T) {
	m := newMetrics(newTable())
	for name, tc := range map[string]struct {
		c    prometheus.Collector
		want int
	}{
		report.MetricMigrations:    {m.migrations, len(dualattach.Results())},
		report.MetricTimeouts:      {m.timeouts, len(dualattach.UnderWay())},
		report.MetricStageDuration: {m.stageDuration, len(dualattach.UnderWay())},
		report.MetricDuration:      {m.duration, 1},
	} {
		if got := testutil.CollectAndCount(tc.c, name); got != tc.want {
			t.Errorf("%s has %d series, want %d", name, got, tc.want)
		}
	}
}
