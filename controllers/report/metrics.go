package report

import "github.com/prometheus/client_golang/prometheus"

// The names of the operator's metrics, the one place for each.
const (
	MetricActive         = "rds_csi_migration_active_migrations"
	MetricMigrations     = "rds_csi_migration_migrations_total"
	MetricDuration       = "rds_csi_migration_duration_seconds"
	MetricStageDuration  = "rds_csi_migration_stage_duration_seconds"
	MetricTimeouts       = "rds_csi_migration_timeouts_total"
	MetricDeadline       = "rds_csi_migration_deadline_timestamp_seconds"
	MetricInstanceWrites = "rds_csi_vmi_condition_writes_total"
	MetricDualAttached   = "rds_csi_volume_dual_attached"
	MetricUnexplained    = "rds_csi_volume_unexplained_dual_attached"
	MetricDivergence     = "rds_csi_array_divergence"
	MetricArrayUp        = "rds_csi_array_up"
	MetricArrayObserved  = "rds_csi_array_observed_timestamp_seconds"
	MetricPoolSize       = "rds_csi_array_pool_size_bytes"
	MetricPoolFree       = "rds_csi_array_pool_free_bytes"
	MetricPoolAllocated  = "rds_csi_array_pool_allocated_bytes"
	MetricSSHDuration    = "rds_csi_ssh_command_duration_seconds"
)

// LeaderOnly hides a collector's series until this process leads, so that two
// replicas never report the same migration.
func LeaderOnly(elected <-chan struct{}, c prometheus.Collector) prometheus.Collector {
	return leaderOnly{elected, c}
}

type leaderOnly struct {
	elected <-chan struct{}
	prometheus.Collector
}

func (l leaderOnly) Collect(ch chan<- prometheus.Metric) {
	select {
	case <-l.elected:
		l.Collector.Collect(ch)
	default:
	}
}
