// Package routeros carries out the operations of rds.Array on a ROSE Data
// Server, through RouterOS scripts over one warm SSH connection.
//
// Building a script (script.go, quote.go), running it (ssh.go, run.go) and
// decoding its answer (answer.go, decode.go) are separate; the operations
// (create.go, update.go, delete.go, view.go) put them together, and errors.go
// is the one place where the array's words become a kind of error.
//
// What is assumed about RouterOS and was not seen on a real array is marked
// [INF] where it is relied on. Each such assumption fails closed: every change
// is read back, and nothing but a complete answer is believed.
//
// It imports the standard library, golang.org/x/crypto/ssh, logr,
// k8s.io/utils/clock, sigs.k8s.io/yaml and package rds.
package routeros
