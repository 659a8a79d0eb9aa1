package vmicondition

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/jsonpatch"
)

// ControllerAccount is whose writes to a VMI's status KubeVirt's webhook keeps.
const ControllerAccount = "kubevirt-controller"

// Result is what became of a write.
type Result string

// The results of a write.
const (
	Stored    Result = "stored"    // read back: it is there
	Reverted  Result = "reverted"  // answered 200, and is not there
	Forbidden Result = "forbidden" // the grant is missing
)

// Results lists them all, for metrics that exist from zero.
func Results() []Result { return []Result{Stored, Reverted, Forbidden} }

// Writer writes conditions on VMIs as KubeVirt's controller.
type Writer struct {
	client rest.Interface
	clock  clock.PassiveClock
}

// NewWriter makes a writer for a cluster whose KubeVirt is in a namespace. The
// config is the operator's own; every request of the writer impersonates.
func NewWriter(config *rest.Config, namespace string, c clock.PassiveClock) (*Writer, error) {
	scheme := runtime.NewScheme()
	if err := kubevirtv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + namespace + ":" + ControllerAccount}
	config.GroupVersion, config.APIPath = &kubevirtv1.GroupVersion, "/apis"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	return &Writer{client: client, clock: c}, nil
}

// Write makes the VMI carry the condition and says whether it stayed; kept is the
// VMI as stored then. It does nothing and answers Stored when the VMI carries the
// condition already. An error is a write that failed for another reason than a
// missing grant; jsonpatch.ErrStale among them.
func (w *Writer) Write(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c Condition) (kept *kubevirtv1.VirtualMachineInstance, result Result, err error) {
	if Carries(vmi, c) {
		return vmi, Stored, nil
	}
	body, err := patch(vmi, c, w.clock.Now())
	if err != nil {
		return vmi, "", err
	}
	kept = &kubevirtv1.VirtualMachineInstance{}
	// A plain PATCH: the grant allows no GET under the other name.
	err = w.client.Patch(types.JSONPatchType).Namespace(vmi.Namespace).Resource("virtualmachineinstances").Name(vmi.Name).
		Body(body).Do(ctx).Into(kept)
	switch {
	case apierrors.IsForbidden(err):
		return vmi, Forbidden, nil
	case err != nil:
		return vmi, "", fmt.Errorf("write condition %s on VMI %s/%s: %w", c.Type, vmi.Namespace, vmi.Name, jsonpatch.Answer(err))
	case !Carries(kept, c):
		return kept, Reverted, nil
	}
	return kept, Stored, nil
}
