// Command bundle writes the OLM bundle of this project, and a catalog of it, from
// the manifests in config/: what kustomize makes of config/olm is split into what a
// ClusterServiceVersion carries and what OLM applies beside it.
//
// OLM knows no namespace until a user chooses one, so nothing in the bundle may name
// ours. Rights in the whole cluster are the CSV's clusterPermissions, whose service
// accounts OLM makes. Rights in the operator's namespace are Roles and RoleBindings of
// the bundle and not the CSV's permissions: those OLM lifts to ClusterRoles for an
// operator of all namespaces, and the operator would read every Secret of the cluster.
// The bindings' subjects leave their namespace out, which means the binding's own.
//
// ServiceMonitors and alerts are not in the bundle: OLM fails where a cluster lacks
// their kinds. The operator makes them where it has them.
package main
