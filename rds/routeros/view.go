package routeros

import (
	"context"
	"encoding/json"
	"fmt"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// View reads the pool and every volume at once.
func (a *Array) View(ctx context.Context) (rds.View, error) {
	view, err := a.view(ctx)
	return view, a.about("read the array", "", err)
}

func (a *Array) view(ctx context.Context) (rds.View, error) {
	view, _, _, err := a.viewAnd(ctx)
	return view, err
}

// viewAnd reads a view, and whatever else the statements show.
func (a *Array) viewAnd(ctx context.Context, statements ...string) (view rds.View, p pool, more []json.RawMessage, err error) {
	a.mu.Lock()
	asked := a.sequence
	a.mu.Unlock()
	s := newScript("view", false).add(show(showVersion), show(showDisks)).add(statements...)
	got, err := a.run(ctx, s)
	if err != nil {
		return view, p, nil, err
	}
	if err := got.want(2 + len(statements)); err != nil {
		return view, p, nil, err
	}
	version, err := a.verify(got.values[0])
	if err != nil {
		return view, p, nil, err
	}
	rows, err := decodeRows(got.values[1])
	if err != nil {
		return view, p, nil, err
	}
	if p, err = decodePool(rows, &a.cfg); err != nil {
		return view, p, nil, err
	}
	view = rds.View{ObservedAt: a.clock.Now(), Version: version, Pool: p.Pool, Volumes: map[string]rds.Volume{}}
	for _, r := range rows {
		if v, ours := r.volume(&a.cfg); ours {
			view.Volumes[v.Slot] = v
		}
	}
	a.learn(p, view.Volumes, asked)
	return view, p, got.values[2:], nil
}

// verify checks the version that a read brought along.
func (a *Array) verify(value json.RawMessage) (string, error) {
	version, err := decodeText(value)
	if err != nil {
		return "", err
	}
	if err := checkVersion(version); err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.verified, a.version = true, version
	return version, nil
}

// learn remembers a whole view, except where something newer than its question
// is known.
func (a *Array) learn(p pool, volumes map[string]rds.Volume, asked uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.learnPool(p, asked)
	for slot, known := range a.rows {
		if _, there := volumes[slot]; !there && known.learned <= asked {
			delete(a.rows, slot)
		}
	}
	for slot, v := range volumes {
		if a.rows[slot].learned <= asked && !a.uncertain[slot] {
			a.rows[slot] = remembered{v, asked}
		}
	}
}

// remember keeps one fresh row.
func (a *Array) remember(v rds.Volume) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sequence++
	if !a.uncertain[v.Slot] {
		a.rows[v.Slot] = remembered{v, a.sequence}
	}
}

// forget drops a slot; settled means that nothing of it is uncertain any more.
func (a *Array) forget(slot string, settled bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sequence++
	delete(a.rows, slot)
	if settled {
		delete(a.uncertain, slot)
	}
}

func (a *Array) isUncertain(slot string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.uncertain[slot]
}

func (a *Array) settle(slot string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.uncertain, slot)
}

// Volume reads one volume afresh.
func (a *Array) Volume(ctx context.Context, slot string) (rds.Volume, error) {
	v, err := a.volume(ctx, slot)
	return v, a.about("read volume", slot, err)
}

func (a *Array) volume(ctx context.Context, slot string) (rds.Volume, error) {
	if err := checkSlot(slot); err != nil {
		return rds.Volume{}, err
	}
	s := newScript("volume", false).add(show(showVersion), show(disksWhere(whereSlot(slot))), showName(slot))
	got, err := a.run(ctx, s)
	if err != nil {
		return rds.Volume{}, err
	}
	if err := got.want(3); err != nil {
		return rds.Volume{}, err
	}
	if _, err := a.verify(got.values[0]); err != nil {
		return rds.Volume{}, err
	}
	v, err := a.one(slot, got.values[1])
	if err == nil && v.NQN == "" {
		if v.NQN, err = decodeText(got.values[2]); err == nil {
			a.remember(v)
		}
	}
	return v, err
}

// needsName reports whether nothing may be decided before the export's name is
// known, although it is off: a name that another plugin chose is kept, and one
// that was used is not used again where no ledger counts the generations.
func needsName(v rds.Volume, c *Config) bool {
	return v.NQN == "" && (!v.Ledger.Known || !isMadeHere(v, c))
}

// one reads the answer to a question for one slot, and remembers it.
func (a *Array) one(slot string, value json.RawMessage) (rds.Volume, error) {
	rows, err := decodeRows(value)
	if err != nil {
		return rds.Volume{}, err
	}
	if len(rows) == 0 {
		a.forget(slot, false)
		return rds.Volume{}, &rds.Error{Kind: rds.ErrNotFound, Hint: "no disk of the array has this slot"}
	}
	if len(rows) > 1 {
		return rds.Volume{}, fmt.Errorf("the array shows %d disks where one was asked for", len(rows))
	}
	v, ours := rows[0].volume(&a.cfg)
	switch {
	case v.Slot != slot:
		return rds.Volume{}, fmt.Errorf("the array shows disk %q where %q was asked for", v.Slot, slot)
	case !ours:
		// Not ErrNotFound: that would let the CO believe that nothing is exported.
		return rds.Volume{}, &rds.Error{Kind: rds.ErrExists, Err: fmt.Errorf("a disk has this slot, but its image %q is not below %s: it is no volume of this driver", v.Path, a.cfg.BasePath),
			Hint: "was basePath changed?"}
	case v.Size == 0:
		return rds.Volume{}, fmt.Errorf("the array shows no exact size; is the image %s there?", v.Path)
	}
	a.remember(v)
	return v, nil
}

func checkSlot(slot string) error {
	if !rds.ValidSlot(slot) {
		return &rds.Error{Kind: rds.ErrInvalid, Err: fmt.Errorf("%q is not a slot: letters, digits, dashes and underscores, at most 64", slot)}
	}
	return nil
}

// warm gives the remembered row, or reads: everything if the pool is not known
// yet, else the one volume. fresh tells that it was read just now.
func (a *Array) warm(ctx context.Context, slot string) (v rds.Volume, fresh bool, err error) {
	if err := checkSlot(slot); err != nil {
		return rds.Volume{}, false, err
	}
	a.mu.Lock()
	known, ok := a.rows[slot]
	ok = ok && a.verified && !a.uncertain[slot] && known.Size > 0 && !needsName(known.Volume, &a.cfg)
	seen := a.pool.slot != ""
	a.mu.Unlock()
	if ok {
		return known.Volume, false, nil
	}
	if !seen {
		view, err := a.view(ctx)
		if err != nil {
			return rds.Volume{}, false, err
		}
		if v, ok := view.Volumes[slot]; ok && v.Size > 0 && !needsName(v, &a.cfg) {
			return v, true, nil
		}
	}
	v, err = a.volume(ctx, slot)
	return v, true, err
}
