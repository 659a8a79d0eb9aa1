package main

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// wanted are the events that must be on the claims by the end.
var wanted = map[string][]string{
	"vm-moves-disk":   {"MigrationStarted", "MigrationCompleted"},
	"vm-returns-disk": {"MigrationStarted", "MigrationFailed"},
	"vm-hangs-disk":   {"MigrationStarted", "MigrationDelayed", "MigrationFailed"},
}

// series are those that must be in the metrics by the end.
var series = []string{
	`rds_csi_migration_migrations_total{result="success"} 1`,
	`rds_csi_migration_migrations_total{result="failed"} 1`,
	`rds_csi_migration_migrations_total{result="timeout"} 1`,
	`rds_csi_migration_migrations_total{result="aborted"} 0`,
	`rds_csi_migration_timeouts_total{stage="DualAttached"} 1`,
	`rds_csi_migration_active_migrations 1`,
	`rds_csi_volume_dual_attached{namespace="demo",persistentvolumeclaim="vm-hangs-disk"} 1`,
	`rds_csi_migration_deadline_timestamp_seconds{migration="vm-hangs"`,
	`rds_csi_array_up{array="rds"} 1`,
}

// report prints what a person would look at, and returns what is missing in it.
func report(ctx context.Context, s *stack.Stack) ([]error, error) {
	for _, r := range cast {
		title(fmt.Sprintf("kubectl -n %s describe vmim %s", namespace, r.name))
		text, err := s.Kubectl(ctx, "-n", namespace, "describe", "vmim", r.name)
		if err != nil {
			return nil, err
		}
		fmt.Print(conditionsOf(text))
	}
	title(fmt.Sprintf("kubectl -n %s get events (on the claims)", namespace))
	text, err := s.Kubectl(ctx, "-n", namespace, "get", "events", "--sort-by=.firstTimestamp", "--field-selector=involvedObject.kind=PersistentVolumeClaim",
		"-o=custom-columns=TYPE:.type,REASON:.reason,CLAIM:.involvedObject.name,MESSAGE:.message")
	if err != nil {
		return nil, err
	}
	fmt.Print(text)
	scraped, err := s.Operators[0].Scrape(ctx)
	if err != nil {
		return nil, err
	}
	title("curl http://" + s.Operators[0].Metrics + "/metrics | grep ^rds_csi")
	fmt.Print(ours(scraped))
	return missing(ctx, s, scraped)
}

func title(command string) { fmt.Printf("\n$ %s\n", command) }

// conditionsOf cuts out the part of `kubectl describe` that is about conditions.
func conditionsOf(described string) string {
	var b strings.Builder
	inside := false
	for _, line := range strings.SplitAfter(described, "\n") {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case strings.HasPrefix(line, "Name:"):
			b.WriteString(line)
		case strings.HasPrefix(line, "  Conditions:"):
			inside = true
		case inside && indent <= 2 && strings.TrimSpace(line) != "":
			inside = false
		}
		if inside {
			b.WriteString(line)
		}
	}
	return b.String()
}

// ours keeps the domain's series, without the histograms' buckets and the SSH
// timings.
func ours(metrics string) string {
	var b strings.Builder
	for _, line := range strings.SplitAfter(metrics, "\n") {
		if strings.HasPrefix(line, "rds_csi_") && !strings.Contains(line, "_bucket{") && !strings.HasPrefix(line, "rds_csi_ssh_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// missing compares with what was expected.
func missing(ctx context.Context, s *stack.Stack, scraped string) ([]error, error) {
	var events corev1.EventList
	if err := s.Client.List(ctx, &events, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for _, e := range events.Items {
		has[e.InvolvedObject.Kind+"/"+e.InvolvedObject.Name+"/"+e.Reason] = true
	}
	var problems []error
	for claim, reasons := range wanted {
		for _, reason := range reasons {
			if !has["PersistentVolumeClaim/"+claim+"/"+reason] {
				problems = append(problems, fmt.Errorf("no event %s on claim %s", reason, claim))
			}
		}
	}
	if !has["VirtualMachineInstance/vm-hangs/StorageMigrationTimedOut"] {
		problems = append(problems, fmt.Errorf("no event StorageMigrationTimedOut on VMI vm-hangs"))
	}
	for _, line := range series {
		if !strings.Contains(scraped, line) {
			problems = append(problems, fmt.Errorf("no series %s", line))
		}
	}
	return problems, nil
}
