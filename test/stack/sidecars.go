package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
)

// sidecars are those of the controller's pod that the lab has programs for.
var sidecars = []string{"csi-attacher", "csi-provisioner", "csi-resizer"}

// impatient are flags that only make tests wait less.
var impatient = map[string]string{"csi-provisioner": "--capacity-poll-interval=2s"}

// startSidecars runs them with the flags that config/csi gives them.
func (s *Stack) startSidecars(ctx context.Context) error {
	deployment, err := s.deployment()
	if err != nil {
		return err
	}
	pod, err := s.createPod(ctx, deployment)
	if err != nil {
		return err
	}
	s.Sidecars = map[string]*lab.Process{}
	for _, c := range deployment.Spec.Template.Spec.Containers {
		if !slices.Contains(sidecars, c.Name) {
			continue
		}
		// The lab's own address and rights replace the pod's.
		args := slices.DeleteFunc(c.Args, func(a string) bool { return strings.HasPrefix(a, "--csi-address=") })
		if flag, ok := impatient[c.Name]; ok {
			args = append(args, flag)
		}
		s.Sidecars[c.Name], err = s.StartSidecar(ctx, lab.SidecarOptions{
			Name: c.Name, Socket: s.socket, Namespace: Namespace, ServiceAccount: pluginAccount,
			Args: args, Env: []string{"NAMESPACE=" + Namespace, "POD_NAME=" + pod},
		})
		if err != nil {
			return err
		}
	}
	if len(s.Sidecars) != len(sidecars) {
		return fmt.Errorf("config/csi has no container for some of %v", sidecars)
	}
	return nil
}

// deployment is the controller's, as config/csi has it.
func (s *Stack) deployment() (*appsv1.Deployment, error) {
	text, err := os.ReadFile(filepath.Join(s.root, "config/csi/controller.yaml"))
	if err != nil {
		return nil, err
	}
	d := &appsv1.Deployment{}
	return d, yaml.UnmarshalStrict(text, d)
}

// createPod makes the objects by which a sidecar finds the Deployment it belongs to:
// what a deployment and a replica set controller would make. The pod waits behind a
// scheduling gate for ever; its containers are the lab's processes.
func (s *Stack) createPod(ctx context.Context, d *appsv1.Deployment) (name string, err error) {
	meta := metav1.ObjectMeta{Namespace: Namespace, Name: d.Name}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: d.Spec.Selector.MatchLabels},
		Spec: corev1.PodSpec{
			Containers:      []corev1.Container{{Name: "lab", Image: "lab"}},
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "lab/processes"}},
		},
	}
	owner := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: d.Spec.Selector, Template: template}}
	set := &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: d.Spec.Selector, Template: template}}
	pod := &corev1.Pod{ObjectMeta: meta, Spec: template.Spec}
	var above client.Object
	for _, o := range []client.Object{owner, set, pod} {
		if above != nil {
			gvk, err := s.Client.GroupVersionKindFor(above)
			if err != nil {
				return "", err
			}
			o.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(above, gvk)})
		}
		if err := s.Client.Create(ctx, o); err != nil {
			return "", err
		}
		above = o
	}
	return pod.Name, nil
}
