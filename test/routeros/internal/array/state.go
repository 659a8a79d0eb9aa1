package array

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// Phrases are failure texts of which no real recording is known. Each may be
// replaced, so that a client can be shown not to depend on them.
type Phrases struct {
	DuplicateSlot, DuplicateFile, NoSpace, NoPool, NoDirectory, NoSuchFile string
	Shrink, LongSlot, DuplicateNQN, Busy, ReadOnly                         string
}

// DefaultPhrases are plausible words.
func DefaultPhrases() Phrases {
	return Phrases{
		DuplicateSlot: "failure: already have such slot",
		DuplicateFile: "failure: already have such file",
		NoSpace:       "failure: not enough disk space",
		NoPool:        "failure: file-path is not on a mounted disk",
		NoDirectory:   "failure: no such directory",
		NoSuchFile:    "failure: file does not exist and file-size is not set",
		Shrink:        "failure: file-size can not be reduced",
		LongSlot:      "failure: slot name too long, at most 32 characters",
		DuplicateNQN:  "failure: already have such nvme-tcp-server-nqn",
		Busy:          "failure: disk is in use",
		ReadOnly:      "failure: read-only file system",
	}
}

// Style is how the array answers where releases or terminals differ.
type Style struct {
	// Width of the terminal; 80 without one.
	Width int
	// ShowIdleExport prints nvme-tcp-server-* also while the export is off.
	ShowIdleExport bool
	// FalseFlags puts flags that are not set into as-value as false.
	FalseFlags bool
	// RoundedFileSize gives file-size as 1024.0GiB in as-value, too.
	RoundedFileSize bool
}

// Config makes an Array.
type Config struct {
	Now             func() time.Time
	Backend         Backend
	Phrases         Phrases
	Style           Style
	Version, Board  string
	Identity        string
	MaxSlotLength   int
	DefaultNQN      string // prefix; the slot follows
	DefaultNVMePort int
}

// Array is the state of one ROSE Data Server. Safe for concurrent use.
type Array struct {
	menus   *script.Menu
	tables  map[string]table
	globals script.Globals

	mu      sync.Mutex
	cfg     Config
	booted  time.Time
	disks   []*disk
	files   map[string]*file
	subs    []*subvolume
	orphans map[*file]bool // removed by name, still held by a disk
	lastID  map[string]int
	token   int
}

// New makes an empty array.
func New(cfg Config) (*Array, error) {
	root, err := menus()
	if err != nil {
		return nil, err
	}
	if cfg.Backend == nil {
		cfg.Backend = noBackend{}
	}
	a := &Array{
		menus: root, cfg: cfg, booted: cfg.Now(),
		files: map[string]*file{}, orphans: map[*file]bool{}, lastID: map[string]int{},
	}
	a.tables = map[string]table{
		"/disk":                 diskTable{a},
		"/file":                 fileTable{a},
		"/disk/btrfs/subvolume": subvolumeTable{a},
		"/system/resource":      systemTable{a, "resource"},
		"/system/identity":      systemTable{a, "identity"},
		"/system/clock":         systemTable{a, "clock"},
	}
	for path, t := range a.tables {
		m := a.menu(path)
		for _, p := range t.view().Properties {
			m.Properties[p.Name] = true
		}
		for _, f := range t.view().Flags {
			m.Properties[f.Name] = true
		}
	}
	return a, nil
}

// Menus is the console's tree, for the parser.
func (a *Array) Menus() *script.Menu { return a.menus }

// Globals are the scripts' global variables, which outlive a session.
func (a *Array) Globals() *script.Globals { return &a.globals }

func (a *Array) menu(path string) *script.Menu {
	m := a.menus
	for _, name := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		m = m.Dirs[name]
	}
	return m
}

// newID numbers the items of a menu: *1, *2, …, in hexadecimal.
func (a *Array) newID(menu string) string {
	a.lastID[menu]++
	return fmt.Sprintf("*%X", a.lastID[menu])
}

// Configure changes the configuration while the array runs.
func (a *Array) Configure(change func(*Config)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.cfg)
}

// disk is one item of /disk. Configured properties are typed values; what
// follows from other things is computed in view.
type disk struct {
	id    string
	props map[string]script.Value
	file  *file
	// pool holds what a mounted file system has.
	pool *pool
}

type pool struct {
	mount string
	fs    string
	size  int64
	used  int64 // besides the files the array knows
}

func (d *disk) clone() *disk {
	c := *d
	c.props = maps.Clone(d.props)
	return &c
}

func (d *disk) text(name string) string {
	if v, ok := d.props[name]; ok {
		return v.String()
	}
	return ""
}

func (d *disk) is(name string) bool {
	t, _ := script.Truth(d.value(name))
	return t
}

// value is the configured or default value of a property.
func (d *disk) value(name string) script.Value {
	if v, ok := d.props[name]; ok {
		return v
	}
	if v, ok := diskDefaults[name]; ok {
		return v
	}
	return script.Nothing{}
}

// file is one item of /file.
type file struct {
	id, name string
	kind     string // "disk", "directory", "file"
	size     int64
	modified time.Time
	content  string
	// shared: a snapshot's copy, which takes no space of its own.
	shared bool
}

type subvolume struct {
	id, fs, name string
	parent       string
	readOnly     bool
}

// dir is the subvolume's directory in /file.
func (a *Array) subvolumeDir(s *subvolume) string {
	if d := a.diskBySlot(s.fs); d != nil && d.pool != nil {
		return d.pool.mount + "/" + s.name
	}
	return s.fs + "/" + s.name
}

func (a *Array) diskBySlot(slot string) *disk {
	for _, d := range a.disks {
		if d.text("slot") == slot {
			return d
		}
	}
	return nil
}

// poolOf finds the mounted file system a file name lies on.
func (a *Array) poolOf(name string) *disk {
	for _, d := range a.disks {
		if d.pool != nil && !d.is("disabled") && strings.HasPrefix(name, d.pool.mount+"/") {
			return d
		}
	}
	return nil
}

// free is what is left on a pool; files count in full, they are preallocated.
func (a *Array) free(p *pool) int64 {
	left := p.size - p.used
	count := func(f *file) {
		if !f.shared && strings.HasPrefix(f.name, p.mount+"/") {
			left -= f.size
		}
	}
	for _, f := range a.files {
		count(f)
	}
	for f := range a.orphans {
		count(f)
	}
	return max(left, 0)
}

// cleanName turns a path into a name of /file: no leading slash.
func cleanName(path string) string { return strings.TrimLeft(path, "/") }

func parentDir(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}
