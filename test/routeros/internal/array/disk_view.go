package array

import (
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/render"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// diskFlags are in the order of RouterOS's legend.
var diskFlags = []render.Flag{
	{Letter: 'X', Name: "disabled"}, {Letter: 'E', Name: "empty"}, {Letter: 'B', Name: "block-device"},
	{Letter: 'M', Name: "mounted"}, {Letter: 'F', Name: "formatting"}, {Letter: 'r', Name: "raid-member"},
	{Letter: 'p', Name: "partition"}, {Letter: 't', Name: "nvme-tcp-export"}, {Letter: 'i', Name: "iscsi-export"},
	{Letter: 's', Name: "smb-sharing"}, {Letter: 'n', Name: "nfs-sharing"},
}

// diskProperties are in the order of the recorded print detail.
var diskProperties = []render.Property{
	{Name: "type"}, {Name: "slot", Kind: render.Quoted}, {Name: "slot-default", Kind: render.Quoted},
	{Name: "parent", Kind: render.Quoted}, {Name: "fs-label", Kind: render.Quoted},
	{Name: "fs-uuid", Kind: render.Quoted}, {Name: "fs"}, {Name: "model", Kind: render.Quoted},
	{Name: "size", Kind: render.Grouped}, {Name: "free", Kind: render.Grouped},
	{Name: "total-inodes", Kind: render.Grouped}, {Name: "free-inodes", Kind: render.Grouped},
	{Name: "use", Kind: render.Percent}, {Name: "mount-point", Kind: render.Quoted},
	{Name: "mount-filesystem"}, {Name: "mount-read-only"}, {Name: "compress"}, {Name: "sector-size"},
	{Name: "raid-type"}, {Name: "raid-device-count"}, {Name: "raid-max-component-size"},
	{Name: "raid-chunk-size"}, {Name: "raid-role"}, {Name: "raid-master"},
	{Name: "state", Kind: render.Quoted}, {Name: "raid-uuid", Kind: render.Quoted},
	{Name: "nvme-tcp-export"}, {Name: "nvme-tcp-server-port"}, {Name: "nvme-tcp-server-nqn", Kind: render.Quoted},
	{Name: "nvme-tcp-server-allow-host-name", Kind: render.Quoted},
	{Name: "iscsi-export"}, {Name: "nfs-sharing"}, {Name: "smb-sharing"}, {Name: "media-sharing"},
	{Name: "media-interface"}, {Name: "swap"}, {Name: "file-path"}, {Name: "file-size", Kind: render.Rounded},
	{Name: "file-offset"},
}

var diskColumns = []string{"slot", "fs", "model", "size", "free", "use", "mount-point"}

const (
	no  = script.Bool(false)
	yes = script.Bool(true)
)

// diskDefaults are the values of properties nobody set.
var diskDefaults = map[string]script.Value{
	"slot-default": script.String(""), "parent": script.String(""), "disabled": no,
	"mount-filesystem": yes, "mount-read-only": no, "compress": no, "sector-size": script.Number(512),
	"raid-master": script.String("none"), "nvme-tcp-export": no, "iscsi-export": no, "nfs-sharing": no,
	"smb-sharing": no, "media-sharing": no, "media-interface": script.String("none"), "swap": no,
}

// exportOnly are shown while the export is on.
var exportOnly = []string{"nvme-tcp-server-port", "nvme-tcp-server-nqn", "nvme-tcp-server-allow-host-name"}

type diskTable struct{ *Array }

func (diskTable) nameKey() string { return "slot" }

func (diskTable) view() render.View {
	return render.View{Flags: diskFlags, Properties: diskProperties, Columns: diskColumns}
}

func (t diskTable) records() []record {
	out := make([]record, 0, len(t.disks))
	for _, d := range t.disks {
		out = append(out, t.diskRecord(d))
	}
	return out
}

func (a *Array) diskRecord(d *disk) record {
	r := record{
		id: d.id, comment: d.text("comment"), flags: diskFlagsOf(d),
		values: map[string]script.Value{}, hidden: map[string]script.Value{},
	}
	for name, v := range diskDefaults {
		r.values[name] = v
	}
	delete(r.values, "disabled") // a flag
	a.computed(d, r.values)
	for name, v := range d.props {
		r.values[name] = v
	}
	delete(r.values, "comment")
	delete(r.values, "disabled")
	r.values["type"] = d.value("type")
	on := d.is("nvme-tcp-export")
	for _, name := range exportOnly {
		if on || a.cfg.Style.ShowIdleExport && d.file != nil {
			r.values[name] = a.exportValue(d, name)
			continue
		}
		delete(r.values, name)
		r.hidden[name] = a.exportValue(d, name)
	}
	for name, v := range r.values {
		if strings.HasSuffix(name, "-password") || strings.HasSuffix(name, "-key") {
			r.hidden[name] = v
			delete(r.values, name)
		}
	}
	return r
}

func diskFlagsOf(d *disk) map[byte]bool {
	disabled := d.is("disabled")
	return map[byte]bool{
		'X': disabled,
		'E': d.is("empty"),
		'B': !d.is("empty"),
		'M': d.pool != nil && !disabled,
		'r': d.value("raid-master").String() != "none",
		'p': d.text("type") == "partition",
		't': d.is("nvme-tcp-export"), 'i': d.is("iscsi-export"), 's': d.is("smb-sharing"), 'n': d.is("nfs-sharing"),
	}
}

// computed fills in what follows from the disk's file or file system.
func (a *Array) computed(d *disk, v map[string]script.Value) {
	switch {
	case d.file != nil:
		v["fs"] = script.String("-")
		v["model"] = script.String("/" + d.file.name)
		v["size"] = script.Number(d.file.size)
		v["file-path"] = script.String("/" + d.file.name)
		v["file-size"] = script.Number(d.file.size)
		v["file-offset"] = script.Number(0)
	case d.pool != nil:
		free := a.free(d.pool)
		inodes := d.pool.size / 10240
		if n, ok := d.props["total-inodes"].(script.Number); ok {
			inodes = int64(n)
		}
		v["fs"] = script.String(d.pool.fs)
		v["size"] = script.Number(d.pool.size)
		v["free"] = script.Number(free)
		v["total-inodes"] = script.Number(inodes)
		v["free-inodes"] = script.Number(inodes - a.inodesUsed(d.pool))
		v["use"] = script.Number((2*100*(d.pool.size-free) + d.pool.size) / (2 * max(d.pool.size, 1)))
		v["mount-point"] = script.String(d.pool.mount)
	default:
		if _, ok := d.props["fs"]; !ok {
			v["fs"] = script.String("-")
		}
	}
}

func (a *Array) inodesUsed(p *pool) int64 {
	n := int64(0)
	for name := range a.files {
		if strings.HasPrefix(name, p.mount+"/") {
			n++
		}
	}
	return n
}

// exportValue is a property of the NVMe/TCP export, defaults included.
func (a *Array) exportValue(d *disk, name string) script.Value {
	if v, ok := d.props[name]; ok {
		return v
	}
	switch name {
	case "nvme-tcp-server-port":
		return script.Number(a.cfg.DefaultNVMePort)
	case "nvme-tcp-server-nqn":
		return script.String(a.cfg.DefaultNQN + d.text("slot"))
	}
	return script.String("")
}
