// Package report writes what was decided where people look: conditions on
// VirtualMachineInstanceMigrations, events on claims and VMIs, and the names of
// all metrics.
//
// Conditions are written as a JSON patch of single list elements in KubeVirt's
// own canonical form, guarded by the object's resource version, because KubeVirt
// compares whole lists textually; every write is read back.
//
// It may import controllers/dualattach, controllers/jsonpatch, controller-runtime's client, the
// Prometheus client and API types.
package report
