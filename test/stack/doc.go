// Package stack runs the whole product on the lab: an array (the simulator), the
// CSI plugin with csi-attacher on its socket, and the operator, each as a process
// of its own under its own service account and exactly the rules in config/rbac.
// The end-to-end tests and the demo share it.
package stack
