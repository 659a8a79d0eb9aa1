package lab

import (
	"context"
	_ "embed"
	"slices"
)

// AttacherFlags are those of production; csi-attacher's own defaults show at
// once in any test with more than a handful of volumes.
var AttacherFlags = []string{
	"--retry-interval-max=10s", "--kube-api-qps=100", "--kube-api-burst=200",
	"--worker-threads=50", "--timeout=60s",
}

//go:embed manifests/csi-attacher.yaml
var attacherManifests string

// AttacherOptions say how csi-attacher runs.
type AttacherOptions struct {
	// Socket is the CSI controller's; csi-attacher waits for it, and starts
	// again whenever the connection is lost.
	Socket string
	// Namespace and ServiceAccount give it its rights; by default those of
	// its own project's manifests, in kube-system.
	Namespace, ServiceAccount string
	// Args are added to AttacherFlags and win.
	Args []string
}

// StartAttacher runs csi-attacher, as a sidecar of the plugin that listens on
// the socket.
func (c *Cluster) StartAttacher(ctx context.Context, opts AttacherOptions) (*Process, error) {
	if opts.ServiceAccount == "" {
		opts.Namespace, opts.ServiceAccount = "kube-system", "csi-attacher"
		if err := c.ApplyYAML(ctx, attacherManifests); err != nil {
			return nil, err
		}
	}
	return c.StartSidecar(ctx, SidecarOptions{
		Name: "csi-attacher", Socket: opts.Socket, Namespace: opts.Namespace, ServiceAccount: opts.ServiceAccount,
		Args: slices.Concat(AttacherFlags, opts.Args),
	})
}
