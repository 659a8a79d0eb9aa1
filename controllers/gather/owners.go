package gather

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// InstancesOfVolume lists the VMIs whose pods use the claim of a volume now.
func (g *Gatherer) InstancesOfVolume(ctx context.Context, pvName string) ([]types.NamespacedName, error) {
	var pv corev1.PersistentVolume
	if err := g.Client.Get(ctx, types.NamespacedName{Name: pvName}, &pv); err != nil {
		return nil, ignoreNotFound(err, "read volume %s", pvName)
	}
	claim := pv.Spec.ClaimRef
	if claim == nil || pv.Spec.CSI == nil || pv.Spec.CSI.Driver != g.Driver {
		return nil, nil
	}
	var pods corev1.PodList
	if err := g.Client.List(ctx, &pods, client.InNamespace(claim.Namespace), client.MatchingFields{byClaim: claim.Name}); err != nil {
		return nil, fmt.Errorf("list the pods of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	var keys []types.NamespacedName
	for i := range pods.Items {
		if key, ok := g.InstanceOfPod(ctx, &pods.Items[i]); ok {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// InstanceOfPod is the VMI of a launcher pod, or of the hotplug pod that a
// launcher pod owns.
func (g *Gatherer) InstanceOfPod(ctx context.Context, pod *corev1.Pod) (types.NamespacedName, bool) {
	if name := instanceOf(pod); name != "" {
		return types.NamespacedName{Namespace: pod.Namespace, Name: name}, true
	}
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != "Pod" {
		return types.NamespacedName{}, false
	}
	var launcher corev1.Pod
	if err := g.Client.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: owner.Name}, &launcher); err != nil {
		return types.NamespacedName{}, false
	}
	name := instanceOf(&launcher)
	return types.NamespacedName{Namespace: pod.Namespace, Name: name}, name != ""
}
