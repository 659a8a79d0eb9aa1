// Package vmireport has a VMI say what is the matter with its volumes: as a condition
// where the operator may act as KubeVirt's controller for it (package vmicondition),
// else as an annotation, with an event that says where to look. It finds KubeVirt,
// checks whether that right is granted, and tells an administrator the commands that
// are missing. Its Speaker is what the reconcilers share: each thing is said once, and
// counted.
//
// It may import controllers/vmicondition, controllers/jsonpatch, controllers/report,
// controllers/dualattach for the event's type, controller-runtime, client-go's discovery and the
// Prometheus client.
package vmireport
