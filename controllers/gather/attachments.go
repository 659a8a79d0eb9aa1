package gather

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// nodeIDAnnotation is where csi-attacher keeps the node's id in an attachment.
const nodeIDAnnotation = "csi.alpha.kubernetes.io/node-id"

// Volume is a PersistentVolume of ours that belongs to a claim.
type Volume struct {
	Name   string
	UID    types.UID
	Handle string
	Claim  corev1.ObjectReference
	// Instances are the VMIs whose live pods use it.
	Instances []types.NamespacedName
	Snapshot  unexplained.Snapshot
}

// Ours reports whether a PersistentVolume is of our driver and belongs to a claim.
func (g *Gatherer) Ours(pv *corev1.PersistentVolume) bool {
	return pv.Spec.CSI != nil && pv.Spec.CSI.Driver == g.Driver && pv.Spec.ClaimRef != nil
}

// Volume reads a volume, its attachments and the pods that use it; nil when
// it is gone or none of ours. The caller sets Limits, Migrating and Memory.
func (g *Gatherer) Volume(ctx context.Context, name string, now time.Time) (*Volume, error) {
	var pv corev1.PersistentVolume
	if err := g.Client.Get(ctx, types.NamespacedName{Name: name}, &pv); err != nil {
		return nil, ignoreNotFound(err, "read volume %s", name)
	}
	if !g.Ours(&pv) {
		return nil, nil
	}
	handle := pv.Spec.CSI.VolumeHandle
	v := &Volume{Name: name, UID: pv.UID, Handle: handle, Claim: corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim",
		Namespace: pv.Spec.ClaimRef.Namespace, Name: pv.Spec.ClaimRef.Name, UID: pv.Spec.ClaimRef.UID}}
	v.Snapshot = unexplained.Snapshot{Now: now, Claim: v.Claim.Name, Slot: handle, Sharing: sharing(&pv), Told: g.Views.Told(handle, now)}
	if h, err := rds.ParseHandle(handle); err == nil {
		v.Snapshot.Slot = h.Slot
	}
	if err := g.attachments(ctx, v); err != nil {
		return nil, err
	}
	return v, g.users(ctx, v)
}

func sharing(pv *corev1.PersistentVolume) unexplained.Sharing {
	switch {
	case !slices.Contains(pv.Spec.AccessModes, corev1.ReadWriteMany):
		return unexplained.OneNode
	case pv.Spec.CSI.VolumeAttributes[sharingAttribute] == sharingAny:
		return unexplained.AnyTwo
	default:
		return unexplained.LiveMigration
	}
}

// attachments reads a volume's VolumeAttachments and the state of their nodes.
func (g *Gatherer) attachments(ctx context.Context, v *Volume) error {
	var list storagev1.VolumeAttachmentList
	if err := g.Client.List(ctx, &list, client.MatchingFields{byPV: v.Name}); err != nil {
		return fmt.Errorf("list the attachments of volume %s: %w", v.Name, err)
	}
	for i := range list.Items {
		va := &list.Items[i]
		known := attachmentOf(va)
		a := unexplained.Attachment{Name: va.Name, UID: string(va.UID), Node: known.Node, NodeID: va.Annotations[nodeIDAnnotation],
			Created: known.Created, Attached: known.Attached, Error: known.Error}
		if a.NodeID == "" {
			a.NodeID = a.Node
		}
		if va.DeletionTimestamp != nil {
			a.Deleting = va.DeletionTimestamp.Time
		}
		var node corev1.Node
		switch err := g.Client.Get(ctx, types.NamespacedName{Name: a.Node}, &node); {
		case apierrors.IsNotFound(err):
			a.NodeGone = true
		case err != nil:
			return fmt.Errorf("read node %s: %w", a.Node, err)
		default:
			a.Ready = NodeReady(&node)
		}
		v.Snapshot.Attachments = append(v.Snapshot.Attachments, a)
	}
	return nil
}

// users reads the pods that use a volume's claim, and which VMI each is of.
func (g *Gatherer) users(ctx context.Context, v *Volume) error {
	var list corev1.PodList
	if err := g.Client.List(ctx, &list, client.InNamespace(v.Claim.Namespace), client.MatchingFields{byClaim: v.Claim.Name}); err != nil {
		return fmt.Errorf("list the pods of claim %s/%s: %w", v.Claim.Namespace, v.Claim.Name, err)
	}
	for i := range list.Items {
		pod := &list.Items[i]
		if !present(pod) {
			continue
		}
		switch orphan, err := g.orphan(ctx, pod); {
		case err != nil:
			return err
		case orphan:
			continue
		}
		key, ofInstance := g.InstanceOfPod(ctx, pod)
		user := unexplained.Pod{Name: pod.Name, UID: string(pod.UID), Node: pod.Spec.NodeName, VM: key.Name}
		if pod.DeletionTimestamp != nil {
			user.Leaving = pod.DeletionTimestamp.Time // the grace is in it
		}
		v.Snapshot.Pods = append(v.Snapshot.Pods, user)
		if ofInstance && live(pod) && !slices.Contains(v.Instances, key) {
			v.Instances = append(v.Instances, key)
		}
	}
	return nil
}

// present reports a pod that may use its volumes now or soon: bound to a node and not
// over.
func present(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// live reports one that is not on its way out.
func live(pod *corev1.Pod) bool { return present(pod) && pod.DeletionTimestamp == nil }

// orphan reports a hotplug pod that its launcher left behind: it is next to go.
func (g *Gatherer) orphan(ctx context.Context, pod *corev1.Pod) (bool, error) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != "Pod" {
		return false, nil
	}
	err := g.Client.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: owner.Name}, &corev1.Pod{})
	return apierrors.IsNotFound(err), ignoreNotFound(err, "read pod %s/%s", pod.Namespace, owner.Name)
}

// VolumesOfPod lists the volumes behind the claims of a pod, ours or not.
func (g *Gatherer) VolumesOfPod(ctx context.Context, pod *corev1.Pod) ([]string, error) {
	var names []string
	for _, claim := range claimsOf(pod) {
		var pvc corev1.PersistentVolumeClaim
		key := types.NamespacedName{Namespace: pod.Namespace, Name: claim}
		if err := ignoreNotFound(g.Client.Get(ctx, key, &pvc), "read claim %s", key); err != nil {
			return nil, err
		}
		if pvc.Spec.VolumeName != "" {
			names = append(names, pvc.Spec.VolumeName)
		}
	}
	return names, nil
}

// VolumesOfInstance lists the volumes of ours that the live pods of a VMI use.
func (g *Gatherer) VolumesOfInstance(ctx context.Context, key types.NamespacedName) ([]string, error) {
	pods, err := g.podsOfInstance(ctx, key)
	if err != nil {
		return nil, err
	}
	var ours []string
	for i := range pods {
		if !live(&pods[i]) {
			continue
		}
		names, err := g.VolumesOfPod(ctx, &pods[i])
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			var pv corev1.PersistentVolume
			if err := g.Client.Get(ctx, types.NamespacedName{Name: name}, &pv); client.IgnoreNotFound(err) != nil {
				return nil, fmt.Errorf("read volume %s: %w", name, err)
			}
			if g.Ours(&pv) && !slices.Contains(ours, name) {
				ours = append(ours, name)
			}
		}
	}
	return ours, nil
}

// podsOfInstance reads a VMI's launcher pods and the hotplug pods that they own.
func (g *Gatherer) podsOfInstance(ctx context.Context, key types.NamespacedName) ([]corev1.Pod, error) {
	var launchers corev1.PodList
	if err := g.Client.List(ctx, &launchers, client.InNamespace(key.Namespace), client.MatchingFields{byInstance: key.Name}); err != nil {
		return nil, fmt.Errorf("list the pods of VMI %s: %w", key, err)
	}
	pods := launchers.Items
	for i := range launchers.Items {
		var hotplug corev1.PodList
		owner := client.MatchingFields{byOwnerUID: string(launchers.Items[i].UID)}
		if err := g.Client.List(ctx, &hotplug, client.InNamespace(key.Namespace), owner); err != nil {
			return nil, fmt.Errorf("list the hotplug pods of %s: %w", launchers.Items[i].Name, err)
		}
		pods = append(pods, hotplug.Items...)
	}
	return pods, nil
}

// VolumesOnNode lists the volumes that have an attachment on a node, ours or not.
func (g *Gatherer) VolumesOnNode(ctx context.Context, node string) ([]string, error) {
	var list storagev1.VolumeAttachmentList
	if err := g.Client.List(ctx, &list, client.MatchingFields{byNode: node}); err != nil {
		return nil, fmt.Errorf("list the attachments on node %s: %w", node, err)
	}
	var names []string
	for i := range list.Items {
		names = append(names, nonEmpty(pvOf(&list.Items[i]))...)
	}
	return names, nil
}
