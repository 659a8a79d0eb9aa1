// Package jsonpatch has what every write of ours on KubeVirt's objects is made of:
// the steps of a JSON patch (RFC 6902), and the reading of the API server's answer
// to one whose guard did not hold.
//
// It may import Kubernetes' API machinery; of ours, nothing.
package jsonpatch
