// Package dualattach decides what a KubeVirt live migration means for the RDS
// volumes that two nodes share while it lasts: the stage it has reached, until
// when that stage may last, how the migration ended, and what to tell people.
//
// Decide is a pure function of a Snapshot: no context, client, clock, log or
// metric. Its stages, in the order of the switch that tells them apart
// (StageOf), are tabulated in testdata/stages.golden.
//
// It imports the standard library, package rds and API types only.
package dualattach
