// Package poll keeps the last view of an array, so that what decides about the
// cluster never waits for the array: it reads one in the background, keeps the
// answer with its time, and says when it has become stale.
//
// It imports the standard library, k8s.io/utils/clock and package rds.
package poll
