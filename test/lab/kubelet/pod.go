package kubelet

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// syncPod takes one pod one step further.
func (k *Kubelet) syncPod(ctx context.Context, pod *corev1.Pod, b Behaviour) (time.Duration, error) {
	state := k.states[pod.UID]
	if state == nil {
		state = &podState{key: client.ObjectKeyFromObject(pod)}
		k.states[pod.UID] = state
	}
	if terminated(pod) {
		return k.endPod(ctx, pod, state, b)
	}
	if failed, asked := k.exit(pod); asked {
		if k.runs(pod) && !k.opts.Runtime.Stop(pod.UID) {
			return 0, nil // it wakes us
		}
		return 0, k.writeStatus(ctx, pod, func(s *corev1.PodStatus) { setTerminated(pod, s, failed) })
	}
	if !state.resolved {
		volumes, err := k.volumesOf(ctx, pod)
		if err != nil {
			return 0, err
		}
		state.volumes, state.resolved, state.held = volumes, true, true
	}
	if state.mounted && k.runs(pod) {
		return k.runPod(ctx, pod)
	}
	if pod.Status.Phase == corev1.PodRunning {
		return 0, nil
	}
	return k.startPod(ctx, pod, state, b)
}

// exit tells whether the pod's main process has ended: of itself, or because
// the pod is being deleted.
func (k *Kubelet) exit(pod *corev1.Pod) (failed, asked bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	failed, asked = k.exits[pod.UID]
	return failed, asked || pod.DeletionTimestamp != nil
}

func terminated(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// startPod mounts what is attached and then runs the pod.
func (k *Kubelet) startPod(ctx context.Context, pod *corev1.Pod, state *podState, b Behaviour) (time.Duration, error) {
	if !state.mounted {
		if b.NeverMount || !k.attached(state.volumes) {
			state.due = time.Time{}
			return 0, nil
		}
		if wait := state.dueIn(b.MountDelay); wait > 0 {
			return wait, nil
		}
		state.mounted, state.due = true, time.Time{}
	}
	// A real kubelet reports a volume in use before it mounts it.
	if err := k.publishInUse(ctx); err != nil {
		return 0, err
	}
	verdict := Run
	if k.opts.Admit != nil {
		verdict = k.opts.Admit(pod)
	}
	switch {
	case verdict == Fail:
		return 0, k.writeStatus(ctx, pod, func(s *corev1.PodStatus) { setTerminated(pod, s, true) })
	case verdict == Wait || b.NeverReady:
		return 0, nil
	case k.runs(pod):
		return k.runPod(ctx, pod)
	}
	return 0, k.writeStatus(ctx, pod, func(s *corev1.PodStatus) { setRunning(pod, s, k.opts.Index) })
}

// endPod unmounts what a terminated pod used and, if it is being deleted, lets
// it go.
func (k *Kubelet) endPod(ctx context.Context, pod *corev1.Pod, state *podState, b Behaviour) (time.Duration, error) {
	if state.held {
		if b.NeverUnmount {
			state.due = time.Time{}
			return 0, nil
		}
		if wait := state.dueIn(b.UnmountDelay); wait > 0 {
			return wait, nil
		}
		state.mounted, state.held, state.due = false, false, time.Time{}
	}
	if err := k.publishInUse(ctx); err != nil {
		return 0, err
	}
	if pod.DeletionTimestamp == nil {
		return 0, nil
	}
	err := k.opts.Client.Delete(ctx, pod, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID})
	return 0, client.IgnoreNotFound(err)
}

// dueIn starts a delay the first time and then says how much of it is left.
func (s *podState) dueIn(delay time.Duration) time.Duration {
	if s.due.IsZero() {
		s.due = time.Now().Add(delay)
	}
	return time.Until(s.due)
}

// volumesOf finds the attachable volumes of a pod, by its claims.
func (k *Kubelet) volumesOf(ctx context.Context, pod *corev1.Pod) ([]corev1.UniqueVolumeName, error) {
	var names []corev1.UniqueVolumeName
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		claim := &corev1.PersistentVolumeClaim{}
		key := types.NamespacedName{Namespace: pod.Namespace, Name: v.PersistentVolumeClaim.ClaimName}
		// Until the node authorizer has seen the pod here, this is forbidden.
		if err := k.opts.Client.Get(ctx, key, claim); err != nil {
			return nil, err
		}
		if claim.Status.Phase != corev1.ClaimBound {
			return nil, fmt.Errorf("claim %s is not bound", key)
		}
		volume := &corev1.PersistentVolume{}
		if err := k.opts.Client.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, volume); err != nil {
			return nil, err
		}
		if csi := volume.Spec.CSI; csi != nil {
			names = append(names, UniqueVolumeName(csi.Driver, csi.VolumeHandle))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// UniqueVolumeName is the name a CSI volume has in a node's status.
func UniqueVolumeName(driver, handle string) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/" + driver + "^" + handle)
}

// attached tells whether the node's status says that all volumes are.
func (k *Kubelet) attached(volumes []corev1.UniqueVolumeName) bool {
	node, ok := k.node.Get(client.ObjectKey{Name: k.opts.Name})
	if !ok {
		return false
	}
	for _, want := range volumes {
		if !slices.ContainsFunc(node.Status.VolumesAttached, func(v corev1.AttachedVolume) bool { return v.Name == want }) {
			return false
		}
	}
	return true
}

func (k *Kubelet) writeStatus(ctx context.Context, pod *corev1.Pod, change func(*corev1.PodStatus)) error {
	changed := pod.DeepCopy()
	change(&changed.Status)
	return client.IgnoreNotFound(k.opts.Client.Status().Patch(ctx, changed, client.StrategicMergeFrom(pod)))
}

func setRunning(pod *corev1.Pod, s *corev1.PodStatus, index int) {
	now := metav1.Now()
	s.Phase = corev1.PodRunning
	s.StartTime = &now
	s.HostIP = hostIP(index)
	s.HostIPs = []corev1.HostIP{{IP: s.HostIP}}
	// No address of anything; KubeVirt only copies it.
	s.PodIP = fmt.Sprintf("198.18.%d.%d", index%256, 1+int(pod.UID[0])%250)
	s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	for _, condition := range []corev1.PodConditionType{
		corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady,
	} {
		setCondition(s, condition, corev1.ConditionTrue, "", "")
	}
	s.InitContainerStatuses = statuses(pod.Spec.InitContainers, corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: now, FinishedAt: now},
	})
	s.ContainerStatuses = statuses(pod.Spec.Containers, corev1.ContainerState{
		Running: &corev1.ContainerStateRunning{StartedAt: now},
	})
}

func setTerminated(pod *corev1.Pod, s *corev1.PodStatus, failed bool) {
	now := metav1.Now()
	end := &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: now, FinishedAt: now}
	s.Phase = corev1.PodSucceeded
	if failed {
		s.Phase = corev1.PodFailed
		end.Reason, end.ExitCode = "Error", 1
	}
	for _, condition := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		setCondition(s, condition, corev1.ConditionFalse, "PodCompleted", "")
	}
	s.ContainerStatuses = statuses(pod.Spec.Containers, corev1.ContainerState{Terminated: end})
}

func statuses(containers []corev1.Container, state corev1.ContainerState) []corev1.ContainerStatus {
	list := make([]corev1.ContainerStatus, len(containers))
	running := state.Running != nil
	for i, c := range containers {
		list[i] = corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: "lab", ContainerID: "lab://" + c.Name,
			State: state, Ready: running || state.Terminated.ExitCode == 0, Started: &running,
		}
	}
	return list
}

func setCondition(s *corev1.PodStatus, kind corev1.PodConditionType, status corev1.ConditionStatus, reason, message string) {
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if c.Type != kind {
			continue
		}
		if c.Status != status {
			c.LastTransitionTime = metav1.Now()
		}
		c.Status, c.Reason, c.Message = status, reason, message
		return
	}
	s.Conditions = append(s.Conditions, corev1.PodCondition{
		Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.Now(),
	})
}
