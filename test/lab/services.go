package lab

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pods"
)

// Pods runs the lab's pods; nil where kubelets only play them.
func (c *Cluster) Pods() *pods.Runtime { return c.pods }

// ServiceAddresses are where a port of a Service leads to: the ready pods that its
// selector chooses. The lab has no virtual addresses, and no EndpointSlices, in which
// loopback addresses are not allowed.
func (c *Cluster) ServiceAddresses(ctx context.Context, namespace, name, port string) ([]string, error) {
	service := &corev1.Service{}
	if err := c.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, service); err != nil {
		return nil, err
	}
	at := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == port })
	if at < 0 {
		return nil, fmt.Errorf("service %s/%s has no port named %s", namespace, name, port)
	}
	list := &corev1.PodList{}
	if err := c.Client.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels(service.Spec.Selector)); err != nil {
		return nil, err
	}
	var all []string
	for i := range list.Items {
		pod := &list.Items[i]
		if number := targetPort(pod, &service.Spec.Ports[at]); number != 0 && pod.DeletionTimestamp == nil && PodReady(pod) {
			all = append(all, net.JoinHostPort(pod.Status.PodIP, fmt.Sprint(number)))
		}
	}
	slices.SortFunc(all, strings.Compare)
	return all, nil
}

// targetPort is the pod's port that a service's leads to; 0 if it has none.
func targetPort(pod *corev1.Pod, port *corev1.ServicePort) int32 {
	if port.TargetPort.StrVal == "" {
		return port.TargetPort.IntVal
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == port.TargetPort.StrVal {
				return p.ContainerPort
			}
		}
	}
	return 0
}
