package kubelet

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Runtime runs the containers of pods for real. Pods that it leaves alone a
// kubelet plays.
type Runtime interface {
	// Runs tells whether the pod is the runtime's.
	Runs(pod *corev1.Pod) bool
	// Sync starts what is not running yet, and says how the containers are. With an
	// error they wait; it is worth another try.
	Sync(ctx context.Context, pod *corev1.Pod, host Host) (Observed, error)
	// Stop asks the containers to end, and tells whether they have; of a pod that does
	// not run they have.
	Stop(pod types.UID) (ended bool)
}

// Host is the node that a pod runs on.
type Host struct {
	Node, IP string
	// Client has the rights of the node.
	Client client.Client
	// Changed is called when Sync or Stop would say something new.
	Changed func()
}

// Observed is how a pod's containers are.
type Observed struct {
	PodIP      string
	Containers []corev1.ContainerStatus
}

// startAgain is the pause before a pod that could not be started is tried again.
const startAgain = time.Second

func (k *Kubelet) runs(pod *corev1.Pod) bool {
	return k.opts.Runtime != nil && k.opts.Runtime.Runs(pod)
}

// runPod lets the runtime run a pod and reports how it is.
func (k *Kubelet) runPod(ctx context.Context, pod *corev1.Pod) (time.Duration, error) {
	host := Host{Node: k.opts.Name, IP: hostIP(k.opts.Index), Client: k.opts.Client, Changed: k.Wake}
	observed, problem := k.opts.Runtime.Sync(ctx, pod, host)
	changed := pod.DeepCopy()
	setObserved(&changed.Status, host, observed)
	if !equality.Semantic.DeepEqual(changed.Status, pod.Status) {
		if err := client.IgnoreNotFound(k.opts.Client.Status().Patch(ctx, changed, client.StrategicMergeFrom(pod))); err != nil {
			return 0, err
		}
	}
	if problem != nil {
		k.opts.Log.Printf("kubelet %s: pod %s/%s does not start: %v", k.opts.Name, pod.Namespace, pod.Name, problem)
		return startAgain, nil
	}
	return 0, nil
}

func setObserved(s *corev1.PodStatus, host Host, o Observed) {
	if s.StartTime == nil {
		now := metav1.Now()
		s.StartTime = &now
	}
	s.HostIP, s.HostIPs = host.IP, []corev1.HostIP{{IP: host.IP}}
	if o.PodIP != "" {
		s.PodIP, s.PodIPs = o.PodIP, []corev1.PodIP{{IP: o.PodIP}}
	}
	s.ContainerStatuses = o.Containers
	s.Phase = corev1.PodPending
	var unready []string
	for _, c := range o.Containers {
		if c.State.Running != nil || c.LastTerminationState.Terminated != nil {
			s.Phase = corev1.PodRunning
		}
		if !c.Ready {
			unready = append(unready, c.Name)
		}
	}
	setCondition(s, corev1.PodReadyToStartContainers, corev1.ConditionTrue, "", "")
	setCondition(s, corev1.PodInitialized, corev1.ConditionTrue, "", "")
	ready, reason, message := corev1.ConditionTrue, "", ""
	if len(unready) > 0 {
		ready, reason, message = corev1.ConditionFalse, "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	}
	setCondition(s, corev1.ContainersReady, ready, reason, message)
	setCondition(s, corev1.PodReady, ready, reason, message)
}
