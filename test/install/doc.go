// Package install tests the product as it is installed: `kubectl apply -k config/default`
// on an empty cluster with KubeVirt, a Secret, one RDSDriver.
//
// What that deploys runs for real, as local processes (package pods): two operators,
// and the plugin's controller with csi-provisioner, csi-attacher and csi-resizer. The
// node DaemonSet's pods are made and counted, but played: the node plugin has nothing to
// connect to without a kernel that knows NVMe/TCP (test/dataplane has one), so the
// lab's kubelets stand in for it. Its container is started once by itself, for its metrics.
package install
