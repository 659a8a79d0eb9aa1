package soak

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/watch"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// watcher looks, all the time, for what must never be: a volume on three nodes, a
// volume in use by two VMs on two nodes, a gauge below zero.
type watcher struct {
	pods        *watch.Store[*corev1.Pod]
	attachments *watch.Store[*storagev1.VolumeAttachment]
	claims      *watch.Store[*corev1.PersistentVolumeClaim]

	mu    sync.Mutex
	never []string
}

func startWatcher(ctx context.Context, s *stack.Stack) (*watcher, error) {
	w := &watcher{}
	var err error
	nothing := func(*corev1.PersistentVolumeClaim) {}
	if w.claims, err = watch.Start(ctx, s.Client, "", &corev1.PersistentVolumeClaim{}, &corev1.PersistentVolumeClaimList{}, nothing); err != nil {
		return nil, err
	}
	changed := make(chan struct{}, 1)
	wake := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	if w.pods, err = watch.Start(ctx, s.Client, "", &corev1.Pod{}, &corev1.PodList{}, func(*corev1.Pod) { wake() }); err != nil {
		return nil, err
	}
	w.attachments, err = watch.Start(ctx, s.Client, "", &storagev1.VolumeAttachment{}, &storagev1.VolumeAttachmentList{},
		func(*storagev1.VolumeAttachment) { wake() })
	if err != nil {
		return nil, err
	}
	go w.follow(ctx, s, changed)
	return w, nil
}

func (w *watcher) follow(ctx context.Context, s *stack.Stack, changed <-chan struct{}) {
	scrapes := time.NewTicker(time.Second)
	defer scrapes.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			w.add(neverShared(w.attachments.List(), w.pods.List(), w.claims.List())...)
		case <-scrapes.C:
			if series, err := s.Scrape(ctx, s.Operators[0]); err == nil { // it may be dead just now
				w.add(belowZero(series)...)
			}
		}
	}
}

func (w *watcher) add(found ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.never = append(w.never, found...)
}

// found is what was seen that must never be.
func (w *watcher) found() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.never
}

// neverShared finds volumes on more than two nodes, and volumes that running pods of
// different owners use on different nodes.
func neverShared(attachments []*storagev1.VolumeAttachment, pods []*corev1.Pod, claims []*corev1.PersistentVolumeClaim) []string {
	nodes := map[string][]string{}
	for _, va := range attachments {
		if pv := va.Spec.Source.PersistentVolumeName; pv != nil && va.Status.Attached {
			nodes[*pv] = append(nodes[*pv], va.Spec.NodeName)
		}
	}
	var found []string
	for _, claim := range claims {
		on := nodes[claim.Spec.VolumeName]
		if len(on) < 2 {
			continue
		}
		if len(on) > 2 {
			found = append(found, fmt.Sprintf("volume %s is attached to %s", claim.Spec.VolumeName, strings.Join(on, ", ")))
		}
		users := map[string]string{} // owner by node
		for _, pod := range pods {
			if pod.Namespace != claim.Namespace || pod.Status.Phase != corev1.PodRunning || !uses(pod, claim.Name) {
				continue
			}
			for node, other := range users {
				if owner := ownerOf(pod); node != pod.Spec.NodeName && other != owner {
					found = append(found, fmt.Sprintf("claim %s is used by %s on %s and by %s on %s", claim.Name, other, node, owner, pod.Spec.NodeName))
				}
			}
			users[pod.Spec.NodeName] = ownerOf(pod)
		}
	}
	return found
}

func uses(pod *corev1.Pod, claim string) bool {
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim {
			return true
		}
	}
	return false
}

// ownerOf is the VM of a launcher pod or of a hotplug pod, whose launcher's name
// begins with the VM's; any other pod owns itself.
func ownerOf(pod *corev1.Pod) string {
	owner := metav1.GetControllerOf(pod)
	switch {
	case owner == nil:
		return "pod " + pod.Name
	case owner.Kind == "Pod": // virt-launcher-NAME-xxxxx
		name := strings.TrimPrefix(owner.Name, "virt-launcher-")
		return name[:max(0, strings.LastIndexByte(name, '-'))]
	}
	return owner.Name
}

// belowZero finds series of ours that are.
func belowZero(series stack.Series) []string {
	var found []string
	for name, family := range series {
		if !strings.HasPrefix(name, "rds_csi_") {
			continue
		}
		for _, m := range family.GetMetric() {
			if v := m.GetGauge().GetValue() + m.GetCounter().GetValue(); v < 0 {
				found = append(found, fmt.Sprintf("%s%v is %v", name, m.GetLabel(), v))
			}
		}
	}
	return found
}
