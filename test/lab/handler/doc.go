// Package handler plays virt-handler and virt-launcher: what they write on a
// VirtualMachineInstance, in the order and under the identities of the real
// ones (the virt-handler of the node concerned, with a token bound to that
// node). virt-controller, which is real, does everything else.
//
// A migration follows a Course, a few steps of which each may take its time,
// be held until a test lets it go on, or fail:
//
//	Launch    the target launcher pod becomes ready     VMIM Scheduling → Scheduled
//	Prepare   the target node publishes its address     PreparingTarget → TargetReady
//	Start     the source sets startTimestamp            → Running
//	GoPostCopy  (only with PostCopy) the mode changes   Running
//	Switch    endTimestamp; the VM's node changes       Running
//	Complete  completed is set                          → Succeeded
//	Leave     the source launcher pod ends              (its volumes are unmounted)
package handler
