// Package v1alpha1 is the API of the operator's own resource: the RDSDriver, from
// which it deploys the CSI plugin.
//
// It imports the standard library and Kubernetes API types only. The CRD in
// config/crd and the deep copies here are generated from it (`make generate`).
//
// +kubebuilder:object:generate=true
// +groupName=rds.srvlab.io
package v1alpha1
