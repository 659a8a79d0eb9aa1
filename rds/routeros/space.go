package routeros

import (
	"context"
	"fmt"
	"slices"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// knownPool is the pool as last seen, read now if it never was or if the array's
// version is still to be checked.
func (a *Array) knownPool(ctx context.Context) (pool, error) {
	a.mu.Lock()
	p, ok := a.pool, a.verified && a.pool.slot != ""
	a.mu.Unlock()
	if ok {
		return p, nil
	}
	if _, err := a.view(ctx); err != nil {
		return pool{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pool, nil
}

// promise sets bytes aside for a slot, so that creations at the same time cannot
// all count on the same space. What the remembered view denies, a fresh one may
// grant. taken returns the promise, or makes it part of the pool.
func (a *Array) promise(ctx context.Context, slot string, bytes int64) (taken func(bool), err error) {
	if _, err := a.knownPool(ctx); err != nil {
		return nil, err
	}
	if a.tryPromise(slot, bytes) == nil {
		return a.taken(slot, bytes), nil
	}
	if _, err := a.view(ctx); err != nil {
		return nil, err
	}
	if err := a.tryPromise(slot, bytes); err != nil {
		return nil, err
	}
	return a.taken(slot, bytes), nil
}

func (a *Array) tryPromise(slot string, bytes int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pool.Pool
	for other, promised := range a.promised {
		if other != slot {
			p.Allocated += promised
			p.Free -= promised
		}
	}
	if available := p.Available(a.cfg.ReserveBytes); available < bytes {
		return &rds.Error{Kind: rds.ErrNoSpace, Err: fmt.Errorf("%d bytes are wanted, pool %s can promise %d (size %d, free %d, promised to volumes %d, kept free %d)",
			bytes, p.MountPoint, available, p.Size, p.Free, p.Allocated, a.cfg.ReserveBytes)}
	}
	a.promised[slot] = bytes
	return nil
}

func (a *Array) taken(slot string, bytes int64) func(bool) {
	return func(done bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.promised, slot)
		if done {
			a.pool.Allocated += bytes
			a.pool.Free -= bytes
			a.sequence++
			a.kept = append(a.kept, keptPromise{a.sequence, bytes})
		}
	}
}

// keptPromise is space that was taken when the sequence stood at a number. A view
// that was asked for before may not show it yet.
type keptPromise struct {
	taken uint64
	bytes int64
}

// learnPool remembers the pool of a view, unless a later question was answered
// already, and less what was taken since the question. It is called with mu held.
func (a *Array) learnPool(p pool, asked uint64) {
	if a.pool.slot != "" && asked < a.poolAsked {
		return
	}
	a.kept = slices.DeleteFunc(a.kept, func(k keptPromise) bool { return k.taken <= asked })
	for _, k := range a.kept {
		p.Allocated += k.bytes
		p.Free -= k.bytes
	}
	a.pool, a.poolAsked = p, asked
}
