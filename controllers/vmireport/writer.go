package vmireport

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// EventNotWritten is the reason of the event on a VMI whose condition is an annotation.
const EventNotWritten = "StorageConditionNotWritten"

// Unneeded is the result of a Write that had no condition to write.
const Unneeded vmicondition.Result = ""

// ConditionWriter is a vmicondition.Writer.
type ConditionWriter interface {
	Write(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (*kubevirtv1.VirtualMachineInstance, vmicondition.Result, error)
}

// Writer has VMIs say what is the matter with them.
type Writer struct {
	grant  *Grant
	client client.Writer // the operator's own account
	clock  clock.PassiveClock
	make   func(kubevirt string) (ConditionWriter, error)

	mu         sync.Mutex
	kubevirt   string // the namespace that conditions was made for
	conditions ConditionWriter
}

// NewWriter makes a writer; create makes what writes conditions as the controller of a
// KubeVirt in a namespace.
func NewWriter(g *Grant, c client.Writer, clock clock.PassiveClock, create func(kubevirt string) (ConditionWriter, error)) *Writer {
	return &Writer{grant: g, client: c, clock: clock, make: create}
}

// Write makes the VMI say c: as a condition, or as an annotation and an event where that
// is forbidden or reverted; the result says which. What is False is taken away
// instead, where there is no condition to set False. An annotation goes once the condition is stored.
// jsonpatch.ErrStale is among the errors.
func (w *Writer) Write(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (vmicondition.Result, error) {
	if c.Status != corev1.ConditionTrue && !vmicondition.Bears(vmi, c.Type) {
		return Unneeded, w.clear(ctx, vmi, c.Type)
	}
	found := w.grant.known(ctx)
	result, why := vmicondition.Forbidden, "it is forbidden"
	if found.granted {
		conditions, err := w.writing(found.kubevirt.Namespace)
		if err != nil {
			return "", err
		}
		kept, written, err := conditions.Write(ctx, vmi, c)
		if err != nil {
			return "", err
		}
		switch written {
		case vmicondition.Stored:
			return written, w.clear(ctx, kept, c.Type)
		case vmicondition.Reverted:
			// What was answered is what is stored.
			vmi, result = kept, written
			why = "KubeVirt reverted it; it does not take " + found.kubevirt.Namespace + "/" + vmicondition.ControllerAccount + " for its own"
		default:
			w.grant.wasRefused(ctx)
		}
	}
	if result == vmicondition.Forbidden {
		w.grant.remind(ctx)
		why += "; " + w.grant.where() + " say how to grant it"
	}
	return result, w.note(ctx, vmi, c, why)
}

// writing is the writer for the KubeVirt in a namespace.
func (w *Writer) writing(kubevirt string) (ConditionWriter, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conditions != nil && w.kubevirt == kubevirt {
		return w.conditions, nil
	}
	conditions, err := w.make(kubevirt)
	if err != nil {
		return nil, err
	}
	w.conditions, w.kubevirt = conditions, kubevirt
	return conditions, nil
}

// note says it in the annotation, and in an event why not in the condition.
func (w *Writer) note(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition, why string) error {
	if notes(vmi, c) {
		return nil
	}
	body, err := notePatch(vmi, c, w.clock.Now())
	if err != nil {
		return err
	}
	stored, err := w.patch(ctx, vmi, body)
	if err != nil {
		return fmt.Errorf("write annotation %s on VMI %s/%s: %w", Annotation(c.Type), vmi.Namespace, vmi.Name, err)
	}
	if !notes(stored, c) {
		return fmt.Errorf("write annotation %s on VMI %s/%s: the API server answered 200 and did not keep it", Annotation(c.Type), vmi.Namespace, vmi.Name)
	}
	about := corev1.ObjectReference{APIVersion: kubevirtv1.GroupVersion.String(), Kind: kubevirtv1.VirtualMachineInstanceGroupVersionKind.Kind,
		Namespace: vmi.Namespace, Name: vmi.Name, UID: vmi.UID}
	e := dualattach.Event{Type: corev1.EventTypeWarning, Reason: EventNotWritten, Step: c.Type.String() + why,
		Message: fmt.Sprintf("Condition %s cannot be written on the VMI, annotation %s says it instead: %s", c.Type, Annotation(c.Type), why)}
	_, err = report.Event(ctx, w.client, e, about, vmi.UID, w.clock.Now())
	return err
}

// clear takes the annotation away, if there is one.
func (w *Writer) clear(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, t vmicondition.Type) error {
	if !Noted(vmi, t) {
		return nil
	}
	body, err := clearPatch(vmi, t)
	if err != nil {
		return err
	}
	stored, err := w.patch(ctx, vmi, body)
	switch {
	case err != nil:
		return fmt.Errorf("remove annotation %s from VMI %s/%s: %w", Annotation(t), vmi.Namespace, vmi.Name, err)
	case Noted(stored, t):
		return fmt.Errorf("remove annotation %s from VMI %s/%s: the API server answered 200 and kept it", Annotation(t), vmi.Namespace, vmi.Name)
	}
	return nil
}

// patch sends a JSON patch under the operator's own name and gives what is stored then.
func (w *Writer) patch(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, body []byte) (*kubevirtv1.VirtualMachineInstance, error) {
	stored := &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: vmi.Namespace, Name: vmi.Name}}
	return stored, jsonpatch.Answer(w.client.Patch(ctx, stored, client.RawPatch(types.JSONPatchType, body)))
}
