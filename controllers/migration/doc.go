// Package migration is the reconciler of live migrations. Its key is the VMI,
// whose migrations come and go while its volumes stay; for each migration that is
// not reported yet it gathers a snapshot, lets package dualattach decide, and has
// package report say so; then a Speaker (package vmireport) has the VMI say what they
// mean for it. It keeps a table of the migrations under way, from which the gauges are
// computed at scrape time.
//
// It may import controllers/gather, controllers/dualattach, controllers/report,
// controllers/vmicondition, controllers/retry and controller-runtime. It never asks an array.
package migration
