// Package sanity runs csi-sanity, the CSI conformance suite of kubernetes-csi,
// against this driver: how the suite is set up, which of its specs do not apply,
// and why. Its own test drives the controller on simulated arrays; whoever has a
// node plugin as well gives its address, too.
//
// It imports the standard library, csi-test with Ginkgo, and gRPC.
package sanity
