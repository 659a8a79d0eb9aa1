package array

import (
	"fmt"
	"path"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/render"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// Disk is a copy of one /disk item's state.
type Disk struct {
	ID         string `json:"id"`
	Slot       string `json:"slot"`
	Type       string `json:"type"`
	Comment    string `json:"comment,omitempty"`
	Disabled   bool   `json:"disabled,omitempty"`
	File       string `json:"file,omitempty"` // name in /file
	Size       int64  `json:"size"`
	Exported   bool   `json:"exported"`
	NQN        string `json:"nqn,omitempty"`
	Port       int    `json:"port,omitempty"`
	AllowHost  string `json:"allowHost,omitempty"`
	Content    string `json:"content,omitempty"` // identity of the data
	MountPoint string `json:"mountPoint,omitempty"`
}

// File is a copy of one /file item's state.
type File struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Type     string    `json:"type"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	// Content stands for the data: copies and snapshots share it, new files
	// get a new one.
	Content string `json:"content,omitempty"`
}

// Pool is a mounted file system.
type Pool struct {
	Name  string `json:"name"` // slot and mount point
	FS    string `json:"fs"`   // xfs when empty
	Label string `json:"label,omitempty"`
	Size  int64  `json:"size"`
	// Used is taken besides the files the array knows.
	Used int64 `json:"used"`
	// Free is an answer, not an input.
	Free int64 `json:"free"`
	// Properties override what /disk shows of it.
	Properties map[string]string `json:"properties,omitempty"`
}

// Subvolume is a copy of one btrfs subvolume's state.
type Subvolume struct {
	ID       string `json:"id"`
	FS       string `json:"fs"`
	Name     string `json:"name"`
	Parent   string `json:"parent,omitempty"`
	ReadOnly bool   `json:"readOnly"`
}

// AddPool seeds a mounted file system, an item of type raid.
func (a *Array) AddPool(p Pool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.FS == "" {
		p.FS = "xfs"
	}
	if p.Name == "" || p.Size <= 0 || p.Used < 0 || p.Used > p.Size || p.FS != "xfs" && p.FS != "btrfs" {
		return fmt.Errorf("pool %+v: name, size and an xfs or btrfs file system are needed", p)
	}
	if a.diskBySlot(p.Name) != nil || a.files[p.Name] != nil {
		return fmt.Errorf("pool %s exists", p.Name)
	}
	props := map[string]script.Value{
		"type": script.String("raid"), "slot": script.String(p.Name), "fs-label": script.String(p.Label),
		"fs-uuid": script.String(seedUUID(p.Name)), "model": script.String("RAID0 striped"),
		"raid-type": script.Number(0), "raid-device-count": script.Number(4),
		"raid-max-component-size": script.String("none"), "raid-chunk-size": script.String("256K"),
		"state": script.String("clean"), "raid-uuid": script.String(seedUUID("raid " + p.Name)),
	}
	for k, v := range p.Properties {
		props[k] = seedValue(k, v)
	}
	d := &disk{props: props, pool: &pool{mount: p.Name, fs: p.FS, size: p.Size, used: p.Used}}
	d.id = a.newID("/disk")
	a.disks = append(a.disks, d)
	a.putFile(&file{name: p.Name, kind: "disk"})
	return nil
}

// seedUUID makes a stable UUID-like text of a name.
func seedUUID(name string) string {
	h := [4]uint32{0x40437dbc, 0x2318, 0x45dc, 0x817b}
	for i, c := range []byte(name) {
		h[i%4] = h[i%4]*31 + uint32(c)
	}
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", h[0], h[1]&0xffff, h[2]&0xffff, h[3]&0xffff, uint64(h[0])<<8|uint64(h[1]&0xff))
}

// seedValue types a seeded property: numbers where RouterOS shows numbers.
func seedValue(name, text string) script.Value {
	if v, err := typed(name, script.String(text)); err == nil {
		if _, isText := v.(script.String); !isText {
			return v
		}
	}
	for _, p := range diskProperties {
		if p.Name == name && (p.Kind == render.Grouped || p.Kind == render.Percent || p.Kind == render.Rounded) {
			if n, ok := parseSize(text); ok {
				return script.Number(n)
			}
		}
	}
	return script.String(text)
}

// AddDisk seeds an item of /disk with any properties: no limit on the slot's
// length, no check of names. A file-path is attached; it is made of file-size,
// with its directories, when it does not exist. It answers the item's id.
func (a *Array) AddDisk(properties map[string]string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := &disk{props: map[string]script.Value{}}
	for k, v := range properties {
		d.props[k] = seedValue(k, v)
	}
	if d.text("slot") == "" || a.diskBySlot(d.text("slot")) != nil {
		return "", fmt.Errorf("disk %q: a new slot is needed", d.text("slot"))
	}
	if name := cleanName(d.text("file-path")); name != "" {
		size, _ := d.props["file-size"].(script.Number)
		if a.files[name] == nil {
			if err := a.seedFile(name, int64(size)); err != nil {
				return "", err
			}
		}
		d.file = a.files[name]
		delete(d.props, "file-path")
		delete(d.props, "file-size")
	}
	if err := a.applyExport(nil, d); err != nil {
		return "", err
	}
	d.id = a.newID("/disk")
	a.disks = append(a.disks, d)
	return d.id, nil
}

// AddFile seeds a file and the directories above it.
func (a *Array) AddFile(name string, size int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seedFile(cleanName(name), size)
}

// AddDirectory seeds a directory and those above it.
func (a *Array) AddDirectory(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seedDirectory(strings.TrimRight(cleanName(name), "/"))
}

func (a *Array) seedFile(name string, size int64) error {
	if a.files[name] != nil {
		return fmt.Errorf("file %s exists", name)
	}
	if err := a.seedDirectory(parentDir(name)); err != nil {
		return err
	}
	_, err := a.createFile(name, size, "")
	if err != nil {
		return fmt.Errorf("file %s: %w", name, err)
	}
	return nil
}

func (a *Array) seedDirectory(dir string) error {
	if dir == "." || dir == "" || a.files[dir] != nil {
		return nil
	}
	if a.poolOf(dir+"/") == nil {
		return fmt.Errorf("directory %s is on no pool", dir)
	}
	if err := a.seedDirectory(path.Dir(dir)); err != nil {
		return err
	}
	a.putFile(&file{name: dir, kind: "directory"})
	return nil
}

// SetContent gives a file's data another identity, as a write would.
func (a *Array) SetContent(name, content string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.files[cleanName(name)]
	if f == nil {
		return fmt.Errorf("no file %s", name)
	}
	f.content, f.modified = content, a.cfg.Now()
	return nil
}

// SetPoolUsed changes what is taken on a pool besides the known files; a
// negative number fills it up.
func (a *Array) SetPoolUsed(name string, used int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.diskBySlot(name)
	if d == nil || d.pool == nil {
		return fmt.Errorf("no pool %s", name)
	}
	if used < 0 {
		used = d.pool.used + a.free(d.pool)
	}
	d.pool.used = used
	return nil
}
