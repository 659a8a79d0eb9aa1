// Command cdi-manifests prints what cdi-operator would install of CDI for
// cdi-controllers, as one JSON List: the kinds, and the controller's service account
// with its rights. The lab has no cdi-operator (it deploys images).
package main

import (
	"encoding/json"
	"fmt"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"kubevirt.io/containerized-data-importer/pkg/operator/resources"
	"kubevirt.io/containerized-data-importer/pkg/operator/resources/cluster"
	"kubevirt.io/containerized-data-importer/pkg/operator/resources/namespaced"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

const namespace = "cdi"

// list is a v1.List that keeps its items' own types.
type list struct {
	metav1.TypeMeta `json:",inline"`
	Items           []client.Object `json:"items"`
}

func main() {
	objects, err := all()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(list{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "List"}, Items: objects})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cdi-manifests:", err)
		os.Exit(1)
	}
}

func all() ([]client.Object, error) {
	cdi := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(resources.CDICRDs["cdi"]), &cdi.Object); err != nil {
		return nil, err
	}
	objects := []client.Object{cdi}
	for _, group := range []string{"crd-resources", "controller-rbac"} {
		more, err := cluster.CreateStaticResourceGroup(group, &cluster.FactoryArgs{Namespace: namespace})
		if err != nil {
			return nil, err
		}
		objects = append(objects, more...)
	}
	more, err := namespaced.CreateResourceGroup("controller", &namespaced.FactoryArgs{Namespace: namespace, ControllerReplicas: 1})
	if err != nil {
		return nil, err
	}
	for _, object := range more {
		if _, image := object.(*appsv1.Deployment); !image {
			objects = append(objects, object)
		}
	}
	return objects, nil
}
