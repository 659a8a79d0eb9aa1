package vmireport

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// annotations stand in for conditions: "<status> <reason> (<time>): <message>".
var annotations = map[vmicondition.Type]string{
	vmicondition.StorageMigrationTimedOut:     dualattach.TimedOutAnnotation,
	vmicondition.StorageDualAttachUnexplained: dualattach.UnexplainedAnnotation,
}

// Annotation is the name of the one that stands in for a condition.
func Annotation(t vmicondition.Type) string { return annotations[t] }

// Noted reports whether an annotation on the VMI stands in for the condition: it is
// to be replaced by the condition, or taken away.
func Noted(vmi *kubevirtv1.VirtualMachineInstance, t vmicondition.Type) bool {
	_, ok := vmi.Annotations[annotations[t]]
	return ok
}

// notes reports whether the annotation says so already, message aside.
func notes(vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) bool {
	return strings.HasPrefix(vmi.Annotations[annotations[c.Type]], fmt.Sprintf("%s %s (", c.Status, c.Reason))
}

// notePatch makes the annotation say so. It touches nothing else: labels of a VMI end
// up on its pods, and its spec is KubeVirt's.
func notePatch(vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition, now time.Time) ([]byte, error) {
	name, ok := annotations[c.Type]
	if !ok {
		return nil, fmt.Errorf("condition type %d is none of ours", c.Type)
	}
	value := fmt.Sprintf("%s %s (%s): %s", c.Status, c.Reason, now.UTC().Format(time.RFC3339), c.Message)
	ops := []jsonpatch.Operation{jsonpatch.Version(vmi.ResourceVersion)}
	if len(vmi.Annotations) == 0 {
		// An empty map is not stored, and nothing can be added to one that is absent.
		return json.Marshal(append(ops, jsonpatch.Add("/metadata/annotations", map[string]string{name: value})))
	}
	return json.Marshal(append(ops, jsonpatch.Add("/metadata/annotations/"+jsonpatch.Escape(name), value)))
}

// clearPatch takes the annotation away, which must be there.
func clearPatch(vmi *kubevirtv1.VirtualMachineInstance, t vmicondition.Type) ([]byte, error) {
	return json.Marshal([]jsonpatch.Operation{
		jsonpatch.Version(vmi.ResourceVersion), jsonpatch.Remove("/metadata/annotations/" + jsonpatch.Escape(annotations[t]))})
}
