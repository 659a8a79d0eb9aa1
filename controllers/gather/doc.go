// Package gather brings together what a decision about a migration, or about a
// volume's attachments, depends on: the VMI, its migrations and pods, their claims,
// volumes, attachments and nodes from the cluster's cache, and the ledgers from the
// last view of the arrays.
//
// It reads and never writes, and it never asks an array: package rds/poll does
// that beforehand. What pods and claims told once is kept in a Known, as they may
// be gone before their migration is over.
//
// It may import controllers/dualattach, controllers/unexplained, rds and rds/poll, controller-runtime's
// client and API types.
package gather
