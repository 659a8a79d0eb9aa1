package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// kubevirts lists KubeVirt resources by their namespaces.
type kubevirts struct {
	client.Reader
	namespaces []string
	err        error
}

func (k *kubevirts) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	for _, namespace := range k.namespaces {
		l := list.(*metav1.PartialObjectMetadataList)
		l.Items = append(l.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}})
	}
	return k.err
}

type answering struct{ result vmicondition.Result }

func (a *answering) Write(context.Context, *kubevirtv1.VirtualMachineInstance, vmicondition.Condition) (*kubevirtv1.VirtualMachineInstance, vmicondition.Result, error) {
	return nil, a.result, nil
}

// TestInstanceWriter: KubeVirt is found on first need and again after a refusal;
// why nothing can be written is logged once, and when it changes.
func TestInstanceWriter(t *testing.T) {
	var lines, made []string
	ctx := log.IntoContext(t.Context(), funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}))
	reader, writer := &kubevirts{err: errors.New("kubevirts is forbidden")}, &answering{}
	w := newInstanceWriter(reader, func(namespace string) (conditionWriter, error) {
		made = append(made, namespace)
		return writer, nil
	})
	step := func(want vmicondition.Result, logged ...string) {
		t.Helper()
		lines = nil
		got, err := w.Write(ctx, nil, vmicondition.Condition{})
		if err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
		if len(lines) > 1 || (len(lines) == 0) != (len(logged) == 0) {
			t.Fatalf("logged %q, want %q", lines, logged)
		}
		for _, part := range logged {
			if !strings.Contains(lines[0], part) {
				t.Errorf("logged %q, want %q in it", lines[0], part)
			}
		}
	}
	step(vmicondition.Forbidden, "kubevirts is forbidden")
	reader.err = nil
	step(vmicondition.Forbidden, "there is no resource of kind KubeVirt")
	step(vmicondition.Forbidden)
	reader.namespaces, writer.result = []string{"openshift-cnv"}, vmicondition.Forbidden
	step(vmicondition.Forbidden,
		"kubectl -n openshift-cnv create rolebinding rds-csi-operator-vmi-condition --clusterrole=rds-csi-operator-kubevirt-controller --serviceaccount=rds-csi:rds-csi-operator",
		"kubectl create clusterrolebinding rds-csi-operator-vmi-condition --clusterrole=rds-csi-operator-vmi-condition --serviceaccount=rds-csi:rds-csi-operator")
	step(vmicondition.Forbidden)
	writer.result = vmicondition.Stored
	step(vmicondition.Stored, "can be written on VMIs now")
	step(vmicondition.Stored)
	writer.result = vmicondition.Reverted
	step(vmicondition.Reverted, "KubeVirt reverted it")
	if diff := cmp.Diff([]string{"openshift-cnv", "openshift-cnv", "openshift-cnv"}, made); diff != "" {
		t.Errorf("writers made (-want +got):\n%s", diff)
	}
}
