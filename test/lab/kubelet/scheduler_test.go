package kubelet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestFits(t *testing.T) {
	requires := func(key string, op corev1.NodeSelectorOperator, values ...string) corev1.PodSpec {
		return corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}},
			}}},
		}}}
	}
	taint := corev1.Taint{Key: "off", Value: "yes", Effect: corev1.TaintEffectNoSchedule}
	for name, tc := range map[string]struct {
		pod    corev1.PodSpec
		change func(*corev1.Node)
		want   bool
	}{
		"anything on a ready node":    {want: true},
		"nothing on a node not ready": {change: func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }},
		"nothing on a cordoned node":  {change: func(n *corev1.Node) { n.Spec.Unschedulable = true }},
		"the selected node":           {pod: corev1.PodSpec{NodeSelector: map[string]string{"zone": "1"}}, want: true},
		"another selected node":       {pod: corev1.PodSpec{NodeSelector: map[string]string{"zone": "2"}}},
		"In":                          {pod: requires("zone", corev1.NodeSelectorOpIn, "0", "1"), want: true},
		"NotIn":                       {pod: requires("zone", corev1.NodeSelectorOpNotIn, "1")},
		"Exists":                      {pod: requires("zone", corev1.NodeSelectorOpExists), want: true},
		"DoesNotExist":                {pod: requires("zone", corev1.NodeSelectorOpDoesNotExist)},
		"a tainted node":              {change: func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{taint} }},
		"a tolerated taint": {
			pod:    corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: "off", Operator: corev1.TolerationOpExists}}},
			change: func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{taint} },
			want:   true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"zone": "1"}}}
			node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
			if tc.change != nil {
				tc.change(node)
			}
			if got := fits(&corev1.Pod{Spec: tc.pod}, node); got != tc.want {
				t.Errorf("fits = %v", got)
			}
		})
	}
}

func TestAntiAffinityKeepsATargetOffItsSource(t *testing.T) {
	labels := map[string]string{"vm": "one"}
	pod := func(uid types.UID, node string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", UID: uid, Labels: labels},
			Spec:       corev1.PodSpec{NodeName: node},
		}
	}
	source, target := pod("source", "a"), pod("target", "")
	target.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			LabelSelector: &metav1.LabelSelector{MatchLabels: labels}, TopologyKey: corev1.LabelHostname,
		}},
	}}
	s := &Scheduler{}
	pods := []*corev1.Pod{source, target}
	on := func(name string) *corev1.Node { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	if s.affine(target, on("a"), pods) {
		t.Error("the target may run beside its source")
	}
	if !s.affine(target, on("b"), pods) {
		t.Error("the target may not run elsewhere")
	}
	source.Status.Phase = corev1.PodSucceeded
	if !s.affine(target, on("a"), pods) {
		t.Error("a launcher that has ended keeps its node")
	}
}
