package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/watch"
)

// Scheduler binds pending pods to nodes, with the scheduler's own rights. It
// knows readiness, taints, node selectors and required (anti-)affinity on the
// host name, and then prefers the node the pod prefers, among these the one with
// the fewest pods, and by name among equals: so a test knows where its pods go. A
// pod waits until its claims are bound; one that waits for its first consumer is told
// the node.
type Scheduler struct {
	client client.WithWatch
	log    *log.Logger
	wake   chan struct{}
	pods   *watch.Store[*corev1.Pod]
	nodes  *watch.Store[*corev1.Node]
	claims *watch.Store[*corev1.PersistentVolumeClaim]

	// bound remembers bindings that the watch has not shown yet.
	bound map[types.UID]string
	told  map[types.UID]bool // pods already reported unschedulable
}

// NewScheduler makes a scheduler, which does nothing until Run.
func NewScheduler(c client.WithWatch, log *log.Logger) *Scheduler {
	return &Scheduler{
		client: c, log: log, wake: make(chan struct{}, 1),
		bound: map[types.UID]string{}, told: map[types.UID]bool{},
	}
}

// Run schedules until ctx ends, when the returned channel is closed.
func (s *Scheduler) Run(ctx context.Context) (done <-chan struct{}, err error) {
	wake := func() {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	s.pods, err = watch.Start(ctx, s.client, "", &corev1.Pod{}, &corev1.PodList{}, func(*corev1.Pod) { wake() })
	if err != nil {
		return nil, err
	}
	s.nodes, err = watch.Start(ctx, s.client, "", &corev1.Node{}, &corev1.NodeList{}, func(*corev1.Node) { wake() })
	if err != nil {
		return nil, err
	}
	s.claims, err = watch.Start(ctx, s.client, "", &corev1.PersistentVolumeClaim{}, &corev1.PersistentVolumeClaimList{}, func(*corev1.PersistentVolumeClaim) { wake() })
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.loop(ctx)
	}()
	return ended, nil
}

func (s *Scheduler) loop(ctx context.Context) {
	for {
		var retry <-chan time.Time
		if !s.sync(ctx) {
			retry = time.After(retryAfter)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-retry:
		}
	}
}

// sync binds what can be bound; false asks for another try.
func (s *Scheduler) sync(ctx context.Context) bool {
	pods := s.pods.List()
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	s.forget(pods)
	ok := true
	for _, pod := range pods {
		if s.nodeOf(pod) != "" || pod.DeletionTimestamp != nil || terminated(pod) || len(pod.Spec.SchedulingGates) > 0 {
			continue
		}
		if err := s.schedule(ctx, pod, pods); err != nil && ctx.Err() == nil {
			s.log.Printf("scheduler: pod %s/%s: %v", pod.Namespace, pod.Name, err)
			ok = false
		}
	}
	return ok
}

func (s *Scheduler) forget(pods []*corev1.Pod) {
	known := make(map[types.UID]bool, len(pods))
	for _, pod := range pods {
		known[pod.UID] = pod.Spec.NodeName == ""
	}
	for uid := range s.bound {
		if pending, exists := known[uid]; exists && !pending {
			delete(s.bound, uid)
		}
	}
	for uid := range s.told {
		if _, exists := known[uid]; !exists {
			delete(s.told, uid)
		}
	}
}

func (s *Scheduler) nodeOf(pod *corev1.Pod) string {
	return cmp.Or(pod.Spec.NodeName, s.bound[pod.UID])
}

func (s *Scheduler) schedule(ctx context.Context, pod *corev1.Pod, pods []*corev1.Pod) error {
	var best *corev1.Node
	var fewest int
	for _, node := range s.nodes.List() {
		if !fits(pod, node) || !s.affine(pod, node, pods) {
			continue
		}
		n := s.load(node.Name, pods)
		if preferred(pod, node) {
			n -= preference
		}
		if best == nil || n < fewest || n == fewest && node.Name < best.Name {
			best, fewest = node, n
		}
	}
	if best == nil {
		return s.unschedulable(ctx, pod)
	}
	if bound, err := s.bindClaims(ctx, pod, best.Name); err != nil || !bound {
		return err
	}
	binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: best.Name}}
	err := s.client.SubResource("binding").Create(ctx, pod.DeepCopy(), binding)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	s.bound[pod.UID] = best.Name
	return nil
}

// bindClaims reports whether all claims of a pod are bound, and names the node on
// those that wait to be told. A claim that changes wakes the scheduler.
func (s *Scheduler) bindClaims(ctx context.Context, pod *corev1.Pod, node string) (bool, error) {
	all := true
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		claim, ok := s.claims.Get(client.ObjectKey{Namespace: pod.Namespace, Name: v.PersistentVolumeClaim.ClaimName})
		if ok && claim.Status.Phase == corev1.ClaimBound {
			continue
		}
		all = false
		if !ok || claim.Spec.VolumeName != "" || claim.Annotations[selectedNode] != "" {
			continue
		}
		if wait, err := s.waitsForConsumer(ctx, claim); err != nil || !wait {
			return false, err
		}
		told := claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&told.ObjectMeta, selectedNode, node)
		if err := s.client.Update(ctx, told); err != nil {
			return false, client.IgnoreNotFound(err)
		}
	}
	return all, nil
}

// selectedNode is where a claim's volume is to be usable.
const selectedNode = "volume.kubernetes.io/selected-node"

func (s *Scheduler) waitsForConsumer(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName == "" {
		return false, nil
	}
	class := &storagev1.StorageClass{}
	err := s.client.Get(ctx, client.ObjectKey{Name: *claim.Spec.StorageClassName}, class)
	late := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	return late, client.IgnoreNotFound(err)
}

// preference outweighs any number of pods.
const preference = 1 << 20

func preferred(pod *corev1.Pod, node *corev1.Node) bool {
	affinity := pod.Spec.Affinity
	if affinity == nil || affinity.NodeAffinity == nil {
		return false
	}
	terms := affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	return slices.ContainsFunc(terms, func(t corev1.PreferredSchedulingTerm) bool { return matches(t.Preference, node) })
}

func (s *Scheduler) load(node string, pods []*corev1.Pod) int {
	n := 0
	for _, pod := range pods {
		if s.nodeOf(pod) == node && !terminated(pod) {
			n++
		}
	}
	return n
}

// unschedulable says so on the pod, once: KubeVirt has a deadline for it.
func (s *Scheduler) unschedulable(ctx context.Context, pod *corev1.Pod) error {
	if s.told[pod.UID] {
		return nil
	}
	changed := pod.DeepCopy()
	why := fmt.Sprintf("none of %d nodes fits; node selector %v, affinity %v",
		len(s.nodes.List()), pod.Spec.NodeSelector, pod.Spec.Affinity)
	s.log.Printf("scheduler: pod %s/%s: %s", pod.Namespace, pod.Name, why)
	setCondition(&changed.Status, corev1.PodScheduled, corev1.ConditionFalse, corev1.PodReasonUnschedulable, why)
	err := s.client.Status().Patch(ctx, changed, client.StrategicMergeFrom(pod))
	s.told[pod.UID] = err == nil
	return client.IgnoreNotFound(err)
}

// fits looks at the node alone.
func fits(pod *corev1.Pod, node *corev1.Node) bool {
	if node.Spec.Unschedulable || !ready(node) || !tolerates(pod, node) {
		return false
	}
	if !labels.SelectorFromSet(pod.Spec.NodeSelector).Matches(labels.Set(node.Labels)) {
		return false
	}
	affinity := pod.Spec.Affinity
	if affinity == nil || affinity.NodeAffinity == nil || affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	terms := affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return slices.ContainsFunc(terms, func(term corev1.NodeSelectorTerm) bool { return matches(term, node) })
}

func ready(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func tolerates(pod *corev1.Pod, node *corev1.Node) bool {
	for _, taint := range node.Spec.Taints {
		if taint.Effect == corev1.TaintEffectPreferNoSchedule {
			continue
		}
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Effect == "" || t.Effect == taint.Effect) &&
				(t.Key == "" && t.Operator == corev1.TolerationOpExists || t.Key == taint.Key &&
					(t.Operator == corev1.TolerationOpExists || t.Value == taint.Value))
		}) {
			return false
		}
	}
	return true
}

func matches(term corev1.NodeSelectorTerm, node *corev1.Node) bool {
	for _, field := range term.MatchFields { // only the name can be matched
		in := slices.Contains(field.Values, node.Name)
		if in != (field.Operator == corev1.NodeSelectorOpIn) {
			return false
		}
	}
	for _, e := range term.MatchExpressions {
		value, has := node.Labels[e.Key]
		var ok bool
		switch e.Operator {
		case corev1.NodeSelectorOpIn:
			ok = has && slices.Contains(e.Values, value)
		case corev1.NodeSelectorOpNotIn:
			ok = !has || !slices.Contains(e.Values, value)
		case corev1.NodeSelectorOpExists:
			ok = has
		case corev1.NodeSelectorOpDoesNotExist:
			ok = !has
		}
		if !ok {
			return false
		}
	}
	return true
}

// affine looks at the required (anti-)affinity to other pods of the namespace
// on the same host, which is all that KubeVirt uses.
func (s *Scheduler) affine(pod *corev1.Pod, node *corev1.Node, pods []*corev1.Pod) bool {
	affinity := pod.Spec.Affinity
	if affinity == nil {
		return true
	}
	if anti := affinity.PodAntiAffinity; anti != nil {
		for _, term := range anti.RequiredDuringSchedulingIgnoredDuringExecution {
			if s.anyMatch(term, pod, node, pods) {
				return false
			}
		}
	}
	if with := affinity.PodAffinity; with != nil {
		for _, term := range with.RequiredDuringSchedulingIgnoredDuringExecution {
			if !s.anyMatch(term, pod, node, pods) {
				return false
			}
		}
	}
	return true
}

func (s *Scheduler) anyMatch(term corev1.PodAffinityTerm, pod *corev1.Pod, node *corev1.Node, pods []*corev1.Pod) bool {
	selector, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(pods, func(other *corev1.Pod) bool {
		return other.UID != pod.UID && other.Namespace == pod.Namespace && s.nodeOf(other) == node.Name &&
			!terminated(other) && selector.Matches(labels.Set(other.Labels))
	})
}
