package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/status"

	sim "git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// lookEvery leaves most of the array's channels to the volumes' own requests.
const lookEvery = 500 * time.Millisecond

// witness lists volumes again and again: one that was created and whose deletion was
// not asked for must always be there.
type witness struct {
	plugin spec.ControllerClient
	array  *sim.Server

	mu    sync.Mutex
	alive map[string]bool

	looks int      // listings that were answered
	lost  []string // what was missing, and where
}

func newWitness(plugin spec.ControllerClient, array *sim.Server) *witness {
	return &witness{plugin: plugin, array: array, alive: map[string]bool{}}
}

func (w *witness) exists(handle string) { w.set(handle, true) }
func (w *witness) goes(handle string)   { w.set(handle, false) }

func (w *witness) set(handle string, alive bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alive[handle] = alive
}

func (w *witness) isAlive(handle string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.alive[handle]
}

func (w *witness) living() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var handles []string
	for handle, alive := range w.alive {
		if alive {
			handles = append(handles, handle)
		}
	}
	return handles
}

// watch looks until ctx ends.
func (w *witness) watch(ctx context.Context) error {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		if err := w.look(ctx); err != nil {
			return err
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look compares one listing with what lived before and after it. A listing that was
// cut off says nothing.
func (w *witness) look(ctx context.Context) error {
	before := w.living()
	listing, err := w.plugin.ListVolumes(ctx, &spec.ListVolumesRequest{})
	if err != nil {
		if ctx.Err() != nil || slices.Contains(notFinal, status.Code(err)) {
			return nil
		}
		return fmt.Errorf("list volumes: %w", err)
	}
	w.looks++
	listed := map[string]bool{}
	for _, entry := range listing.GetEntries() {
		listed[entry.GetVolume().GetVolumeId()] = true
	}
	for _, handle := range before {
		_, onArray := w.array.Disk(handle)
		if w.isAlive(handle) && (!listed[handle] || !onArray) {
			w.lost = append(w.lost, fmt.Sprintf("%s (listed: %t, on the array: %t)", handle, listed[handle], onArray))
		}
	}
	return nil
}
