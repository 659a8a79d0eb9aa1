// Package e2e tests the product as its users run it: the operator and the CSI
// plugin as processes under their own service accounts, on real control planes.
package e2e
