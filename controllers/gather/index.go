package gather

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The cache's indexes.
const (
	byInstance = "rds.vmi"   // VMIMs and launcher pods by the VMI's name
	byOwnerUID = "rds.owner" // pods by their controller's UID
	byClaim    = "rds.claim" // pods by the claims they use
	byPV       = "rds.pv"    // VolumeAttachments by the PersistentVolume's name
	byNode     = "rds.node"  // VolumeAttachments by the node
)

type index struct {
	object client.Object
	field  string
	values client.IndexerFunc
}

// AddIndexes registers the indexes of Kubernetes' own kinds that a Gatherer reads by.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	return addIndexes(ctx, indexer, []index{
		{&corev1.Pod{}, byInstance, func(o client.Object) []string { return nonEmpty(instanceOf(o)) }},
		{&corev1.Pod{}, byOwnerUID, func(o client.Object) []string { return nonEmpty(string(controllerUID(o))) }},
		{&corev1.Pod{}, byClaim, func(o client.Object) []string { return claimsOf(o.(*corev1.Pod)) }},
		{&storagev1.VolumeAttachment{}, byPV, func(o client.Object) []string {
			return nonEmpty(pvOf(o.(*storagev1.VolumeAttachment)))
		}},
		{&storagev1.VolumeAttachment{}, byNode, func(o client.Object) []string {
			return nonEmpty(o.(*storagev1.VolumeAttachment).Spec.NodeName)
		}},
	})
}

// AddMigrationIndexes registers those of KubeVirt's kinds, which must be served.
func AddMigrationIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	return addIndexes(ctx, indexer, []index{
		{&kubevirtv1.VirtualMachineInstanceMigration{}, byInstance, func(o client.Object) []string {
			return nonEmpty(o.(*kubevirtv1.VirtualMachineInstanceMigration).Spec.VMIName)
		}},
	})
}

func addIndexes(ctx context.Context, indexer client.FieldIndexer, indexes []index) error {
	for _, index := range indexes {
		if err := indexer.IndexField(ctx, index.object, index.field, index.values); err != nil {
			return fmt.Errorf("index %T by %s: %w", index.object, index.field, err)
		}
	}
	return nil
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// instanceOf is the name of the VMI that controls a launcher pod, or empty.
func instanceOf(o client.Object) string {
	if owner := metav1.GetControllerOf(o); owner != nil && owner.Kind == kubevirtv1.VirtualMachineInstanceGroupVersionKind.Kind {
		return owner.Name
	}
	return ""
}

func controllerUID(o client.Object) types.UID {
	if owner := metav1.GetControllerOf(o); owner != nil {
		return owner.UID
	}
	return ""
}

// claimsOf lists the claims that a pod uses, those made for it alone included.
func claimsOf(pod *corev1.Pod) []string {
	var claims []string
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			claims = append(claims, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			claims = append(claims, pod.Name+"-"+v.Name)
		}
	}
	return claims
}

func pvOf(va *storagev1.VolumeAttachment) string {
	if va.Spec.Source.PersistentVolumeName == nil {
		return ""
	}
	return *va.Spec.Source.PersistentVolumeName
}
