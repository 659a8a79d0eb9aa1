package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// timeline prints a line for everything that changes.
type timeline struct {
	s       *stack.Stack
	started time.Time
	seen    map[string]string // by VM: what was printed last
	events  map[string]bool
}

func newTimeline(s *stack.Stack) *timeline {
	fmt.Printf("\n%8s  %-11s %-16s %-17s %-17s %s\n", "time", "VM", "KubeVirt says", "cluster: held by", "array: told to", "storage stage")
	return &timeline{s: s, started: time.Now(), seen: map[string]string{}, events: map[string]bool{}}
}

// state is what the cluster shows of one VM's migration.
type state struct {
	vmim  kubevirtv1.VirtualMachineInstanceMigration
	claim string
	nodes []string // attached
	told  []string // by the ledger
}

// until prints changes until every part is over.
func (t *timeline) until(ctx context.Context, over func(role, state) bool) error {
	return t.s.WaitFor(ctx, "the three migrations to end", func(ctx context.Context) (bool, error) {
		all := true
		for _, r := range cast {
			st, err := t.look(ctx, r)
			if err != nil {
				return false, err
			}
			t.print(r, st)
			all = all && over(r, st)
		}
		return all, t.printEvents(ctx)
	})
}

func (t *timeline) look(ctx context.Context, r role) (state, error) {
	st := state{claim: r.name + "-disk"}
	if err := t.s.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: r.name}, &st.vmim); err != nil {
		return st, err
	}
	var pvc corev1.PersistentVolumeClaim
	if err := t.s.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: st.claim}, &pvc); err != nil {
		return st, err
	}
	attached, err := t.s.Attachments(ctx, pvc.Spec.VolumeName)
	if err != nil {
		return st, err
	}
	for node, is := range attached {
		if is {
			st.nodes = append(st.nodes, node)
		}
	}
	slices.Sort(st.nodes)
	st.told = rds.ParseLedger(t.s.Comment(rds.SlotFor(pvc.Spec.VolumeName))).Nodes()
	slices.Sort(st.told)
	return st, nil
}

func (t *timeline) print(r role, st state) {
	line := fmt.Sprintf("%-11s %-16s %-17s %-17s %s", r.name, orDash(string(st.vmim.Status.Phase)),
		orDash(strings.Join(st.nodes, "+")), orDash(strings.Join(st.told, "+")), stageText(&st.vmim))
	if t.seen[r.name] == line {
		return
	}
	t.seen[r.name] = line
	fmt.Printf("%+7.2fs  %s\n", time.Since(t.started).Seconds(), line)
}

// stageText is the stage as our conditions tell it.
func stageText(m *kubevirtv1.VirtualMachineInstanceMigration) string {
	migrated, timedOut := condition(m, string(dualattach.ConditionMigrated)), condition(m, string(dualattach.ConditionTimedOut))
	switch {
	case migrated == nil:
		return "-"
	case timedOut != nil && timedOut.Status == corev1.ConditionTrue:
		return migrated.Reason + "  TIMED OUT"
	default:
		return migrated.Reason
	}
}

func (t *timeline) printEvents(ctx context.Context) error {
	var events corev1.EventList
	if err := t.s.Client.List(ctx, &events, client.InNamespace(namespace)); err != nil {
		return err
	}
	for _, e := range events.Items {
		if t.events[e.Name] || e.Source.Component != "rds-csi-operator" {
			continue
		}
		t.events[e.Name] = true
		fmt.Printf("%+7.2fs  %-11s %s event %s on %s %s\n", time.Since(t.started).Seconds(), "",
			strings.ToLower(e.Type), e.Reason, kindWord[e.InvolvedObject.Kind], e.InvolvedObject.Name)
	}
	return nil
}

var kindWord = map[string]string{"PersistentVolumeClaim": "claim", "VirtualMachineInstance": "VMI"}

// over reports whether a VM's part has been played.
func over(r role, st state) bool {
	c := condition(&st.vmim, r.ends)
	return c != nil && string(c.Status) == r.status && c.Reason == r.reason
}

func condition(m *kubevirtv1.VirtualMachineInstanceMigration, name string) *kubevirtv1.VirtualMachineInstanceMigrationCondition {
	for i := range m.Status.Conditions {
		if string(m.Status.Conditions[i].Type) == name {
			return &m.Status.Conditions[i]
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
