package lab

import (
	"context"
	"slices"
	"strings"
)

// SidecarOptions say how a CSI sidecar runs.
type SidecarOptions struct {
	// Name is its program's: csi-attacher, csi-provisioner, csi-resizer.
	Name string
	// Socket is the CSI controller's; a sidecar waits for it, and starts again
	// whenever the connection is lost.
	Socket string
	// Namespace and ServiceAccount give it its rights.
	Namespace, ServiceAccount string
	// Args come last, so they win; Env is added to this process's own.
	Args, Env []string
}

// StartSidecar runs a CSI sidecar beside the plugin that listens on the socket.
func (c *Cluster) StartSidecar(ctx context.Context, opts SidecarOptions) (*Process, error) {
	kubeconfig, err := c.KubeconfigFor(ctx, opts.Namespace, opts.ServiceAccount)
	if err != nil {
		return nil, err
	}
	path, err := c.binary(opts.Name)
	if err != nil {
		return nil, err
	}
	args := []string{"--kubeconfig=" + kubeconfig, "--csi-address=" + strings.TrimPrefix(opts.Socket, "unix://")}
	return c.RunRestarting(opts.Name, path, slices.Concat(args, opts.Args), opts.Env...)
}
