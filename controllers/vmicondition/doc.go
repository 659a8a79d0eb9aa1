// Package vmicondition writes our conditions on VirtualMachineInstances. It is the
// only code that acts as KubeVirt's controller, because KubeVirt's webhook
// silently reverts what anybody else writes to a VMI's status, and it can send
// nothing but one condition's JSON patch: of the two types named here, in
// KubeVirt's canonical form, and nothing of any other field.
//
// Every write is read back: an answer of 200 does not mean that it was kept.
//
// It may import client-go's REST client and API types; of ours, controllers/jsonpatch.
package vmicondition
