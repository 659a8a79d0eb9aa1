package main

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// instanceWriter writes conditions on VMIs as KubeVirt's controller, whose
// namespace it asks the KubeVirt resource for, on first need and again after a
// refusal. Without one, or without the right to read it, every write is forbidden.
type instanceWriter struct {
	reader client.Reader // uncached: it is asked rarely, and for one object
	make   func(namespace string) (conditionWriter, error)

	mu     sync.Mutex
	writer conditionWriter // nil until KubeVirt is found
	reason string          // why writes are forbidden, as last logged
	// namespace is KubeVirt's.
	namespace string
}

// conditionWriter is a vmicondition.Writer.
type conditionWriter interface {
	Write(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (*kubevirtv1.VirtualMachineInstance, vmicondition.Result, error)
}

func newInstanceWriter(reader client.Reader, create func(namespace string) (conditionWriter, error)) *instanceWriter {
	return &instanceWriter{reader: reader, make: create}
}

// Write implements migration.InstanceWriter.
func (w *instanceWriter) Write(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance, c vmicondition.Condition) (vmicondition.Result, error) {
	writer, namespace, reason, err := w.found(ctx)
	switch {
	case err != nil:
		return "", err
	case reason != "":
		w.explain(ctx, reason)
		return vmicondition.Forbidden, nil
	}
	_, result, err := writer.Write(ctx, vmi, c)
	if err != nil {
		return result, err
	}
	switch result {
	case vmicondition.Forbidden:
		w.explain(ctx, "it is not granted. It takes the unbound ClusterRoles of config/rbac/operator and these two commands: "+grant(namespace))
	case vmicondition.Reverted:
		w.explain(ctx, "KubeVirt reverted it: it does not take "+namespace+"/kubevirt-controller for its own")
	default:
		w.explain(ctx, "")
	}
	return result, nil
}

// found is the writer for the KubeVirt there is, or why there is none.
func (w *instanceWriter) found(ctx context.Context) (writer conditionWriter, namespace, reason string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writer != nil {
		return w.writer, w.namespace, "", nil
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(kubevirtv1.GroupVersion.WithKind(kubevirtv1.KubeVirtGroupVersionKind.Kind + "List"))
	if err := w.reader.List(ctx, list, client.Limit(1)); err != nil {
		return nil, "", "KubeVirt's namespace is not known: " + err.Error(), nil
	}
	if len(list.Items) == 0 {
		return nil, "", "KubeVirt's namespace is not known: there is no resource of kind KubeVirt", nil
	}
	w.namespace = list.Items[0].Namespace
	w.writer, err = w.make(w.namespace)
	return w.writer, w.namespace, "", err
}

// explain logs why VMIs do not say what they should: once, and when it changes.
// What was found is looked for again then.
func (w *instanceWriter) explain(ctx context.Context, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if reason != "" {
		w.writer = nil
	}
	if reason == w.reason {
		return
	}
	w.reason = reason
	if reason == "" {
		log.FromContext(ctx).Info("conditions can be written on VMIs now")
		return
	}
	log.FromContext(ctx).Info("conditions cannot be written on VMIs; VMIMs, events and metrics tell all the same", "reason", reason)
}

// grant is how an administrator allows what config/rbac/vmi-condition describes.
func grant(namespace string) string {
	const name, account = "rds-csi-operator-vmi-condition", "rds-csi:rds-csi-operator"
	return fmt.Sprintf("kubectl -n %s create rolebinding %s --clusterrole=rds-csi-operator-kubevirt-controller --serviceaccount=%s; "+
		"kubectl create clusterrolebinding %s --clusterrole=%s --serviceaccount=%s", namespace, name, account, name, name, account)
}
