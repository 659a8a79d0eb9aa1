// Package olm installs the product as its users do: the real Operator Lifecycle
// Manager takes the bundle from a catalog, the operator's and the plugin's pods run,
// what the RDSDriver's status says is missing is granted, a newer version takes over,
// and all of it is removed again.
//
// The catalogs hold the bundle's objects themselves, as there is no registry to pull a
// bundle's image from; so OLM's unpack job is the one part that does not run.
package olm
