// Package e2e tests the product as its users run it: the operator and the CSI
// plugin as processes under their own service accounts, on real control planes.
//
// Every ending of a migration is a scenario in the endings_*_test.go files: see
// TestEndings, and scene for their words.
package e2e
