package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is what apiVersion says.
var GroupVersion = schema.GroupVersion{Group: "rds.srvlab.io", Version: "v1alpha1"}

// Kind is the one kind of the group.
const Kind = "RDSDriver"

// AddToScheme makes the kind known to a client.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &RDSDriver{}, &RDSDriverList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
