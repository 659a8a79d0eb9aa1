package array

import (
	"errors"
	"strconv"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

func (t diskTable) add(args map[string]script.Value) (string, error) {
	props := map[string]script.Value{}
	if from, ok := args["copy-from"]; ok {
		src, err := t.copySource(from)
		if err != nil {
			return "", err
		}
		props = src
	}
	given, err := typedAll(args)
	if err != nil {
		return "", err
	}
	delete(given, "copy-from")
	for k, v := range given {
		props[k] = v
	}
	d := &disk{props: props}
	if d.text("comment") == "" {
		delete(props, "comment")
	}
	if d.text("type") == "" {
		return "", script.Failuref("failure: type must be set")
	}
	if d.text("slot") == "" {
		props["slot"] = script.String(t.freeSlot(d.text("type")))
	}
	if err := t.checkSlot(d.text("slot"), nil); err != nil {
		return "", err
	}
	created, err := t.backing(d)
	if err != nil {
		return "", err
	}
	if err := t.applyExport(nil, d); err != nil {
		if created {
			err = errors.Join(err, t.unlink(d.file))
		}
		return "", err
	}
	d.id = t.newID("/disk")
	t.disks = append(t.disks, d)
	return d.id, nil
}

// copySource is the settings of the item that copy-from names. The data is not
// copied, and neither are the names that must be unique.
func (t diskTable) copySource(from script.Value) (map[string]script.Value, error) {
	ids, err := resolve(t, t.records(), nil, from)
	if err != nil || len(ids) != 1 {
		return nil, errNoSuchItem
	}
	src := t.byID(ids[0]).clone()
	props := src.props
	if src.file != nil {
		props["file-size"] = script.Number(src.file.size)
	}
	for _, unique := range []string{"slot", "nvme-tcp-server-nqn", "file-path"} {
		delete(props, unique)
	}
	return props, nil
}

func (a *Array) freeSlot(prefix string) string {
	for i := 1; ; i++ {
		if slot := prefix + strconv.Itoa(i); a.diskBySlot(slot) == nil {
			return slot
		}
	}
}

func (a *Array) byID(id string) *disk {
	for _, d := range a.disks {
		if d.id == id {
			return d
		}
	}
	return nil
}

// backing makes or attaches what a new disk stands on; created tells a file
// that was made from one that was there.
func (a *Array) backing(d *disk) (created bool, err error) {
	switch d.text("type") {
	case "file":
		return a.attachFile(d)
	case "ramdisk", "tmpfs":
		n, ok := d.props["ramdisk-size"].(script.Number)
		if !ok {
			n, ok = d.props["tmpfs-max-size"].(script.Number)
		}
		if !ok {
			return false, script.Failuref("failure: ramdisk-size must be set")
		}
		d.props["size"] = n
		return false, nil
	}
	return false, script.Failuref("failure: type=%s can not be simulated", d.text("type"))
}

// attachFile takes the file at file-path as it is, or makes it of file-size.
func (a *Array) attachFile(d *disk) (created bool, err error) {
	path := cleanName(d.text("file-path"))
	want, sized := d.props["file-size"].(script.Number)
	if off, ok := d.props["file-offset"].(script.Number); ok && off != 0 {
		return false, script.Failuref("failure: file-offset can not be simulated")
	}
	for _, computed := range []string{"file-path", "file-size", "file-offset"} {
		delete(d.props, computed)
	}
	if path == "" || strings.HasSuffix(path, "/") {
		return false, script.Failuref("failure: file-path must be set")
	}
	if f := a.files[path]; f != nil {
		if f.kind != "file" {
			return false, invalid("file-path")
		}
		for _, other := range a.disks {
			if other.file == f {
				return false, &script.Failure{Msg: a.cfg.Phrases.DuplicateFile}
			}
		}
		d.file = f
		return false, nil
	}
	if !sized {
		if err := a.checkPlace(path, 0); err != nil {
			return false, err
		}
		return false, &script.Failure{Msg: a.cfg.Phrases.NoSuchFile}
	}
	f, err := a.createFile(path, int64(want), "")
	d.file = f
	return err == nil, err
}

// frozen properties are those a set may not change.
var frozen = map[string]bool{"type": true, "file-path": true, "file-offset": true}

func (t diskTable) set(id string, args map[string]script.Value, unset []string) error {
	d := t.byID(id)
	if d == nil {
		return errGone
	}
	given, err := typedAll(args)
	if err != nil {
		return err
	}
	next := d.clone()
	for name, v := range given {
		if name == "file-size" && d.file != nil {
			continue
		}
		if frozen[name] && v.String() != next.value(name).String() {
			return script.Failuref("failure: can not change %s", name)
		}
		next.props[name] = v
	}
	for _, name := range unset {
		if !t.menu("/disk").Properties[name] {
			return script.Failuref("unknown parameter %s", name)
		}
		if name == "slot" || frozen[name] || name == "file-size" {
			return script.Failuref("failure: can not unset %s", name)
		}
		delete(next.props, name)
	}
	if next.text("comment") == "" {
		delete(next.props, "comment")
	}
	if slot := next.text("slot"); slot != d.text("slot") {
		if err := t.checkSlot(slot, d); err != nil {
			return err
		}
	}
	grown, err := t.growth(d, given["file-size"])
	if err != nil {
		return err
	}
	if err := t.applyExport(d, next); err != nil {
		return err
	}
	if grown > 0 {
		if err := t.grow(next, grown); err != nil {
			return err
		}
	}
	*d = *next
	return nil
}

// growth checks a new file-size; 0 means no change.
func (a *Array) growth(d *disk, size script.Value) (int64, error) {
	want, ok := size.(script.Number)
	if !ok || d.file == nil || int64(want) == d.file.size {
		return 0, nil
	}
	if int64(want) < d.file.size {
		return 0, &script.Failure{Msg: a.cfg.Phrases.Shrink}
	}
	if p := a.poolOf(d.file.name); p == nil || int64(want)-d.file.size > a.free(p.pool) {
		return 0, &script.Failure{Msg: a.cfg.Phrases.NoSpace}
	}
	return int64(want), nil
}

func (a *Array) grow(d *disk, size int64) error {
	if err := a.apply(Event{Kind: FileResize, File: d.file.name, Size: size}); err != nil {
		return err
	}
	d.file.size = size
	d.file.modified = a.cfg.Now()
	if e := a.exportOf(d); e != nil {
		e.Kind = ExportResize
		return a.apply(*e)
	}
	return nil
}

// remove forgets the disk and never touches its file.
func (t diskTable) remove(id string) error {
	d := t.byID(id)
	if d == nil {
		return errGone
	}
	if d.pool != nil {
		for _, other := range t.disks {
			if other.file != nil && t.poolOf(other.file.name) == d {
				return &script.Failure{Msg: t.cfg.Phrases.Busy}
			}
		}
	}
	if err := t.applyExport(d, nil); err != nil {
		return err
	}
	for i := range t.disks {
		if t.disks[i] == d {
			t.disks = append(t.disks[:i:i], t.disks[i+1:]...)
			break
		}
	}
	delete(t.orphans, d.file)
	return nil
}

// exportOf is what the disk shows to hosts, nil when it shows nothing.
func (a *Array) exportOf(d *disk) *Event {
	if d == nil || d.is("disabled") || !d.is("nvme-tcp-export") {
		return nil
	}
	e := &Event{
		Slot: d.text("slot"), NQN: a.exportValue(d, "nvme-tcp-server-nqn").String(),
		AllowHost: d.text("nvme-tcp-server-allow-host-name"), Password: d.text("nvme-tcp-server-password"),
	}
	if p, ok := a.exportValue(d, "nvme-tcp-server-port").(script.Number); ok {
		e.Port = int(p)
	}
	if d.file != nil {
		e.File, e.Size = d.file.name, d.file.size
	}
	return e
}

// applyExport tells the backend how the export changes from one state to the next.
func (a *Array) applyExport(from, to *disk) error {
	before, after := a.exportOf(from), a.exportOf(to)
	if after != nil {
		for _, other := range a.disks {
			if e := a.exportOf(other); other != from && e != nil && e.NQN == after.NQN && e.Port == after.Port {
				return &script.Failure{Msg: a.cfg.Phrases.DuplicateNQN}
			}
		}
	}
	switch {
	case before == nil && after == nil:
		return nil
	case before == nil:
		after.Kind = ExportOn
		return a.apply(*after)
	case after == nil:
		before.Kind = ExportOff
		return a.apply(*before)
	case *before == *after:
		return nil
	}
	after.Kind = ExportChange
	return a.apply(*after)
}

func (a *Array) apply(e Event) error {
	if err := a.cfg.Backend.Apply(e); err != nil {
		return script.Failuref("failure: %v", err)
	}
	return nil
}
