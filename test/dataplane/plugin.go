package dataplane

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube/kubetest"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/guest"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
)

const (
	// pluginPath is where the node guests have the plugin.
	pluginPath   = "/csi-plugin"
	pluginSocket = "/csi/csi.sock"
	// metricsAddress is where the plugin serves its metrics, inside the guest.
	metricsAddress = "127.0.0.1:9808"
	kubeconfig     = "/etc/kubeconfig"
)

// startTimeout bounds the plugin's start; emulation makes it slow.
const startTimeout = 30 * time.Second

// Plugin is the node plugin in a guest.
type Plugin struct {
	spec.NodeClient
	Identity spec.IdentityClient
	node     *Node
	conn     *grpc.ClientConn
	program  *guest.Program
}

// OpenPlugin starts the node plugin, with a connection to its socket that
// outlives it.
func (n *Node) OpenPlugin(ctx context.Context) (*Plugin, error) {
	if err := n.installGates(ctx); err != nil {
		return nil, err
	}
	if err := n.WriteFile(ctx, kubeconfig, 0o600, kubetest.Kubeconfig("http://"+apiAddress)); err != nil {
		return nil, err
	}
	quick := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.2, MaxDelay: 200 * time.Millisecond}
	conn, err := grpc.NewClient("passthrough:///"+n.Name, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: quick, MinConnectTimeout: 5 * time.Second}),
		grpc.WithContextDialer(n.dialPlugin))
	if err != nil {
		return nil, err
	}
	p := &Plugin{NodeClient: spec.NewNodeClient(conn), Identity: spec.NewIdentityClient(conn), node: n, conn: conn}
	return p, p.Start(ctx)
}

// dialPlugin connects to the plugin's socket, which is inside the guest.
func (n *Node) dialPlugin(ctx context.Context, _ string) (net.Conn, error) {
	return n.Dial(ctx, "unix", pluginSocket)
}

// Start starts the plugin and waits until it serves. The connections that it
// makes notice a lost array within seconds, and try again every second: the
// kernel does the same things as with its defaults, only sooner.
func (p *Plugin) Start(ctx context.Context) (err error) {
	p.program, err = p.node.Start(ctx, wire.Command{
		Args: []string{
			pluginPath, "--mode=node", "--endpoint=unix://" + pluginSocket, "--node-name=" + p.node.Name, "--metrics-address=" + metricsAddress,
			"--kubeconfig=" + kubeconfig, "--health-interval=1s", "--log-level=1", "--log-format=console", "--reconnect-delay=1", "--keep-alive-tmo=2", "--nr-io-queues=1",
		},
		Env: []string{"PATH=" + gates + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	})
	if err != nil {
		return err
	}
	err = await(ctx, startTimeout, "the plugin on "+p.node.Name, func(ctx context.Context) error {
		_, err := p.Identity.Probe(ctx, &spec.ProbeRequest{})
		return err
	})
	if err != nil {
		return fmt.Errorf("%w; its log:\n%s", err, p.Log(ctx))
	}
	return nil
}

// Metrics is what Prometheus would read now.
func (p *Plugin) Metrics(ctx context.Context) (string, error) {
	return p.node.Run(ctx, "wget", "-q", "-O", "-", "http://"+metricsAddress+"/metrics")
}

// Crash kills the plugin, with nothing left to it that it could still do.
func (p *Plugin) Crash(ctx context.Context) error {
	_, err := p.program.Kill(ctx)
	return err
}

// Log is what the plugin has said since it was started.
func (p *Plugin) Log(ctx context.Context) string {
	r, err := p.program.Look(ctx)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(r.Stdout) + string(r.Stderr))
}

// Close ends the connection; the plugin ends with its guest.
func (p *Plugin) Close() { _ = p.conn.Close() }
