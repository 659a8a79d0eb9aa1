package soak

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// state is what everybody says at one moment.
type state struct {
	vms        []lab.VMI
	migrations []lab.VMIM
	events     []corev1.Event
	series     stack.Series
	volumes    []seenVolume
}

// seenVolume is a volume as the cluster and the array have it.
type seenVolume struct {
	volume
	claim    string
	used     bool // its VM has it as a disk
	attached []string
	disk     routeros.Disk
}

// look reads the state.
func (w *world) look(ctx context.Context) (state, error) {
	var (
		st          state
		vms         kubevirtv1.VirtualMachineInstanceList
		migrations  kubevirtv1.VirtualMachineInstanceMigrationList
		events      corev1.EventList
		attachments storagev1.VolumeAttachmentList
	)
	for _, list := range []client.ObjectList{&vms, &migrations, &events} {
		if err := w.Client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return st, err
		}
	}
	if err := w.Client.List(ctx, &attachments); err != nil {
		return st, err
	}
	st.vms, st.migrations, st.events = vms.Items, migrations.Items, events.Items
	nodes := map[string][]string{}
	for _, va := range attachments.Items {
		if pv := va.Spec.Source.PersistentVolumeName; pv != nil {
			// One that is not attached is not at rest either; it will not be in the ledger.
			nodes[*pv] = append(nodes[*pv], va.Spec.NodeName)
		}
	}
	for claim, v := range w.claims {
		seen := seenVolume{volume: v, claim: claim, attached: nodes[v.pv]}
		seen.used = slices.ContainsFunc(st.vms, func(vm lab.VMI) bool { return vm.Name == v.vm && hasDisk(&vm, claim) })
		seen.disk, _ = w.Array.Disk(v.slot)
		slices.Sort(seen.attached)
		st.volumes = append(st.volumes, seen)
	}
	var err error
	st.series, err = w.Scrape(ctx, w.Operators[0])
	return st, err
}

func hasDisk(vm *lab.VMI, claim string) bool {
	return slices.ContainsFunc(vm.Spec.Volumes, func(v kubevirtv1.Volume) bool { return v.Name == claim })
}

// restless lists what is not over yet, or says True although it is.
func (st state) restless() []string {
	var found []string
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	places := map[string]string{}
	for _, vm := range st.vms {
		places[vm.Name] = vm.Status.NodeName
		for _, c := range vm.Status.Conditions {
			switch {
			case c.Type == kubevirtv1.VirtualMachineInstanceReady && c.Status != corev1.ConditionTrue:
				add("VMI %s is not ready", vm.Name)
			case strings.HasPrefix(string(c.Type), "Storage") && c.Type != kubevirtv1.VirtualMachineInstanceIsStorageLiveMigratable && c.Status == corev1.ConditionTrue:
				add("VMI %s says %s=True", vm.Name, c.Type)
			}
		}
	}
	for _, m := range st.migrations {
		if !m.IsFinal() || !dualattach.Reported(&m) {
			add("migration %s is %s, its ending not reported", m.Name, m.Status.Phase)
		}
		for _, of := range []kubevirtv1.VirtualMachineInstanceMigrationConditionType{dualattach.ConditionDualAttached, dualattach.ConditionTimedOut} {
			if says(&m, of, corev1.ConditionTrue) {
				add("migration %s says %s=True", m.Name, of)
			}
		}
	}
	for _, v := range st.volumes {
		found = append(found, v.restless(places[v.vm])...)
	}
	return append(found, st.unsettledGauges()...)
}

// restless compares a volume's attachments, its ledger and its export. node is where
// its VM is.
func (v seenVolume) restless(node string) []string {
	var want []string
	if v.used && node != "" {
		want = []string{node}
	}
	ledger := rds.ParseLedger(v.disk.Comment)
	switch {
	case !slices.Equal(v.attached, want):
		return []string{fmt.Sprintf("claim %s is attached to %v, not to %v", v.claim, v.attached, want)}
	case !ledger.Known:
		return []string{fmt.Sprintf("claim %s has no ledger: %s (%q)", v.claim, ledger.Problem, v.disk.Comment)}
	case !slices.Equal(ledger.Nodes(), want) && len(ledger.Nodes())+len(want) > 0:
		return []string{fmt.Sprintf("claim %s: the ledger says %v, attached is %v", v.claim, ledger.Nodes(), want)}
	case v.disk.Exported != (len(want) > 0):
		return []string{fmt.Sprintf("claim %s: exported %v, attached to %v", v.claim, v.disk.Exported, want)}
	}
	return nil
}

func (st state) unsettledGauges() []string {
	var found []string
	if active, ok := st.series.Find(report.MetricActive, nil); !ok || active != 0 {
		found = append(found, fmt.Sprintf("%s is %v (there: %v)", report.MetricActive, active, ok))
	}
	for _, name := range []string{report.MetricDeadline, report.MetricDualAttached} {
		for _, m := range st.series[name].GetMetric() {
			found = append(found, fmt.Sprintf("%s%v is still there", name, m.GetLabel()))
		}
	}
	return found
}

func says(m *lab.VMIM, of kubevirtv1.VirtualMachineInstanceMigrationConditionType, status corev1.ConditionStatus) bool {
	return slices.ContainsFunc(m.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceMigrationCondition) bool {
		return c.Type == of && c.Status == status
	})
}

// results is how many migrations have one, since the operator's start.
func results(series stack.Series) float64 {
	sum := 0.0
	for _, m := range series[report.MetricMigrations].GetMetric() {
		sum += m.GetCounter().GetValue()
	}
	return sum
}

// judge lists what was said wrongly or twice or not at all about a round that is
// over. counted is how many results were counted in it.
func (st state) judge(r Round, counted float64) []string {
	var found []string
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	killed := r.kills(KillOperator)
	switch {
	case !killed && counted != float64(len(r.Moves)):
		add("%v results were counted for %d migrations", counted, len(r.Moves))
	case killed && counted > float64(len(r.Moves)):
		add("%v results were counted for %d migrations, after the operator was killed", counted, len(r.Moves))
	}
	for _, m := range r.Moves {
		name := migrationName(r, m)
		i := slices.IndexFunc(st.migrations, func(vmim lab.VMIM) bool { return vmim.Name == name })
		if i >= 0 {
			vmim := &st.migrations[i]
			if succeeded := vmim.Status.Phase == kubevirtv1.MigrationSucceeded; succeeded != says(vmim, dualattach.ConditionMigrated, corev1.ConditionTrue) {
				add("migration %s %s for KubeVirt, but storageMigrated says otherwise", name, vmim.Status.Phase)
			}
		}
		// An ending while no operator ran, whose VMIM is gone, may be lost.
		mayBeLost := i < 0 && killed
		if n := st.endings(name, vmName(m.VM)); n > 1 || n == 0 && !mayBeLost {
			add("claim %s has %d events about the end of migration %s", vmName(m.VM), n, name)
		}
		if m.Plug {
			if n := st.endings(name, plugName(r, m)); n > 1 {
				add("claim %s has %d events about the end of migration %s", plugName(r, m), n, name)
			}
		}
	}
	for _, e := range st.events {
		if e.Source.Component == "rds-csi-operator" && e.Count > 1 {
			add("event %s on %s was made %d times", e.Reason, e.InvolvedObject.Name, e.Count)
		}
	}
	return found
}

// endings counts the events on a claim that say how a migration ended.
func (st state) endings(migration, claim string) int {
	n := 0
	for _, e := range st.events {
		about := strings.Contains(e.Message, " migration "+migration+" ") || strings.Contains(e.Message, " migration "+migration+":")
		if e.InvolvedObject.Name == claim && about &&
			(e.Reason == dualattach.EventCompleted || e.Reason == dualattach.EventFailed && !strings.Contains(e.Message, "timeout in stage")) {
			n++
		}
	}
	return n
}
