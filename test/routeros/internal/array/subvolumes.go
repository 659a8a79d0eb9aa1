package array

import (
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/render"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

type subvolumeTable struct{ *Array }

// nameKey is empty: names are unique only within one file system.
func (subvolumeTable) nameKey() string { return "" }

func (subvolumeTable) view() render.View {
	return render.View{
		Properties: []render.Property{
			{Name: "fs"}, {Name: "name", Kind: render.Quoted}, {Name: "parent", Kind: render.Quoted}, {Name: "read-only"},
		},
		Columns: []string{"fs", "name", "parent", "read-only"},
	}
}

func (t subvolumeTable) records() []record {
	out := make([]record, 0, len(t.subs))
	for _, s := range t.subs {
		r := record{id: s.id, values: map[string]script.Value{
			"fs": script.String(s.fs), "name": script.String(s.name), "read-only": script.Bool(s.readOnly),
		}}
		if s.parent != "" {
			r.values["parent"] = script.String(s.parent)
		}
		out = append(out, r)
	}
	return out
}

func (a *Array) subvolume(fs, name string) *subvolume {
	for _, s := range a.subs {
		if s.fs == fs && s.name == name {
			return s
		}
	}
	return nil
}

func (a *Array) subvolumeAt(dir string) *subvolume {
	for _, s := range a.subs {
		if a.subvolumeDir(s) == dir {
			return s
		}
	}
	return nil
}

// readOnlyAt: the name lies in a read-only subvolume.
func (a *Array) readOnlyAt(name string) bool {
	for _, s := range a.subs {
		if s.readOnly && strings.HasPrefix(name, a.subvolumeDir(s)+"/") {
			return true
		}
	}
	return false
}

func (t subvolumeTable) add(args map[string]script.Value) (string, error) {
	get := func(name string) string {
		if v, ok := args[name]; ok {
			return v.String()
		}
		return ""
	}
	s := &subvolume{fs: get("fs"), name: strings.Trim(get("name"), "/"), parent: get("parent")}
	if v, ok := args["read-only"]; ok {
		t, ok := script.Truth(script.String(v.String()))
		if !ok {
			return "", invalid("read-only")
		}
		s.readOnly = t
	}
	d := t.diskBySlot(s.fs)
	var source *subvolume
	switch {
	case d == nil || d.pool == nil || d.pool.fs != "btrfs" || d.is("disabled"):
		return "", script.Failuref("input does not match any value of fs")
	case s.name == "":
		return "", script.Failuref("failure: name must be set")
	}
	if s.parent != "" {
		if source = t.subvolume(s.fs, s.parent); source == nil {
			return "", script.Failuref("input does not match any value of parent")
		}
	}
	dir := t.subvolumeDir(s)
	if t.files[dir] != nil {
		return "", script.Failuref("failure: already have such subvolume")
	}
	if err := t.checkPlace(dir, 0); err != nil {
		return "", err
	}
	if source != nil {
		if err := t.copyTree(t.subvolumeDir(source), dir); err != nil {
			return "", err
		}
	}
	t.putFile(&file{name: dir, kind: "directory"})
	s.id = t.newID("/disk/btrfs/subvolume")
	t.subs = append(t.subs, s)
	return s.id, nil
}

// copyTree is a snapshot: the same data, no space.
func (a *Array) copyTree(from, to string) error {
	var copies []*file
	for name, f := range a.files {
		if strings.HasPrefix(name, from+"/") {
			c := *f
			c.name = to + strings.TrimPrefix(name, from)
			c.shared = f.kind == "file"
			copies = append(copies, &c)
			if f.kind != "file" {
				continue
			}
			if err := a.apply(Event{Kind: FileCopy, From: name, File: c.name, Size: f.size}); err != nil {
				return err
			}
		}
	}
	for _, c := range copies {
		a.putFile(c)
	}
	return nil
}

func (t subvolumeTable) byID(id string) (int, *subvolume) {
	for i, s := range t.subs {
		if s.id == id {
			return i, s
		}
	}
	return -1, nil
}

func (t subvolumeTable) set(id string, args map[string]script.Value, _ []string) error {
	_, s := t.byID(id)
	if s == nil {
		return errGone
	}
	for name, v := range args {
		if name != "read-only" {
			return script.Failuref("failure: can not change %s", name)
		}
		truth, ok := script.Truth(script.String(v.String()))
		if !ok {
			return invalid(name)
		}
		s.readOnly = truth
	}
	return nil
}

// remove takes the subvolume and every file in it.
func (t subvolumeTable) remove(id string) error {
	i, s := t.byID(id)
	if s == nil {
		return errGone
	}
	dir := t.subvolumeDir(s)
	for _, other := range t.subs {
		if strings.HasPrefix(t.subvolumeDir(other), dir+"/") {
			return &script.Failure{Msg: t.cfg.Phrases.Busy}
		}
	}
	if err := t.removeTree(dir); err != nil {
		return err
	}
	t.subs = append(t.subs[:i:i], t.subs[i+1:]...)
	return nil
}
