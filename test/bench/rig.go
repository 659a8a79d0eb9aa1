package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	sim "git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

const basePath = "raid10/k8s"

type rigOptions struct {
	fs       string
	latency  time.Duration
	channels int
	cuts     float64 // the share of commands whose connection is cut
	seed     uint64  // of the cuts
}

// rig is a simulated array and what it takes to log in.
type rig struct {
	server *sim.Server
	dir    string
	config routeros.Config
}

func newRig(o rigOptions) (*rig, error) {
	server, err := sim.New(sim.Options{
		HostKeyType: sim.Ed25519, Settings: sim.Settings{Latency: o.latency, CutProbability: o.cuts}, Seed: o.seed, LogLimit: 1 << 16,
	})
	if err != nil {
		return nil, err
	}
	r := &rig{server: server}
	if err := r.fill(o); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rig) fill(o rigOptions) error {
	err := errors.Join(
		r.server.AddPool(sim.Pool{Name: "raid10", FS: o.fs, Size: 1 << 40}),
		r.server.AddDirectory(basePath),
		r.server.Start(""),
	)
	if err != nil {
		return err
	}
	if r.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	key := filepath.Join(r.dir, "key")
	r.config = routeros.Config{
		Name: "bench", Address: r.server.Addr(), User: "admin", KeyFile: key, BasePath: basePath, MaxChannels: o.channels,
		HostKey: routeros.HostKeys{r.server.HostKeyLine()},
	}
	return sim.WriteKey(key)
}

func (r *rig) client() (*routeros.Array, error) { return routeros.New(r.config) }

func (r *rig) close() {
	// What is left of a measurement harms nobody.
	_ = r.server.Close()
	_ = os.RemoveAll(r.dir)
}
