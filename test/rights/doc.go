// Package rights compares what roles grant with what an audit log says was asked for:
// no program may hold a right that it does not use, or lack one that it needs.
//
// It may import the lab's audit package and Kubernetes' types only.
package rights
