// Package arraytest is the conformance suite of rds.Array: what every
// implementation must do, whether it speaks to a simulator or to a real array.
//
// It imports the standard library and package rds.
package arraytest
