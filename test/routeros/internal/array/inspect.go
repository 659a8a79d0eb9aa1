package array

import "sort"

// Disks returns all items of /disk in order.
func (a *Array) Disks() []Disk {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Disk, 0, len(a.disks))
	for _, d := range a.disks {
		s := Disk{
			ID: d.id, Slot: d.text("slot"), Type: d.text("type"), Comment: d.text("comment"),
			Disabled: d.is("disabled"), NQN: a.exportValue(d, "nvme-tcp-server-nqn").String(),
			AllowHost: d.text("nvme-tcp-server-allow-host-name"),
		}
		if e := a.exportOf(d); e != nil {
			s.Exported, s.Port = true, e.Port
		}
		if d.file != nil {
			s.File, s.Size, s.Content = d.file.name, d.file.size, d.file.content
		}
		if d.pool != nil {
			s.MountPoint, s.Size = d.pool.mount, d.pool.size
		}
		out = append(out, s)
	}
	return out
}

// Files returns all items of /file by name.
func (a *Array) Files() []File {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]File, 0, len(a.files))
	for _, f := range a.files {
		out = append(out, File{
			ID: f.id, Name: f.name, Type: f.typeName(), Size: f.size, Modified: f.modified, Content: f.content,
		})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Pools returns the mounted file systems.
func (a *Array) Pools() []Pool {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Pool
	for _, d := range a.disks {
		if d.pool != nil {
			out = append(out, Pool{
				Name: d.text("slot"), FS: d.pool.fs, Label: d.text("fs-label"), Size: d.pool.size,
				Used: d.pool.used, Free: a.free(d.pool),
			})
		}
	}
	return out
}

// Subvolumes returns the btrfs subvolumes.
func (a *Array) Subvolumes() []Subvolume {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Subvolume, 0, len(a.subs))
	for _, s := range a.subs {
		out = append(out, Subvolume{ID: s.id, FS: s.fs, Name: s.name, Parent: s.parent, ReadOnly: s.readOnly})
	}
	return out
}

// Exports returns what hosts can see now, as a Backend was told.
func (a *Array) Exports() []Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Event
	for _, d := range a.disks {
		if e := a.exportOf(d); e != nil {
			e.Kind = ExportOn
			out = append(out, *e)
		}
	}
	return out
}

// Replay tells the backend that every export went off or came on, as a reboot does.
func (a *Array) Replay(kind EventKind) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.disks {
		if e := a.exportOf(d); e != nil {
			e.Kind = kind
			if err := a.cfg.Backend.Apply(*e); err != nil {
				return err
			}
		}
	}
	return nil
}
