// Package csi answers the Container Storage Interface: its Controller service
// turns requests of Kubernetes' sidecars into changes of the volumes and snapshots
// of RDS arrays, and keeps what the cluster is told in step with what the arrays
// say.
//
// The rules of sharing live in package rds as pure functions; this package adds
// who may ask (access modes, the Guard), what the cluster knows (Cluster) and
// the gRPC edge: one place for codes, logging and metrics.
//
// It imports packages rds and csi/identity, the CSI specification, gRPC, logr and the Prometheus
// client; never a Kubernetes client (that is csi/kube), never an array's
// transport (that is rds/routeros), and nothing of controllers.
package csi
