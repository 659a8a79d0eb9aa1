// Command olm-crds prints OLM's kinds as one JSON List, of the very release whose
// programs the lab runs.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/operator-framework/api/crds"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func main() {
	list := apiextensionsv1.CustomResourceDefinitionList{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "List"},
		Items: []apiextensionsv1.CustomResourceDefinition{
			*crds.CatalogSource(), *crds.ClusterServiceVersion(), *crds.InstallPlan(), *crds.OLMConfig(),
			*crds.OperatorCondition(), *crds.OperatorGroup(), *crds.Operator(), *crds.Subscription(),
		},
	}
	if err := json.NewEncoder(os.Stdout).Encode(list); err != nil {
		fmt.Fprintln(os.Stderr, "olm-crds:", err)
		os.Exit(1)
	}
}
