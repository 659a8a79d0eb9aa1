// Package kube answers the questions that package csi asks of Kubernetes:
// which nodes a volume is attached to, whether a node exists, what a volume's
// PersistentVolume allows, and whether a second node asks for it because a
// virtual machine is migrating there.
//
// Attachments are always read live, because they decide whether an export may
// be switched off. PersistentVolumes and CSINodes are watched, stripped to what is
// used, and read live only before an answer that would refuse something. Claims,
// pods and migrations are read live, and only when a second node asks.
//
// On a node it makes events about volumes.
//
// It imports client-go, KubeVirt's API types, package rds for handles and
// for what a refusal is, and the standard library.
package kube
