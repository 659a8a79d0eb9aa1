package routeros

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// foundFiles is what a slot has on the array.
type foundFiles struct {
	disk *rds.Volume // nil where there is none
	leftovers
	users []string // slots of other disks whose images have the slot's prefix
}

// leftovers are names as the array spells them.
type leftovers struct {
	files      []string // in /file, directories as well
	subvolumes []string // relative to the pool
}

// listing shows a slot's disk, the disks on its files, its files, and on btrfs
// its subvolumes. found reads it.
func listing(c *Config, p pool, slot string) []string {
	out := []string{
		show(disksWhere(whereSlot(slot))),
		show(disksWhere(whereImage(filePrefix(c.BasePath, slot)))),
		show(fileMenu + "/print detail as-value where " + whereFiles(c.BasePath, slot)),
	}
	if p.FS == "btrfs" {
		prefix := strings.TrimPrefix(filePrefix(c.BasePath, slot), p.MountPoint+"/")
		out = append(out, show(subvolumeMenu+"/print detail as-value where name~"+quoteExpr("^", prefix, "")+" and fs="+Quote(p.slot)))
	}
	return out
}

func (a *Array) found(slot string, got answer) (foundFiles, error) {
	var f foundFiles
	if len(got.values) != 3 && len(got.values) != 4 {
		return f, got.want(3)
	}
	v, err := a.one(slot, got.values[0])
	switch {
	case err == nil:
		f.disk = &v
	case !errors.Is(err, rds.ErrNotFound):
		return f, err
	}
	users, err := decodeNames(got.values[1], "slot")
	if err != nil {
		return f, err
	}
	for _, user := range users {
		if user != slot {
			f.users = append(f.users, user)
		}
	}
	if f.files, err = decodeNames(got.values[2], "name"); err != nil || len(got.values) == 3 {
		return f, err
	}
	f.subvolumes, err = decodeNames(got.values[3], "name")
	return f, err
}

func decodeNames(value json.RawMessage, key string) ([]string, error) {
	rows, err := decodeRows(value)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range rows {
		name := r.text(key)
		if name == "" {
			return nil, fmt.Errorf("an item of the answer has no %s", key)
		}
		names = append(names, strings.TrimPrefix(name, "/"))
	}
	return names, nil
}

// tolerable counts the files of a slot without a disk, if every one of them was
// provably made by this driver and no disk stands on them.
func (f foundFiles) tolerable(c *Config, slot string) (int, error) {
	if len(f.users) > 0 {
		return 0, &rds.Error{Kind: rds.ErrExists, Err: fmt.Errorf("disk %s stands on a file of this volume", strings.Join(f.users, ", "))}
	}
	for _, name := range f.files {
		rest, ok := strings.CutPrefix(name, c.BasePath+"/"+slot)
		if !ok || !madeHere.MatchString(rest) {
			return 0, &rds.Error{Kind: rds.ErrExists, Err: fmt.Errorf("the file %s is in the way", name), Hint: "it has no disk and was not made by this driver; remove or rename it"}
		}
	}
	return len(f.files), nil
}

// others are the leftovers beside the volume's own image.
func (f foundFiles) others(path string) leftovers {
	path = strings.TrimPrefix(path, "/")
	var out leftovers
	for _, name := range f.files {
		if name != path && !strings.HasPrefix(path, name+"/") {
			out.files = append(out.files, name)
		}
	}
	for _, name := range f.subvolumes {
		if !strings.Contains(path+"/", "/"+name+"/") {
			out.subvolumes = append(out.subvolumes, name)
		}
	}
	return out
}

// removeFile removes one file by its literal name, if it is there and no disk
// stands on it.
func removeFile(name string) string {
	named := "name=" + Quote(name)
	return when([]string{
		count(diskMenu, "file-path="+Quote("/"+name)+" or file-path="+Quote(name), 0),
		count(fileMenu, named, 1),
	}, fileMenu+"/remove "+find(fileMenu, named))
}

// removeSubvolume removes one subvolume, and the image in it, if it is there and
// no disk stands on that.
func removeSubvolume(p pool, name string) string {
	named := "name=" + Quote(name) + " and fs=" + Quote(p.slot)
	return when([]string{
		count(diskMenu, whereImage(p.MountPoint+"/"+name+"/"), 0),
		count(subvolumeMenu, named, 1),
	}, subvolumeMenu+"/remove "+find(subvolumeMenu, named))
}

// removalsOf are the statements that remove leftovers by their literal names,
// subvolumes first. The names were never used before and never will be again, so a
// removal that runs late meets nothing that is alive.
func removalsOf(p pool, names leftovers) []string {
	var statements []string
	for _, name := range names.subvolumes {
		statements = append(statements, removeSubvolume(p, name))
	}
	for _, name := range names.files {
		statements = append(statements, removeFile(name))
	}
	return statements
}

// removeFiles removes leftovers in as many scripts as it takes.
func (a *Array) removeFiles(ctx context.Context, p pool, slot string, names leftovers) error {
	for statements := removalsOf(p, names); len(statements) > 0; {
		s := newScript("files", true)
		statements = s.fill(statements, 0)
		if _, err := a.changing(ctx, slot, s); err != nil {
			return err
		}
	}
	return nil
}
