// Package rds is the domain: the volumes of a MikroTik ROSE Data Server (RDS),
// the ledger that records which node was told to hold which of them, and the
// pure rules by which a publication, its end or a deletion changes them.
//
// An Array carries such changes out; package rds/routeros is the one for real
// arrays. Everything in this package but that interface is a value or a pure
// function.
//
// It imports the standard library and github.com/google/uuid, and nothing of
// this module.
package rds
