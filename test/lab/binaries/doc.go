// Package binaries builds the programs the lab runs (etcd, Kubernetes,
// KubeVirt, the CSI sidecars, CDI, OLM) from Go modules and keeps them in a folder of the
// checkout.
//
// Every module under test/tools pins one family of programs with `tool` lines.
// Its binaries live in .cache/lab/<module>-<hash>, where the hash covers
// everything that decides what is built; so a changed pin builds anew and an
// unchanged one costs nothing. Nothing but Go modules is ever downloaded.
package binaries
