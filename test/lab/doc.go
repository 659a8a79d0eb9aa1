// Package lab is a real cluster in a box, without containers or hardware.
//
// Start runs etcd, kube-apiserver, kube-controller-manager (the controllers
// that attach and detach volumes, among others) and, unless told otherwise,
// KubeVirt's virt-api with its webhooks and virt-controller, all built from
// their own modules (package binaries), all on loopback, each under its own
// identity and with upstream's rights. Nothing of these is imitated.
//
// What needs a kernel or a hypervisor is played, under the identities of the
// real ones: AddNode adds a Node with a kubelet (package kubelet), the
// Cluster binds pods to nodes, and the stand-in for virt-handler and
// virt-launcher (package handler) takes a VM through its life and a migration
// through a Course that a test chooses: success, failure at any step, a hang.
//
// A lab needs no privileges and prints nothing. Everything it starts ends with
// Close, or with the process.
package lab
