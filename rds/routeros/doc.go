// Package routeros carries out the operations of rds.Array on a ROSE Data
// Server, through RouterOS scripts over one warm SSH connection.
//
// Building a script (script.go, quote.go), running it (ssh.go) and decoding its
// answer (answer.go, decode.go) are separate; the operations (view.go, create.go,
// update.go, delete.go, snapshot.go, copy.go) put them together, and errors.go is
// the one place where the array's words become a kind of error.
//
// A command that is cut off may run on, and RouterOS has no compare-and-swap. So
// every change names in one statement the slot and the comment that was read, and
// every write of a ledger raises its generation: a comment never comes back, and
// what runs late finds its comparison failed. What is left is a script stopped
// between the find of a statement and its set, over the whole of a later change;
// that this does not happen is [INF]. The same call repeated ends right even then.
//
// What is assumed about RouterOS and was not seen on a real array is marked
// [INF] where it is relied on. Each such assumption fails closed: every change
// is read back, and nothing but a complete answer is believed.
//
// It imports the standard library, golang.org/x/crypto/ssh, logr,
// k8s.io/utils/clock, sigs.k8s.io/yaml and package rds.
package routeros
