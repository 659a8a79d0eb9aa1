package vmireport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

var errDown = errors.New("no answer")

// api answers what this package asks of an API server, and panics at anything else.
type api struct {
	client.Reader
	client.Writer
	user      string
	version   string
	kubevirts []string        // their namespaces
	denied    map[string]bool // verbs
	down      bool
	vmi       *kubevirtv1.VirtualMachineInstance
	deaf      bool // answers 200 to patches and keeps nothing
	log       []string
	events    []string
}

func newAPI() *api {
	return &api{user: "system:serviceaccount:storage:rds-op", version: "v1.36.0", kubevirts: []string{"openshift-cnv"}, denied: map[string]bool{}}
}

func (a *api) grant(granted bool) {
	a.denied["impersonate:serviceaccount"], a.denied["impersonate-on:serviceaccount:patch"] = !granted, !granted
}

// ServerVersionWithContext implements discovery.ServerVersionInterfaceWithContext.
func (a *api) ServerVersionWithContext(context.Context) (*version.Info, error) {
	if a.down {
		return nil, errDown
	}
	a.log = append(a.log, "version")
	return &version.Info{GitVersion: a.version}, nil
}

// List implements client.Reader.
func (a *api) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if a.down {
		return errDown
	}
	l := list.(*metav1.PartialObjectMetadataList)
	for _, namespace := range a.kubevirts {
		l.Items = append(l.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kv", UID: "kv-uid"}})
	}
	return nil
}

// Create implements client.Writer.
func (a *api) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	if a.down {
		return errDown
	}
	switch o := o.(type) {
	case *authenticationv1.SelfSubjectReview:
		o.Status.UserInfo.Username, o.Status.UserInfo.UID = a.user, "account-uid"
	case *authorizationv1.SelfSubjectAccessReview:
		r := o.Spec.ResourceAttributes
		a.log = append(a.log, fmt.Sprintf("may %s %s.%s %s/%s", r.Verb, r.Resource, r.Group, r.Namespace, r.Name))
		o.Status.Allowed = !a.denied[r.Verb]
	case *corev1.Event:
		about := o.InvolvedObject
		a.events = append(a.events, fmt.Sprintf("%s %s on %s %s/%s %s: %s", o.Type, o.Reason, about.Kind, about.Namespace, about.Name, about.UID, o.Message))
	default:
		panic(fmt.Sprintf("created a %T", o))
	}
	return nil
}

// Patch implements client.Writer as the API server does, on the one VMI there is.
func (a *api) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.PatchOption) error {
	body, err := p.Data(o)
	if err != nil {
		return err
	}
	a.log = append(a.log, "patched")
	patch, err := jsonpatch.DecodePatch(body)
	if err != nil {
		return err
	}
	before, err := json.Marshal(a.vmi)
	if err != nil {
		return err
	}
	after, err := patch.Apply(before)
	if err != nil {
		return err
	}
	stored := &kubevirtv1.VirtualMachineInstance{}
	if err := json.Unmarshal(after, stored); err != nil {
		return err
	}
	if a.deaf {
		stored = a.vmi.DeepCopy()
	}
	stored.ResourceVersion += "1"
	a.vmi = stored
	*o.(*kubevirtv1.VirtualMachineInstance) = *stored.DeepCopy()
	return nil
}

// conditions is a ConditionWriter that answers as told.
type conditions struct {
	api    *api
	result vmicondition.Result
	err    error
}

// Write implements ConditionWriter.
func (c *conditions) Write(_ context.Context, vmi *kubevirtv1.VirtualMachineInstance, want vmicondition.Condition) (*kubevirtv1.VirtualMachineInstance, vmicondition.Result, error) {
	c.api.log = append(c.api.log, "condition "+string(want.Status)+"/"+want.Reason)
	if c.result == vmicondition.Stored {
		c.api.vmi = saying(vmi, want)
		c.api.vmi.ResourceVersion += "1"
		return c.api.vmi.DeepCopy(), c.result, c.err
	}
	return vmi, c.result, c.err
}
