// Package stack runs the whole product on the lab: an array (the simulator), the
// CSI plugin with its sidecars on its socket, and the operator, each as a process of
// its own under its own service account, exactly the rules in config/rbac and, for
// the sidecars, the flags in config/csi.
// The end-to-end tests and the demo share it. Beside it is what those tests share that
// install the product on a lab, by manifests or by OLM, instead of running it.
package stack
