package lab

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// CreateNamespace creates a namespace and waits until pods can be made in it.
func (c *Cluster) CreateNamespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := c.Client.Create(ctx, namespace); err != nil {
		return err
	}
	if c.opts.WithoutControllers {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "default"}}
		return c.Client.Create(ctx, account)
	}
	return c.WaitFor(ctx, "the default service account of namespace "+name, func(ctx context.Context) (bool, error) {
		return found(c.Client.Get(ctx, client.ObjectKey{Namespace: name, Name: "default"}, &corev1.ServiceAccount{}))
	})
}

// CreateCSIDriver creates the CSIDriver object of Driver, if it is not there:
// volumes need attaching.
func (c *Cluster) CreateCSIDriver(ctx context.Context) error {
	required, noPodInfo := true, false
	driver := &storagev1.CSIDriver{
		ObjectMeta: metav1.ObjectMeta{Name: Driver},
		Spec:       storagev1.CSIDriverSpec{AttachRequired: &required, PodInfoOnMount: &noPodInfo},
	}
	return client.IgnoreAlreadyExists(c.Client.Create(ctx, driver))
}

// Volume describes a PersistentVolume and the claim that is bound to it.
type Volume struct {
	Namespace, Claim string
	// PV and Handle are by default made of namespace and claim.
	PV, Handle string
	// AccessMode is by default ReadWriteMany, Mode Block, Size 10Gi.
	AccessMode corev1.PersistentVolumeAccessMode
	Mode       corev1.PersistentVolumeMode
	Size       string
	// Attributes are the PV's volume attributes.
	Attributes map[string]string
	// Foreign, if set, is where the volume comes from instead of Driver.
	Foreign *corev1.PersistentVolumeSource
}

// CreateVolume creates a PersistentVolume and a claim and waits until they are
// bound.
func (c *Cluster) CreateVolume(ctx context.Context, v Volume) (*corev1.PersistentVolumeClaim, error) {
	v.setDefaults()
	if err := c.CreateCSIDriver(ctx); err != nil {
		return nil, err
	}
	capacity, noClass := resource.MustParse(v.Size), ""
	modes := []corev1.PersistentVolumeAccessMode{v.AccessMode}
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: v.PV},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: capacity},
			AccessModes: modes, VolumeMode: &v.Mode,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			ClaimRef:                      &corev1.ObjectReference{Namespace: v.Namespace, Name: v.Claim},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: Driver, VolumeHandle: v.Handle, VolumeAttributes: v.Attributes,
			}},
		},
	}
	if v.Foreign != nil {
		pv.Spec.PersistentVolumeSource = *v.Foreign
	}
	if err := c.Client.Create(ctx, pv); err != nil {
		return nil, err
	}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: v.Namespace, Name: v.Claim},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, VolumeMode: &v.Mode, VolumeName: v.PV, StorageClassName: &noClass,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: capacity}},
		},
	}
	if err := c.Client.Create(ctx, claim); err != nil {
		return nil, err
	}
	key := client.ObjectKeyFromObject(claim)
	return claim, c.WaitFor(ctx, fmt.Sprintf("claim %s to be bound", key), func(ctx context.Context) (bool, error) {
		err := c.Client.Get(ctx, key, claim)
		return claim.Status.Phase == corev1.ClaimBound, err
	})
}

func (v *Volume) setDefaults() {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&v.PV, "pv-"+v.Namespace+"-"+v.Claim)
	set(&v.Handle, v.PV)
	set(&v.Size, "10Gi")
	set((*string)(&v.AccessMode), string(corev1.ReadWriteMany))
	set((*string)(&v.Mode), string(corev1.PersistentVolumeBlock))
}

// NewPod is a pod that uses claims as block devices; node, if not empty, is
// where it runs.
func NewPod(namespace, name, node string, claims ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			NodeName:   node,
			Containers: []corev1.Container{{Name: "main", Image: "lab"}},
		},
	}
	for i, claim := range claims {
		volume := fmt.Sprintf("disk%d", i)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
			Name: volume,
			VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
			},
		})
		pod.Spec.Containers[0].VolumeDevices = append(pod.Spec.Containers[0].VolumeDevices,
			corev1.VolumeDevice{Name: volume, DevicePath: "/dev/" + volume})
	}
	return pod
}

// WaitPod waits until a pod is in a phase and, if it is Running, ready; the
// phase "" is for "gone".
func (c *Cluster) WaitPod(ctx context.Context, pod *corev1.Pod, phase corev1.PodPhase) error {
	key := client.ObjectKeyFromObject(pod)
	what := fmt.Sprintf("pod %s to be %q", key, phase)
	return c.WaitFor(ctx, what, func(ctx context.Context) (bool, error) {
		err := c.Client.Get(ctx, key, pod)
		if phase == "" || err != nil {
			return apierrors.IsNotFound(err) && phase == "", client.IgnoreNotFound(err)
		}
		if pod.Status.Phase != phase {
			return false, nil
		}
		return phase != corev1.PodRunning || PodReady(pod), nil
	})
}

// PodReady reports whether a pod is ready.
func PodReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Attachments are the nodes that have a VolumeAttachment for a PersistentVolume
// and whether each is attached.
func (c *Cluster) Attachments(ctx context.Context, pv string) (map[string]bool, error) {
	list := &storagev1.VolumeAttachmentList{}
	if err := c.Client.List(ctx, list); err != nil {
		return nil, err
	}
	nodes := map[string]bool{}
	for _, va := range list.Items {
		if name := va.Spec.Source.PersistentVolumeName; name != nil && *name == pv {
			nodes[va.Spec.NodeName] = va.Status.Attached
		}
	}
	return nodes, nil
}

// Attachment is the VolumeAttachment of a PersistentVolume on a node.
func (c *Cluster) Attachment(ctx context.Context, pv, node string) (*storagev1.VolumeAttachment, error) {
	list := &storagev1.VolumeAttachmentList{}
	if err := c.Client.List(ctx, list); err != nil {
		return nil, err
	}
	for i := range list.Items {
		va := &list.Items[i]
		if name := va.Spec.Source.PersistentVolumeName; name != nil && *name == pv && va.Spec.NodeName == node {
			return va, nil
		}
	}
	return nil, fmt.Errorf("volume %s has no attachment on node %s", pv, node)
}

// WaitAttached waits until a PersistentVolume has attached VolumeAttachments on
// exactly these nodes.
func (c *Cluster) WaitAttached(ctx context.Context, pv string, nodes ...string) error {
	var last map[string]bool
	err := c.WaitFor(ctx, fmt.Sprintf("volume %s to be attached to %v", pv, nodes), func(ctx context.Context) (bool, error) {
		var err error
		if last, err = c.Attachments(ctx, pv); err != nil || len(last) != len(nodes) {
			return false, err
		}
		for _, node := range nodes {
			if !last[node] {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("%w (attachments: %v)", err, last)
	}
	return nil
}
