package routeros_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	sim "git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

const (
	mib  = 1 << 20
	gib  = 1 << 30
	base = "raid10/k8s"
	slot = "pvc-abcdefghijklmnopqrstuvwxyz"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keyFile writes a private key for the tests' user.
func keyFile(t testing.TB, key any) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	must(t, err)
	path := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	return path
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return key
}

// simulate starts an array with a pool raid10 and the base directory.
func simulate(t testing.TB, fs string, opts sim.Options) *sim.Server {
	t.Helper()
	if opts.HostKeyType == "" {
		opts.HostKeyType = sim.Ed25519
	}
	server, err := sim.New(opts)
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	must(t, server.AddPool(sim.Pool{Name: "raid10", FS: fs, Size: 100 * gib}))
	must(t, server.AddDirectory(base))
	must(t, server.Start(""))
	return server
}

func config(t testing.TB, server *sim.Server) routeros.Config {
	t.Helper()
	return routeros.Config{
		Name: "west", Address: server.Addr(), User: "admin", KeyFile: keyFile(t, newKey(t)),
		HostKey:  routeros.HostKeys{server.HostKeyLine()},
		BasePath: base, CommandTimeout: routeros.Duration{Duration: time.Minute}, DialTimeout: routeros.Duration{Duration: time.Minute},
	}
}

func connect(t testing.TB, cfg routeros.Config, opts ...routeros.Option) *routeros.Array {
	t.Helper()
	array, err := routeros.New(cfg, opts...)
	must(t, err)
	t.Cleanup(func() { must(t, array.Close()) })
	return array
}

func ctxOf(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func publishTo(node string) rds.Decide {
	return func(_ context.Context, v rds.Volume) (rds.Change, error) {
		return rds.Publish(v, node, v.Ledger.Nodes(), time.Unix(1760000000, 0), rds.DefaultNQNPrefix)
	}
}

func unpublishFrom(node string) rds.Decide {
	return func(_ context.Context, v rds.Volume) (rds.Change, error) {
		return rds.Unpublish(v, node, nil, time.Unix(1760000000, 0))
	}
}

func expandTo(size int64) rds.Decide {
	return func(_ context.Context, v rds.Volume) (rds.Change, error) { return rds.Expand(v, size) }
}
