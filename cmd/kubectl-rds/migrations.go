package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/printers"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
)

// migration is what is known of one, and what the operator's decision says of it.
type migration struct {
	Metadata metadata `json:"metadata"`
	VMI      string   `json:"vmi"`
	Source   string   `json:"sourceNode,omitempty"`
	Target   string   `json:"targetNode,omitempty"`
	Stage    string   `json:"stage"`
	// Result is how it ended, or "timeout" once a deadline has passed.
	Result string `json:"result,omitempty"`
	// Deadline is until when the stage may last, by whose Limit.
	Deadline *metav1.Time `json:"deadline,omitempty"`
	Limit    string       `json:"limit,omitempty"`
	Claims   []string     `json:"claims,omitempty"`
	// Messages are those of the conditions that the VMIM is to carry now.
	Messages []string `json:"messages,omitempty"`
	// Overdue says what lasts too long, by whose limit, and what to look at next.
	Overdue string `json:"overdue,omitempty"`

	now      time.Time
	nextAt   time.Time // when time alone changes what is said, or zero
	underWay bool
	volumes  []string // PersistentVolumes
}

// metadata is the part of an object's that is told.
type metadata struct {
	Namespace         string       `json:"namespace"`
	Name              string       `json:"name"`
	CreationTimestamp *metav1.Time `json:"creationTimestamp,omitempty"`
}

func migrationColumns(allNamespaces bool) []column[migration] {
	columns := []column[migration]{
		{"Name", false, func(m migration) string { return m.Metadata.Name }},
		{"VMI", false, func(m migration) string { return m.VMI }},
		{"Source", false, func(m migration) string { return m.Source }},
		{"Target", false, func(m migration) string { return m.Target }},
		{"Stage", false, func(m migration) string { return m.Stage }},
		{"Left", false, migration.left},
		{"Result", false, func(m migration) string { return m.Result }},
		{"Age", false, func(m migration) string { return ago(m.Metadata.CreationTimestamp.Time, m.now) }},
		{"Claims", true, func(m migration) string { return commas(m.Claims) }},
		{"Limit", true, func(m migration) string { return m.Limit }},
	}
	if allNamespaces {
		columns = append([]column[migration]{{"Namespace", false, func(m migration) string { return m.Metadata.Namespace }}}, columns...)
	}
	return columns
}

// left is how long the stage may still last.
func (m migration) left() string {
	if m.Deadline == nil {
		return ""
	}
	return left(m.Deadline.Time, m.now)
}

func newMigrations(o *options) *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:     "migrations",
		Aliases: []string{"migration", "vmim"},
		Short:   "Migrations of VMs whose RDS volumes two nodes share: stage, time left, result",
		Long: "Migrations of VMs whose RDS volumes two nodes share: where from and to, in which stage, how long that may still last, and how it ended.\n" +
			"An operator need not run for this; its flags are not known here, the RDSDriver's deadlines are.",
		Example: "  kubectl rds migrations -A -w",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return o.migrations(c.Context(), watch) },
	}
	o.addTableFlags(c)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on, and print each migration again that has changed")
	return c
}

func (o *options) migrations(ctx context.Context, watch bool) error {
	if watch && o.structured() {
		return fmt.Errorf("--watch prints a table: leave -o %s out", o.output)
	}
	user := ctx
	ctx, c, err := o.connect(ctx)
	if err != nil {
		return err
	}
	if err := c.requireKubeVirt(); err != nil {
		return err
	}
	if watch {
		err := o.watchMigrations(ctx, c)
		if user.Err() != nil {
			return nil // that is how it ends
		}
		return reason(ctx, err)
	}
	rows, err := c.migrations(ctx, time.Now())
	if err != nil {
		return reason(ctx, err)
	}
	if len(rows) == 0 && !o.structured() {
		o.nothing("migrations of RDS volumes", c.namespace)
		return nil
	}
	return printRows(o, "Migration", migrationColumns(o.allNamespaces), rows)
}

// watchMigrations prints each migration whenever something else than its time left is
// new, until something fails or the context ends.
func (o *options) watchMigrations(ctx context.Context, c *cluster) error {
	changed, err := c.changes(ctx)
	if err != nil {
		return err
	}
	printer, err := o.tablePrinter()
	if err != nil {
		return err
	}
	out := printers.GetNewTabWriter(o.Out) // remembers the widths
	printed := map[metadata]string{}
	for {
		rows, err := c.migrations(ctx, time.Now())
		if err != nil {
			return err
		}
		fresh := slices.DeleteFunc(slices.Clone(rows), func(m migration) bool { return printed[m.Metadata.key()] == m.state() })
		for _, m := range fresh {
			printed[m.Metadata.key()] = m.state()
		}
		if len(fresh) > 0 {
			if err := printer.PrintObj(tableOf(migrationColumns(o.allNamespaces), fresh), out); err != nil {
				return err
			}
			if err := out.Flush(); err != nil {
				return err
			}
		}
		if err := sleep(ctx, changed, nextChange(rows)); err != nil {
			return err
		}
	}
}

// key tells migrations apart.
func (m metadata) key() metadata { return metadata{Namespace: m.Namespace, Name: m.Name} }

// state is all that makes a migration be printed again.
func (m migration) state() string {
	return fmt.Sprint(m.Source, "|", m.Target, "|", m.Stage, "|", m.Result, "|", m.Limit)
}

// nextChange is when time alone changes what is said of a migration, or zero.
func nextChange(rows []migration) time.Time {
	var next time.Time
	for _, m := range rows {
		if !m.nextAt.IsZero() && (next.IsZero() || m.nextAt.Before(next)) {
			next = m.nextAt
		}
	}
	return next
}

// sleep waits for a change, or for a time if it is one.
func sleep(ctx context.Context, changed <-chan struct{}, until time.Time) error {
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-due:
	}
	return nil
}

// migrations decides about every migration as the operator would now; the newest come last.
func (c *cluster) migrations(ctx context.Context, now time.Time) ([]migration, error) {
	var list kubevirtv1.VirtualMachineInstanceMigrationList
	if err := c.cache.List(ctx, &list, client.InNamespace(c.namespace)); err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	instances := map[types.NamespacedName]bool{}
	for _, m := range list.Items {
		instances[types.NamespacedName{Namespace: m.Namespace, Name: m.Spec.VMIName}] = true
	}
	var rows []migration
	for key := range instances {
		more, err := c.migrationsOf(ctx, key, now)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	slices.SortFunc(rows, func(a, b migration) int {
		return cmp.Or(cmp.Compare(a.Metadata.Namespace, b.Metadata.Namespace),
			a.Metadata.CreationTimestamp.Compare(b.Metadata.CreationTimestamp.Time), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
	})
	return rows, nil
}

// migrationsOf decides about the migrations of one VMI that concern RDS volumes.
func (c *cluster) migrationsOf(ctx context.Context, key types.NamespacedName, now time.Time) ([]migration, error) {
	in, err := c.gather.Instance(ctx, key)
	if err != nil {
		return nil, err
	}
	var rows []migration
	for _, m := range in.Migrations {
		s, err := c.gather.Snapshot(ctx, in, &gather.Known{Migration: m}, now)
		if err != nil {
			return nil, err
		}
		// What was over before and bears no mark of the operator's is history to it, too.
		s.Since, s.Limits = now, c.limits
		a := dualattach.Decide(s)
		if a.Stage == dualattach.NotInvolved || a.Stage == dualattach.Undecided && m.IsFinal() {
			continue
		}
		rows = append(rows, describe(&s, a))
	}
	return rows, nil
}

func describe(s *dualattach.Snapshot, a dualattach.Assessment) migration {
	m := migration{
		Metadata: metadata{Namespace: s.Migration.Namespace, Name: s.Migration.Name, CreationTimestamp: stamp(s.Migration.CreationTimestamp.Time)},
		VMI:      s.Migration.Spec.VMIName, Source: s.Source.Node, Target: s.Target.Node, Stage: a.Stage.String(), Result: string(a.Result),
		Deadline: stamp(a.Deadline.At), Limit: a.Deadline.Whose,
		now: s.Now, nextAt: a.NextAt, underWay: !a.Reported && !a.Stage.Final(),
	}
	for _, v := range s.Volumes {
		m.Claims = append(m.Claims, v.Claim)
		m.volumes = append(m.volumes, v.PV)
	}
	for _, condition := range a.Conditions {
		m.Messages = append(m.Messages, condition.Message)
		if a.Overdue() && condition.Type == dualattach.ConditionTimedOut {
			m.Overdue = condition.Message
		}
	}
	if a.Reported {
		m.Messages = said(s.Migration)
	}
	return m
}

// said are the messages of our conditions on a VMIM whose ending is reported.
func said(m *kubevirtv1.VirtualMachineInstanceMigration) []string {
	var messages []string
	for _, c := range m.Status.Conditions {
		switch c.Type {
		case dualattach.ConditionDualAttached, dualattach.ConditionMigrated, dualattach.ConditionTimedOut:
			messages = append(messages, c.Message)
		}
	}
	return messages
}
