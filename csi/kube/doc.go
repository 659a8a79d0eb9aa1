// Package kube answers the questions that package csi asks of Kubernetes:
// which nodes a volume is attached to, whether a node exists, and what a
// volume's PersistentVolume allows.
//
// Attachments are always read live, because they decide whether an export may
// be switched off. PersistentVolumes and CSINodes are watched, stripped to what is
// used, and read live only before an answer that would refuse something.
//
// It imports client-go and the standard library.
package kube
