package routeros

// AddPool seeds a mounted file system.
func (s *Server) AddPool(p Pool) error { return s.array.AddPool(p) }

// AddDisk seeds an item of /disk with any properties, unchecked: slots may be
// longer than RouterOS now allows. A file-path that does not exist is made of
// file-size. It answers the item's id.
func (s *Server) AddDisk(properties map[string]string) (id string, err error) {
	return s.array.AddDisk(properties)
}

// AddFile seeds a file of that many bytes, and its directories.
func (s *Server) AddFile(name string, size int64) error { return s.array.AddFile(name, size) }

// AddDirectory seeds a directory, and those above it.
func (s *Server) AddDirectory(name string) error { return s.array.AddDirectory(name) }

// SetContent gives a file's data another identity, as a write would.
func (s *Server) SetContent(file, content string) error { return s.array.SetContent(file, content) }

// FillPool leaves no space on a pool.
func (s *Server) FillPool(name string) error { return s.array.SetPoolUsed(name, -1) }

// SetPoolUsed sets what is taken on a pool besides the files in /file.
func (s *Server) SetPoolUsed(name string, bytes int64) error {
	return s.array.SetPoolUsed(name, max(bytes, 0))
}

// Disks returns all items of /disk.
func (s *Server) Disks() []Disk { return s.array.Disks() }

// Disk finds an item of /disk by slot.
func (s *Server) Disk(slot string) (Disk, bool) {
	for _, d := range s.array.Disks() {
		if d.Slot == slot {
			return d, true
		}
	}
	return Disk{}, false
}

// Files returns all items of /file.
func (s *Server) Files() []File { return s.array.Files() }

// File finds an item of /file by name.
func (s *Server) File(name string) (File, bool) {
	for _, f := range s.array.Files() {
		if f.Name == name {
			return f, true
		}
	}
	return File{}, false
}

// Pools returns the mounted file systems.
func (s *Server) Pools() []Pool { return s.array.Pools() }

// Subvolumes returns the btrfs subvolumes.
func (s *Server) Subvolumes() []Subvolume { return s.array.Subvolumes() }

// Exports returns what hosts can connect to.
func (s *Server) Exports() []Event { return s.array.Exports() }
