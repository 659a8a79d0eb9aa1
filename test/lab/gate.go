package lab

import (
	"context"
	"crypto/tls"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/gate"
)

// NewGate opens a door to the API server that a test can watch and shut; it is
// shut for good when the lab ends.
func (c *Cluster) NewGate() (*gate.Gate, error) {
	pair, err := c.ca.Issue("gate", nil)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, err
	}
	p, err := c.port()
	if err != nil {
		return nil, err
	}
	g, err := gate.Start("127.0.0.1:"+p.String(), c.anonymous(), cert)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(c.life, func() { _ = g.Shut() })
	return g, nil
}

// KubeconfigThrough is KubeconfigFor for a client that knows the API server by a
// gate's address only.
func (c *Cluster) KubeconfigThrough(ctx context.Context, g *gate.Gate, namespace, name string) (string, error) {
	config, err := c.ConfigFor(ctx, namespace, name)
	if err != nil {
		return "", err
	}
	config.Host = g.URL()
	_, port, _ := strings.Cut(strings.TrimPrefix(config.Host, "https://"), ":")
	return c.WriteKubeconfig(namespace+"-"+name+"-gate-"+port, config)
}
