// Package driver keeps the CSI plugin deployed as the RDSDriver says: Desired is a
// pure function of the resource and of what the cluster serves; the Reconciler makes
// the cluster so, repairs what others change, removes what is no longer wanted, and
// says in the status what is missing.
//
// It writes workloads in the operator's own namespace only, cluster-wide nothing but
// CSIDriver, StorageClasses, VolumeSnapshotClass and CDI's StorageProfiles of those
// classes, and never RBAC. It takes over nothing that it did not make.
//
// It imports package config for the manifests, its API in v1alpha1, and neither csi
// nor anything that speaks to an array.
package driver
