package array

import (
	"fmt"
	"path"
	"sort"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/render"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

type fileTable struct{ *Array }

func (fileTable) nameKey() string { return "name" }

func (fileTable) view() render.View {
	return render.View{
		Properties: []render.Property{
			{Name: "name"}, {Name: "type"}, {Name: "size", Kind: render.Rounded}, {Name: "last-modified"},
			{Name: "contents"},
		},
		Columns: []string{"name", "type", "size", "last-modified"},
	}
}

func (t fileTable) records() []record {
	names := make([]string, 0, len(t.files))
	for name := range t.files {
		names = append(names, name)
	}
	sort.Strings(names)
	out := make([]record, 0, len(names))
	for _, name := range names {
		out = append(out, t.files[name].record())
	}
	return out
}

func (f *file) record() record {
	r := record{id: f.id, values: map[string]script.Value{
		"name": script.String(f.name), "type": script.String(f.typeName()),
		"last-modified": script.String(f.modified.Format("2006-01-02 15:04:05")),
	}, hidden: map[string]script.Value{}}
	if f.kind == "file" {
		r.values["size"] = script.Number(f.size)
		r.hidden["contents"] = script.String(f.content)
	}
	return r
}

// typeName is ".img file" for x.img.
func (f *file) typeName() string {
	if f.kind != "file" {
		return f.kind
	}
	if ext := path.Ext(f.name); ext != "" {
		return ext + " file"
	}
	return "file"
}

// newToken names the data of a new file, so that copies can be told from
// files that merely have the same name.
func (a *Array) newToken() string {
	a.token++
	return fmt.Sprintf("data-%d", a.token)
}

// checkPlace refuses a new file that has no room or no directory.
func (a *Array) checkPlace(name string, need int64) error {
	p := a.poolOf(name)
	if p == nil {
		return &script.Failure{Msg: a.cfg.Phrases.NoPool}
	}
	if dir := a.files[parentDir(name)]; dir == nil || dir.kind == "file" {
		return &script.Failure{Msg: a.cfg.Phrases.NoDirectory}
	}
	if a.readOnlyAt(name) || p.is("mount-read-only") {
		return &script.Failure{Msg: a.cfg.Phrases.ReadOnly}
	}
	if need > a.free(p.pool) {
		return &script.Failure{Msg: a.cfg.Phrases.NoSpace}
	}
	return nil
}

// createFile makes a preallocated file. Without content it gets a new token.
func (a *Array) createFile(name string, size int64, content string) (*file, error) {
	if err := a.checkPlace(name, size); err != nil {
		return nil, err
	}
	if err := a.apply(Event{Kind: FileCreate, File: name, Size: size}); err != nil {
		return nil, err
	}
	if content == "" {
		content = a.newToken()
	}
	return a.putFile(&file{name: name, kind: "file", size: size, content: content}), nil
}

func (a *Array) putFile(f *file) *file {
	f.id = a.newID("/file")
	f.modified = a.cfg.Now()
	a.files[f.name] = f
	return f
}

func (t fileTable) add(args map[string]script.Value) (string, error) {
	name := ""
	if v, ok := args["name"]; ok {
		name = cleanName(v.String())
	}
	if name == "" {
		return "", script.Failuref("failure: name must be set")
	}
	if t.files[name] != nil {
		return "", &script.Failure{Msg: t.cfg.Phrases.DuplicateFile}
	}
	kind := "file"
	if v, ok := args["type"]; ok && v.String() == "directory" {
		kind = "directory"
	} else if ok && v.String() != "file" {
		return "", script.Failuref("input does not match any value of type")
	}
	if kind == "file" {
		content := ""
		if v, ok := args["contents"]; ok {
			content = v.String()
		}
		f, err := t.createFile(name, int64(len(content)), content)
		if err != nil {
			return "", err
		}
		return f.id, nil
	}
	if err := t.checkPlace(name, 0); err != nil {
		return "", err
	}
	return t.putFile(&file{name: name, kind: kind}).id, nil
}

func (a *Array) fileByID(id string) *file {
	for _, f := range a.files {
		if f.id == id {
			return f
		}
	}
	return nil
}

func (t fileTable) set(id string, args map[string]script.Value, unset []string) error {
	f := t.fileByID(id)
	if f == nil {
		return errGone
	}
	if len(unset) > 0 || f.kind == "disk" {
		return script.Failuref("failure: can not change %s", f.name)
	}
	if v, ok := args["contents"]; ok && f.kind == "file" {
		if t.attached(f) {
			return &script.Failure{Msg: t.cfg.Phrases.Busy}
		}
		f.content, f.size, f.modified = v.String(), int64(len(v.String())), t.cfg.Now()
	}
	if v, ok := args["name"]; ok {
		return t.rename(f, cleanName(v.String()))
	}
	return nil
}

func (a *Array) attached(f *file) bool {
	for _, d := range a.disks {
		if d.file == f {
			return true
		}
	}
	return false
}

// rename moves one file; its disk, if any, follows it.
func (a *Array) rename(f *file, to string) error {
	if f.kind != "file" {
		return script.Failuref("failure: renaming a directory can not be simulated")
	}
	if a.files[to] != nil {
		return &script.Failure{Msg: a.cfg.Phrases.DuplicateFile}
	}
	if err := a.checkPlace(to, 0); err != nil {
		return err
	}
	if a.poolOf(to) != a.poolOf(f.name) {
		return script.Failuref("failure: can not move to another disk")
	}
	if err := a.apply(Event{Kind: FileRename, From: f.name, File: to}); err != nil {
		return err
	}
	delete(a.files, f.name)
	f.name = to
	a.files[to] = f
	return nil
}

func (t fileTable) remove(id string) error {
	f := t.fileByID(id)
	switch {
	case f == nil:
		return errGone
	case f.kind == "disk" || t.subvolumeAt(f.name) != nil:
		return &script.Failure{Msg: t.cfg.Phrases.Busy}
	case t.readOnlyAt(f.name):
		return &script.Failure{Msg: t.cfg.Phrases.ReadOnly}
	case f.kind == "directory":
		for _, s := range t.subs {
			if strings.HasPrefix(t.subvolumeDir(s), f.name+"/") {
				return &script.Failure{Msg: t.cfg.Phrases.Busy}
			}
		}
		return t.removeTree(f.name)
	}
	return t.unlink(f)
}

// removeTree removes a directory and all below it.
func (a *Array) removeTree(dir string) error {
	for name, f := range a.files {
		if strings.HasPrefix(name, dir+"/") && f.kind == "file" {
			if err := a.unlink(f); err != nil {
				return err
			}
		}
	}
	for name := range a.files {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			delete(a.files, name)
		}
	}
	return nil
}

// unlink takes the name away. A disk that holds the file keeps its data and
// the space, as on any Unix.
func (a *Array) unlink(f *file) error {
	if err := a.apply(Event{Kind: FileRemove, File: f.name, Size: f.size}); err != nil {
		return err
	}
	delete(a.files, f.name)
	if a.attached(f) {
		a.orphans[f] = true
	}
	return nil
}

// copy runs /file copy and /disk copy.
func (c *Console) copy(t table, call *script.Call) error {
	if _, ok := t.(fileTable); ok {
		return c.copyFile(call)
	}
	if _, ok := t.(diskTable); ok {
		return c.copyDisk(call)
	}
	return script.Failuref("failure: %s/copy is not simulated", call.Menu.Path)
}

func (c *Console) copyFile(call *script.Call) error {
	a := c.array
	ids, err := c.ids(fileTable{a}, call.Menu.Path, fileTable{a}.records(), call.Args["number"])
	if err != nil {
		return err
	}
	if len(ids) != 1 {
		return errNoSuchItem
	}
	src, to := a.fileByID(ids[0]), cleanName(call.Text("name"))
	if src.kind != "file" || to == "" {
		return invalid("name")
	}
	if a.files[to] != nil {
		return &script.Failure{Msg: a.cfg.Phrases.DuplicateFile}
	}
	if err := a.checkPlace(to, src.size); err != nil {
		return err
	}
	if err := a.apply(Event{Kind: FileCopy, From: src.name, File: to, Size: src.size}); err != nil {
		return err
	}
	a.putFile(&file{name: to, kind: "file", size: src.size, content: src.content})
	return nil
}

// copyDisk copies one disk's data over another's.
func (c *Console) copyDisk(call *script.Call) error {
	a := c.array
	src, dst := a.diskBySlot(call.Text("src")), a.diskBySlot(call.Text("dst"))
	switch {
	case src == nil || src.file == nil:
		return script.Failuref("input does not match any value of src")
	case dst == nil || dst.file == nil:
		return script.Failuref("input does not match any value of dst")
	case dst.file.size < src.file.size:
		return &script.Failure{Msg: a.cfg.Phrases.NoSpace}
	}
	if err := a.apply(Event{Kind: FileCopy, From: src.file.name, File: dst.file.name, Size: src.file.size}); err != nil {
		return err
	}
	dst.file.content, dst.file.modified = src.file.content, a.cfg.Now()
	return nil
}
