package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// contents is what a namespace holds of interest.
type contents struct {
	pods       []corev1.Pod
	migrations []kubevirtv1.VirtualMachineInstanceMigration
	unserved   bool // the cluster knows no migrations at all
}

// MayShare grants a second node for the live migration of a virtual machine, by what
// is read live now: the volume's claim, the pods that use it, and the migrations of
// its namespace. A refusal wraps rds.ErrInUse; any other error means that the API
// could not be asked.
func (c *Cluster) MayShare(ctx context.Context, node, holder string, handles ...string) error {
	claims, err := c.claims(ctx, handles)
	if err != nil {
		return err
	}
	if len(claims) == 0 {
		return fmt.Errorf("%w by node %s, and no PersistentVolume of it is bound to a claim, so no live migration can be told", rds.ErrInUse, holder)
	}
	s := &sharing{node: node, holder: holder, pods: map[types.UID]*corev1.Pod{}, migrations: map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration{}}
	seen := map[string]bool{}
	for claim := range claims {
		if seen[claim.Namespace] {
			continue
		}
		seen[claim.Namespace] = true
		had, err := c.contents(ctx, claim.Namespace)
		if err != nil {
			return err
		}
		s.unserved = s.unserved || had.unserved
		for i := range had.migrations {
			s.migrations[had.migrations[i].UID] = &had.migrations[i]
		}
		for i := range had.pods {
			c.place(s, &had.pods[i], claims)
		}
	}
	byName := func(a, b *corev1.Pod) int { return strings.Compare(podName(a), podName(b)) }
	slices.SortFunc(s.here, byName)
	slices.SortFunc(s.there, byName)
	return s.decide()
}

// place adds a pod to what is known.
func (c *Cluster) place(s *sharing, pod *corev1.Pod, claims map[types.NamespacedName]bool) {
	s.pods[pod.UID] = pod
	switch {
	case ended(pod) || !uses(pod, claims):
	case c.isNode(pod.Spec.NodeName, s.holder):
		s.there = append(s.there, pod)
	case c.isNode(pod.Spec.NodeName, s.node):
		s.here = append(s.here, pod)
	}
}

// isNode reports whether the driver knows a node under the id, or, where its CSINode
// is gone, under the key that ledgers hold.
func (c *Cluster) isNode(name, id string) bool {
	if name == "" {
		return false // not scheduled yet
	}
	if had, found, err := c.nodes.GetStore().GetByKey(name); err == nil && found {
		for _, driver := range had.(*storagev1.CSINode).Spec.Drivers {
			return driver.NodeID == id || c.nodeKey(driver.NodeID) == id
		}
	}
	return name == id || c.nodeKey(name) == id
}

// claims are those that PersistentVolumes of the handles are bound to.
func (c *Cluster) claims(ctx context.Context, handles []string) (map[types.NamespacedName]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, liveReadTimeout)
	defer cancel()
	var found []corev1.PersistentVolume
	for _, handle := range handles {
		had, err := c.volumes.GetIndexer().ByIndex(byHandle, handle)
		if err != nil {
			return nil, err
		}
		for _, object := range had {
			name := object.(*corev1.PersistentVolume).Name
			pv, err := c.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("get PersistentVolume %s: %w", name, err)
			}
			found = append(found, *pv)
		}
	}
	if len(found) == 0 {
		list, err := c.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list PersistentVolumes: %w", err)
		}
		found = list.Items
	}
	claims := map[types.NamespacedName]bool{}
	for i := range found {
		if claim := found[i].Spec.ClaimRef; claim != nil && c.isVolume(&found[i].Spec, handles) {
			claims[types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name}] = true
		}
	}
	return claims, nil
}

// contents reads a namespace live. Those who ask at the same time, as for the disks
// of a drained node, share one read that begins after each of them has asked.
func (c *Cluster) contents(ctx context.Context, namespace string) (contents, error) {
	c.mu.Lock()
	reader := c.namespaces[namespace]
	if reader == nil {
		reader = &fresh[contents]{load: func(ctx context.Context) (contents, error) { return c.readContents(ctx, namespace) }}
		c.namespaces[namespace] = reader
	}
	c.mu.Unlock()
	return reader.get(ctx)
}

// readContents lists pods first: whatever migration a pod was made for is in the
// later list of migrations.
func (c *Cluster) readContents(ctx context.Context, namespace string) (contents, error) {
	pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return contents{}, fmt.Errorf("list the pods of namespace %s: %w", namespace, err)
	}
	had := contents{pods: pods.Items}
	const resource = "virtualmachineinstancemigrations"
	version := kubevirtv1.GroupVersion
	text, err := c.client.CoreV1().RESTClient().Get().AbsPath("/apis", version.Group, version.Version, "namespaces", namespace, resource).
		SetHeader("Accept", "application/json").Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		// A list in a namespace that does not exist is empty; only a kind that is not
		// served is not found.
		had.unserved = true
		return had, nil
	}
	if err != nil {
		return contents{}, fmt.Errorf("list the %s of namespace %s: %w", resource, namespace, err)
	}
	var list kubevirtv1.VirtualMachineInstanceMigrationList
	if err := json.Unmarshal(text, &list); err != nil {
		return contents{}, fmt.Errorf("read the %s of namespace %s: %w", resource, namespace, err)
	}
	had.migrations = list.Items
	return had, nil
}
