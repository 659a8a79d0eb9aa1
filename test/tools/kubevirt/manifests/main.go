// Command manifests prints what virt-operator would install of KubeVirt, as
// one JSON List: the kinds, the service accounts with their rights, the
// admission policies and webhooks. The lab has no virt-operator (it deploys
// images), so it loads these objects itself, and what it loads is KubeVirt's
// own, of the very release whose binaries it runs.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	extv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/rbac"
)

// list is a v1.List that keeps its items' own types.
type list struct {
	metav1.TypeMeta `json:",inline"`
	Items           []runtime.Object `json:"items"`
}

func main() {
	namespace := "kubevirt"
	if len(os.Args) > 1 {
		namespace = os.Args[1]
	}
	objects, err := all(namespace)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(list{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "List"},
			Items:    objects,
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

// all follows virt-operator's GenerateCurrentInstallStrategy, without what
// needs images (deployments) or virt-operator itself (its webhooks).
func all(namespace string) ([]runtime.Object, error) {
	objects, err := crds()
	if err != nil {
		return nil, err
	}
	crd, err := components.NewKubeVirtCrd()
	if err != nil {
		return nil, err
	}
	objects = append(objects, crd, components.NewKubeVirtPriorityClassCR())
	objects = append(objects, rbac.GetAllCluster()...)
	objects = append(objects, rbac.GetAllApiServer(namespace)...)
	objects = append(objects, rbac.GetAllController(namespace, true)...)
	objects = append(objects, rbac.GetAllHandler(namespace)...)
	objects = append(objects, rbac.GetAllExportProxy(namespace)...)
	objects = append(objects, rbac.GetAllSynchronizationController(namespace)...)
	handler := fmt.Sprintf("system:serviceaccount:%s:%s", namespace, components.HandlerServiceAccountName)
	policy := components.NewHandlerV1ValidatingAdmissionPolicy(handler)
	binding := components.NewHandlerV1ValidatingAdmissionPolicyBinding()
	// virt-operator's typed client does not mind that these say just "v1".
	policy.APIVersion = admissionregistrationv1.SchemeGroupVersion.String()
	binding.APIVersion = policy.APIVersion
	return append(objects, policy, binding,
		components.NewVirtAPIValidatingWebhookConfiguration(namespace),
		components.NewVirtAPIMutatingWebhookConfiguration(namespace),
	), nil
}

func crds() ([]runtime.Object, error) {
	generators := []func() (*extv1.CustomResourceDefinition, error){
		components.NewVirtualMachineInstanceCrd, components.NewPresetCrd, components.NewReplicaSetCrd,
		components.NewVirtualMachineCrd, components.NewVirtualMachineInstanceMigrationCrd,
		components.NewVirtualMachineSnapshotCrd, components.NewVirtualMachineSnapshotContentCrd,
		components.NewVirtualMachineRestoreCrd, components.NewVirtualMachineInstancetypeCrd,
		components.NewVirtualMachineClusterInstancetypeCrd, components.NewVirtualMachinePoolCrd,
		components.NewMigrationPolicyCrd, components.NewVirtualMachinePreferenceCrd,
		components.NewVirtualMachineClusterPreferenceCrd, components.NewVirtualMachineExportCrd,
		components.NewVirtualMachineCloneCrd, components.NewVirtualMachineBackupCrd,
		components.NewVirtualMachineBackupTrackerCrd,
	}
	objects := make([]runtime.Object, 0, len(generators))
	for _, generate := range generators {
		crd, err := generate()
		if err != nil {
			return nil, err
		}
		objects = append(objects, crd)
	}
	return objects, nil
}
