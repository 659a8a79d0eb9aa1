package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// The steps of staging. What a step names has begun, and may have ended.
const (
	stepConnect = "connect"
	stepFormat  = "format"
	stepMount   = "mount"
	stepStaged  = "staged"
)

// record is what the plugin remembers of a volume on this node. It is what was
// asked for; what became of it is for the kernel to say.
type record struct {
	Volume  string `json:"volume"` // its handle
	BootID  string `json:"bootID"` // mounts and connections are gone after another boot
	Step    string `json:"step"`
	Staging string `json:"staging"` // path
	Block   bool   `json:"block,omitempty"`
	FSType  string `json:"fsType,omitempty"`
	// ReadOnly: the filesystem is mounted so.
	ReadOnly bool   `json:"readOnly,omitempty"`
	NQN      string `json:"nqn"`
	NSID     int    `json:"nsid"`
	Portals  int    `json:"portals"` // how many were to be connected
	Size     int64  `json:"size,omitempty"`
	Dev      string `json:"dev,omitempty"` // major:minor at staging
	Identity string `json:"identity,omitempty"`
	// FormatBegun is the NQN of the export that was blank when formatting it began,
	// and was never mounted since.
	FormatBegun string        `json:"formatBegun,omitempty"`
	Published   []publication `json:"published,omitempty"`
}

type publication struct {
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// publishedAt finds the publication at a path.
func (r *record) publishedAt(path string) (publication, bool) {
	i := slices.IndexFunc(r.Published, func(p publication) bool { return p.Path == path })
	if i < 0 {
		return publication{}, false
	}
	return r.Published[i], true
}

func (r *record) unpublish(path string) {
	r.Published = slices.DeleteFunc(slices.Clone(r.Published), func(p publication) bool { return p.Path == path })
}

// records keeps the records as files, one per volume.
type records struct{ dir string }

const recordSuffix = ".json"

// newPrefix marks files that are being written.
const newPrefix = ".new-"

// tidy removes what a plugin that was killed was writing.
func (s records) tidy() error {
	left, err := filepath.Glob(filepath.Join(s.dir, newPrefix+"*"))
	for _, file := range left {
		err = errors.Join(err, os.Remove(file))
	}
	if err != nil {
		return fmt.Errorf("tidy the records of stagings: %w", err)
	}
	return nil
}

// path: a handle that was parsed holds no character that means something in a path.
func (s records) path(handle string) string { return filepath.Join(s.dir, handle+recordSuffix) }

// load reads a volume's record; without one, its Volume is empty.
func (s records) load(handle string) (record, error) {
	b, err := os.ReadFile(s.path(handle))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("read the record of the staging: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("read the record of the staging %s: %w", s.path(handle), err)
	}
	if r.Volume != handle {
		return record{}, fmt.Errorf("read the record of the staging %s: it is of volume %q", s.path(handle), r.Volume)
	}
	return r, nil
}

// list reads all records. unreadable says which are left out.
func (s records) list() (all []record, unreadable []error, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list the records of stagings: %w", err)
	}
	for _, e := range entries {
		handle, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if _, err := rds.ParseHandle(handle); !ok || err != nil {
			continue
		}
		r, err := s.load(handle)
		switch {
		case err != nil:
			unreadable = append(unreadable, err)
		case r.Volume != "":
			all = append(all, r)
		}
	}
	return all, unreadable, nil
}

// save writes a record so that it is whole after a crash at any moment.
func (s records) save(r record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the record of the staging: %w", err)
	}
	f, err := os.CreateTemp(s.dir, newPrefix+"*")
	if err != nil {
		return fmt.Errorf("write the record of the staging: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.path(r.Volume))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write the record of the staging: %w", err)
	}
	return s.sync()
}

// remove forgets a volume.
func (s records) remove(handle string) error {
	if err := os.Remove(s.path(handle)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the record of the staging: %w", err)
	}
	return s.sync()
}

func (s records) sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("write the record of the staging: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
