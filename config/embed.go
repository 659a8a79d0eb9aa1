// Package config holds the manifests. What the operator deploys itself it takes from
// these same files, so that there is one place for each of their facts. It imports
// the standard library only.
package config

import "embed"

// CSI are the manifests of the CSI plugin.
//
//go:embed csi/*.yaml
var CSI embed.FS

// Snapshotter is the patch that adds csi-snapshotter to the plugin's controller.
//
//go:embed components/snapshotter/snapshotter.yaml
var Snapshotter []byte

// Prometheus are the ServiceMonitors and alerts.
//
//go:embed prometheus/*.yaml
var Prometheus embed.FS
