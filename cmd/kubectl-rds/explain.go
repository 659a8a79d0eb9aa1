package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
)

// explanation is all that is told about one VM.
type explanation struct {
	vmi        *kubevirtv1.VirtualMachineInstance
	volumes    []volume
	migrations []migration
	events     []corev1.Event
	grant      *metav1.Condition // of the RDSDriver; nil: not known
	now        time.Time
}

func newExplain(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "explain vmi/NAME",
		Short:   "What the storage of one VM is doing, and what is the matter with it",
		Long:    "What the storage of one VM is doing: who holds its RDS volumes, its migrations with their deadlines, what is the matter and what to look at next.",
		Example: "  kubectl rds -n shop explain vmi/web-1",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return o.explain(c.Context(), args[0]) },
	}
}

func (o *options) explain(ctx context.Context, argument string) error {
	name, err := instanceName(argument)
	if err != nil {
		return err
	}
	ctx, c, err := o.connect(ctx)
	if err != nil {
		return err
	}
	if err := c.requireKubeVirt(); err != nil {
		return err
	}
	e, err := c.explanation(ctx, types.NamespacedName{Namespace: c.namespace, Name: name}, o.operatorNamespace, o.ErrOut)
	if err != nil {
		return reason(ctx, err)
	}
	return e.write(o)
}

// instanceName reads vmi/NAME, or vm/NAME: a VM's instance bears its name.
func instanceName(argument string) (string, error) {
	kind, name, found := strings.Cut(argument, "/")
	if !found || name == "" || strings.Contains(name, "/") || !slices.Contains([]string{"vmi", "vm"}, kind) {
		return "", fmt.Errorf("%q: it is vmi/NAME or vm/NAME that can be explained", argument)
	}
	return name, nil
}

// explanation reads what there is to tell. What makes it less than whole is told to errOut.
func (c *cluster) explanation(ctx context.Context, key types.NamespacedName, operatorNamespace string, errOut io.Writer) (*explanation, error) {
	e := &explanation{vmi: &kubevirtv1.VirtualMachineInstance{}}
	switch err := c.cache.Get(ctx, key, e.vmi); {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("there is no VMI %s in namespace %s: the VM does not run", key.Name, key.Namespace)
	case err != nil:
		return nil, err
	}
	warn(errOut, c.askArrays(ctx, operatorNamespace))
	e.now = time.Now()
	var err error
	if e.migrations, err = c.migrationsOf(ctx, key, e.now); err != nil {
		return nil, err
	}
	volumes, err := c.gather.VolumesOfInstance(ctx, key)
	if err != nil {
		return nil, err
	}
	for _, pv := range volumes {
		v, err := c.volume(ctx, pv, e.migrations, e.now)
		if err != nil {
			return nil, err
		}
		if v != nil {
			e.volumes = append(e.volumes, *v)
		}
	}
	if c.driver != nil {
		e.grant = meta.FindStatusCondition(c.driver.Status.Conditions, v1alpha1.ConditionVMIWritable)
	}
	e.events, err = c.eventsOf(ctx, e.vmi, e.volumes)
	return e, err
}

// eventsOf are the operator's and the plugin's events about a VMI and its claims,
// oldest first.
func (c *cluster) eventsOf(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, volumes []volume) ([]corev1.Event, error) {
	claims := map[string]bool{}
	for _, v := range volumes {
		claims[v.Metadata.Name] = true
	}
	var events []corev1.Event
	for _, reporter := range []string{report.Component, c.gather.Driver} {
		var list corev1.EventList
		if err := c.live.List(ctx, &list, client.InNamespace(vmi.Namespace), client.MatchingFields{"reportingComponent": reporter}); err != nil {
			return nil, fmt.Errorf("list events: %w", err)
		}
		events = append(events, list.Items...)
	}
	events = slices.DeleteFunc(events, func(e corev1.Event) bool {
		about := e.InvolvedObject
		return about.UID != vmi.UID && (about.Kind != "PersistentVolumeClaim" || !claims[about.Name])
	})
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	return events, nil
}

func (e *explanation) write(o *options) error {
	out := o.Out
	fmt.Fprintf(out, "VMI %s/%s is %s", e.vmi.Namespace, e.vmi.Name, e.vmi.Status.Phase)
	if e.vmi.Status.NodeName != "" {
		fmt.Fprintf(out, " on %s", e.vmi.Status.NodeName)
	}
	fmt.Fprintln(out)
	if len(e.volumes) == 0 {
		fmt.Fprintln(out, "\nIt uses no RDS volume.")
		return nil
	}
	fmt.Fprintln(out, "\nVolumes")
	if err := printRows(o, "", volumeColumns(false), lines(e.volumes, e.now)); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nMigrations")
	if err := e.writeMigrations(o); err != nil {
		return err
	}
	e.writeMatters(out)
	e.writeEvents(out)
	return nil
}

func (e *explanation) writeMigrations(o *options) error {
	if len(e.migrations) == 0 {
		fmt.Fprintln(o.Out, "none that is known")
		return nil
	}
	if err := printRows(o, "", migrationColumns(false), e.migrations); err != nil {
		return err
	}
	last := e.migrations[len(e.migrations)-1]
	for _, message := range last.Messages {
		fmt.Fprintf(o.Out, "  %s: %s\n", last.Metadata.Name, message)
	}
	return nil
}

// matters lists what is wrong, in words that say what to do.
func (e *explanation) matters() []string {
	var all []string
	for _, m := range e.migrations {
		if m.Overdue != "" {
			all = append(all, "migration "+m.Metadata.Name+": "+m.Overdue)
		}
	}
	for _, v := range e.volumes {
		if !v.ArrayKnown {
			all = append(all, fmt.Sprintf("claim %s: who holds it on the array is not known: %s", v.Metadata.Name, v.ArrayProblem))
		}
		for _, h := range v.Holders {
			if h.AttachmentError != "" {
				all = append(all, fmt.Sprintf("claim %s on %s: %s", v.Metadata.Name, h.Node, h.AttachmentError))
			}
		}
		for _, f := range v.Findings {
			text := f.Reason + ", claim " + v.Metadata.Name + ": " + f.Message
			if !f.Announced {
				text += " (seen just now; it may pass)"
			}
			all = append(all, text)
		}
	}
	if e.grant != nil && e.grant.Status == metav1.ConditionFalse {
		all = append(all, "conditions of VMIs cannot be written: "+e.grant.Message)
	}
	return all
}

func (e *explanation) writeMatters(out io.Writer) {
	fmt.Fprintln(out, "\nWhat is the matter")
	matters := e.matters()
	if len(matters) == 0 {
		fmt.Fprintln(out, "nothing")
	}
	for _, text := range matters {
		fmt.Fprintln(out, "-", text)
	}
}

func (e *explanation) writeEvents(out io.Writer) {
	if len(e.events) == 0 {
		return
	}
	fmt.Fprintln(out, "\nEvents")
	for _, event := range e.events {
		fmt.Fprintf(out, "%s ago  %s  %s/%s  %s\n", ago(event.LastTimestamp.Time, e.now), event.Reason,
			strings.ToLower(event.InvolvedObject.Kind), event.InvolvedObject.Name, event.Message)
	}
}
