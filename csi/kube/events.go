package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// eventReadTimeout bounds the look-up of whose claim an event is about. An API
// server that is away is asked again later.
const eventReadTimeout = 5 * time.Second

// VolumeEvents puts events about volumes of one node where people look: on the
// claim, or, where there is none to be found, on the node.
type VolumeEvents struct {
	client   kubernetes.Interface
	driver   string
	node     string
	recorder record.EventRecorder
}

// NewVolumeEvents returns a VolumeEvents that sends in the background until ctx
// ends.
func NewVolumeEvents(ctx context.Context, client kubernetes.Interface, driver, node string) *VolumeEvents {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return &VolumeEvents{
		client: client, driver: driver, node: node,
		recorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: driver, Host: node}),
	}
}

// Warn records what is wrong with a volume, Note what is right again. An error
// means that it is not known whose volume it is, and that nothing was recorded.
func (e *VolumeEvents) Warn(ctx context.Context, handle, reason, message string) error {
	return e.record(ctx, corev1.EventTypeWarning, handle, reason, message)
}

// Note is Warn's counterpart.
func (e *VolumeEvents) Note(ctx context.Context, handle, reason, message string) error {
	return e.record(ctx, corev1.EventTypeNormal, handle, reason, message)
}

func (e *VolumeEvents) record(ctx context.Context, kind, handle, reason, message string) error {
	about, err := e.about(ctx, handle)
	if err != nil {
		return fmt.Errorf("find the claim of volume %s: %w", handle, err)
	}
	e.recorder.Event(about, kind, reason, fmt.Sprintf("RDS volume %s on node %s: %s", handle, e.node, message))
	return nil
}

// about is the claim of a volume. A PersistentVolume with a name of an
// administrator's choice is not found by the volume's handle.
func (e *VolumeEvents) about(ctx context.Context, handle string) (*corev1.ObjectReference, error) {
	h, err := rds.ParseHandle(handle)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, eventReadTimeout)
	defer cancel()
	for _, name := range rds.NamesOf(h.Slot) {
		pv, err := e.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		source := pv.Spec.CSI
		if source != nil && source.Driver == e.driver && source.VolumeHandle == handle && pv.Spec.ClaimRef != nil {
			return &corev1.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1",
				Namespace: pv.Spec.ClaimRef.Namespace, Name: pv.Spec.ClaimRef.Name, UID: pv.Spec.ClaimRef.UID,
			}, nil
		}
	}
	// kubelet gives events about its node this UID, and kubectl describe finds them by it.
	return &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: e.node, UID: types.UID(e.node)}, nil
}
