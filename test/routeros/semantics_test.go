package routeros_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// TestCommands runs commands one after the other on one array; the last one's
// output, or error after "!", counts.
func TestCommands(t *testing.T) {
	const add = `/disk/add type=file slot=v file-path=/raid10/v.img file-size=1G mount-filesystem=no`
	const size = `:put [/disk/get v size]`
	tests := map[string]struct {
		scripts []string
		want    string
	}{
		"binary suffix":          {[]string{add, size}, "1073741824"},
		"exact bytes":            {[]string{`/disk/add type=file slot=v file-path=raid10/v.img file-size=1073741825`, size}, "1073741825"},
		"add answers the id":     {[]string{`:put [` + add + `]`}, "*2"},
		"path with slash":        {[]string{add, `:put [/disk/get v file-path]`}, "/raid10/v.img"},
		"file without slash":     {[]string{add, `:put [/file/get [find name="raid10/v.img"] name]`}, "raid10/v.img"},
		"default nqn":            {[]string{add, `:put [/disk/get v nvme-tcp-server-nqn]`}, "nqn.2000-02.com.mikrotik:v"},
		"grow":                   {[]string{add, `/disk/set v file-size=2G`, size}, "2147483648"},
		"shrink":                 {[]string{add, `/disk/set v file-size=1M`}, "!failure: file-size can not be reduced"},
		"same size":              {[]string{add, `/disk/set v file-size=1G`, size}, "1073741824"},
		"grow too far":           {[]string{add, `/disk/set v file-size=11T`}, "!failure: not enough disk space"},
		"duplicate slot":         {[]string{add, add}, "!failure: already have such slot"},
		"same file twice":        {[]string{add, `/disk/add type=file slot=w file-path=/raid10/v.img`}, "!failure: already have such file"},
		"no room":                {[]string{`/disk/add type=file slot=v file-path=/raid10/v.img file-size=11T`}, "!failure: not enough disk space"},
		"no pool":                {[]string{`/disk/add type=file slot=v file-path=/other/v.img file-size=1G`}, "!failure: file-path is not on a mounted disk"},
		"no directory":           {[]string{`/disk/add type=file slot=v file-path=/raid10/a/v.img file-size=1G`}, "!failure: no such directory"},
		"made directory":         {[]string{`/file/add type=directory name=raid10/a`, `/disk/add type=file slot=v file-path=/raid10/a/v.img file-size=1G`, size}, "1073741824"},
		"no size":                {[]string{`/disk/add type=file slot=v file-path=/raid10/v.img`}, "!failure: file does not exist and file-size is not set"},
		"no type":                {[]string{`/disk/add slot=v`}, "!failure: type must be set"},
		"bad type":               {[]string{`/disk/add type=foo slot=v`}, "!input does not match any value of type"},
		"bad boolean":            {[]string{add, `/disk/set v nvme-tcp-export=maybe`}, "!invalid value of nvme-tcp-export"},
		"bad size":               {[]string{`/disk/add type=file slot=v file-path=/raid10/v.img file-size=lots`}, "!invalid value of file-size"},
		"bad port":               {[]string{add, `/disk/set v nvme-tcp-server-port=0`}, "!invalid value of nvme-tcp-server-port"},
		"long slot":              {[]string{`/disk/add type=file file-path=/raid10/v.img file-size=1G slot=` + strings.Repeat("x", 33)}, "!failure: slot name too long, at most 32 characters"},
		"longest slot":           {[]string{`:put [/disk/add type=file file-path=/raid10/v.img file-size=1G slot=` + strings.Repeat("x", 32) + `]`}, "*2"},
		"existing file":          {[]string{add, `/disk/remove v`, `/disk/add type=file slot=v file-path=/raid10/v.img file-size=9G`, size}, "1073741824"},
		"remove keeps the file":  {[]string{add, `/disk/remove v`, `:put [:len [/file/find name="raid10/v.img"]]`}, "1"},
		"remove the file":        {[]string{add, `/disk/remove v`, `/file/remove [find where name="raid10/v.img"]`, `:put [:len [/file/find name="raid10/v.img"]]`}, "0"},
		"remove nothing found":   {[]string{`/disk/remove [find where slot="x"]`}, ""},
		"set nothing found":      {[]string{`/disk/set [find where slot="x"] comment=a`}, ""},
		"get nothing found":      {[]string{`:put [/disk/get [find where slot="x"] slot]`}, "!no such item"},
		"missing id":             {[]string{`/disk/set *1F comment=x`}, "!no such item (4)"},
		"missing name":           {[]string{`/disk/remove nobody`}, "!no such item"},
		"by index":               {[]string{add, `:put [/disk/get 1 slot]`}, "v"},
		"by printed index":       {[]string{add, `/disk/print terse proplist=slot where slot=v; /disk/set 1 comment=x; :put [/disk/get v comment]`}, "1 B slot=v\nx"},
		"several":                {[]string{add, `/disk/set raid10,v comment=x`, `:put [:len [/disk/find comment=x]]`}, "2"},
		"comment command":        {[]string{add, `/disk/comment v comment="a b"`, `:put [/disk/get v comment]`}, "a b"},
		"comment by position":    {[]string{add, `/disk comment v x`, `:put [/disk/get v comment]`}, "x"},
		"empty comment is unset": {[]string{add, `/disk/set v comment=a`, `/disk/comment v comment=""`, `:put [/disk/get v comment]; :put ([/disk/print detail as-value where slot=v]->0->"comment")`}, "\n"},
		"unset":                  {[]string{add, `/disk/set v comment=a`, `/disk/unset v comment`, `:put [:len [/disk/find where comment=a]]`}, "0"},
		"unset with !":           {[]string{add, `/disk/set v comment=a`, `/disk/set v !comment`, `:put [:len [/disk/find where comment=a]]`}, "0"},
		"comment yes":            {[]string{add, `/disk/set v comment=yes`, `:put [:len [/disk/find where comment=yes]]`}, "1"},
		"slot that is a number":  {[]string{`/disk/add type=file slot=77 file-path=/raid10/v.img file-size=1G`, `:put [/disk/get 77 slot]`}, "77"},
		"disable":                {[]string{add, `/disk/disable v`, `:put [/disk/get v disabled]; :put [:len [/disk/find where disabled]]`}, "true\n1"},
		"enable":                 {[]string{add, `/disk/disable v`, `/disk/enable v`, `:put [:len [/disk/find disabled=no slot=v]]`}, "1"},
		"count":                  {[]string{add, `:put [/disk/print count-only where type=file]`, `/disk/print count-only`}, "2"},
		"proplist":               {[]string{add, `:put [/disk/print as-value proplist=slot,size where slot=v]`}, ".id=*2;size=1073741824;slot=v"},
		"order":                  {[]string{add, `:foreach d in=[/disk/print as-value proplist=slot order-by=size] do={:put ($d->"slot")}`}, "v\nraid10"},
		"without detail":         {[]string{add, `:put [:typeof ([/disk/print as-value where slot=v]->0->"compress")]`}, "nothing"},
		"terse":                  {[]string{add, `/disk/print terse proplist=slot,file-size where slot=v`}, "1 B slot=v file-size=1.0GiB"},
		"show ids":               {[]string{add, `/disk/print detail show-ids proplist=slot where slot=v`}, "Flags: B - BLOCK-DEVICE\n*2 B slot=\"v\""},
		"nothing matches":        {[]string{`/disk/print detail where slot="x"`}, "Flags: "},
		"export that is off":     {[]string{add, `:put [:typeof ([/disk/print detail as-value where slot=v]->0->"nvme-tcp-server-nqn")]`}, "nothing"},
		"same nqn twice": {[]string{add, `/disk/set v nvme-tcp-export=yes nvme-tcp-server-nqn=n`,
			`/disk/add type=file slot=w file-path=/raid10/w.img file-size=1G nvme-tcp-export=yes nvme-tcp-server-nqn=n`}, "!failure: already have such nvme-tcp-server-nqn"},
		"copy-from copies settings": {[]string{add, `/disk/set v comment=c`, `/disk/add copy-from=v slot=w file-path=/raid10/w.img`, `:put [/disk/get w comment]; :put [/disk/get w size]`}, "c\n1073741824"},
		"pool in use":               {[]string{add, `/disk/remove raid10`}, "!failure: disk is in use"},
		"type is fixed":             {[]string{add, `/disk/set v type=raid`}, "!failure: can not change type"},
		"unknown to get":            {[]string{add, `:put [/disk/get v colour]`}, "!unknown parameter colour"},
		"not simulated":             {[]string{`/disk/eject raid10`}, "!failure: /disk/eject is not simulated"},
		"file copy":                 {[]string{add, `/file/copy "raid10/v.img" name=raid10/w.img`, `:put [/file/get "raid10/w.img" size]`}, "1073741824"},
		"disk copy too small":       {[]string{add, `/disk/add type=file slot=w file-path=/raid10/w.img file-size=1M`, `/disk/copy src=v dst=w`}, "!failure: not enough disk space"},
		"text file":                 {[]string{`/file/add name=raid10/n.txt contents="hi"`, `:put [/file/get "raid10/n.txt" contents]; :put [/file/get "raid10/n.txt" type]`}, "hi\n.txt file"},
		"pool as a file":            {[]string{`:put [/file/get raid10 type]`, `/file/remove raid10`}, "!failure: disk is in use"},
		"rename a file":             {[]string{add, `/file/set "raid10/v.img" name=raid10/z.img`, `:put [/disk/get v file-path]`}, "/raid10/z.img"},
		"identity":                  {[]string{`/system/identity/set name=rds-1`, `:put [/system/identity/get name]`}, "rds-1"},
		"traffic":                   {[]string{`:put ([/disk/monitor-traffic raid10 once as-value]->0->"read-rate")`}, "0bps"},
		"interpolated item":         {[]string{add, `:local id [/disk/find where slot="v"]; :local n "a\$b"; /disk/set $id comment=("x" . $n); :put [/disk/get $id comment]`}, "xa$b"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			srv := newServer(t, routeros.Options{})
			var got string
			for i, script := range tt.scripts {
				out, err := srv.Run(ctxOf(t), script)
				got = strings.TrimSuffix(strings.ReplaceAll(out, "\r\n", "\n"), "\n")
				if err != nil {
					got += "!" + err.Error()
					if i < len(tt.scripts)-1 {
						t.Fatalf("%s: %v", script, err)
					}
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s\n%s", strings.Join(tt.scripts, "\n"), diff)
			}
		})
	}
}

func TestPoolSpace(t *testing.T) {
	srv := newServer(t, routeros.Options{})
	free := func() int64 { return srv.Pools()[0].Free }
	steps := []struct {
		name, script string
		want         int64 // GiB in use
	}{
		{"create", `/disk/add type=file slot=v file-path=/raid10/v.img file-size=10G`, 10},
		{"grow", `/disk/set v file-size=30G`, 30},
		{"the name goes, the data stays", `/file/remove [find name="raid10/v.img"]`, 30},
		{"the disk goes", `/disk/remove v`, 0},
		{"file first", `/disk/add type=file slot=w file-path=/raid10/w.img file-size=5G`, 5},
		{"disk first", `/disk/remove w`, 5},
		{"then the file", `/file/remove "raid10/w.img"`, 0},
	}
	for _, s := range steps {
		must(t, srv, s.script)
		if used := (10<<40 - free()) >> 30; used != s.want {
			t.Errorf("%s: %d GiB in use, want %d", s.name, used, s.want)
		}
	}
	if err := srv.FillPool("raid10"); err != nil {
		t.Fatal(err)
	}
	if free() != 0 {
		t.Errorf("full pool has %d free", free())
	}
	if err := srv.SetPoolUsed("raid10", 0); err != nil || free() != 10<<40 {
		t.Errorf("%d free, %v", free(), err)
	}
}

// TestStaleData: attaching an old image shows its old data; a new one is new.
func TestStaleData(t *testing.T) {
	srv := newServer(t, routeros.Options{})
	addVolume(t, srv, "v")
	first, _ := srv.Disk("v")
	must(t, srv, `/disk/remove v`)
	addVolume(t, srv, "v")
	again, _ := srv.Disk("v")
	if first.Content == "" || first.Content != again.Content {
		t.Errorf("data %q, then %q: must be the same", first.Content, again.Content)
	}
	must(t, srv, `/disk/remove v; /file/remove "raid10/v.img"`)
	addVolume(t, srv, "v")
	if fresh, _ := srv.Disk("v"); fresh.Content == first.Content {
		t.Error("a new file has the old data")
	}
}

func TestSubvolumes(t *testing.T) {
	srv := newServer(t, routeros.Options{})
	if err := srv.AddPool(routeros.Pool{Name: "bt", FS: "btrfs", Size: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	must(t, srv, `/disk/btrfs/subvolume/add name=vol fs=bt`)
	must(t, srv, `/disk add type=file slot=v file-path=/bt/vol/disk.img file-size=10G`)
	must(t, srv, `/disk btrfs subvolume add read-only=yes parent=vol fs=bt name=snap`)
	snap, ok := srv.File("bt/snap/disk.img")
	vol, _ := srv.File("bt/vol/disk.img")
	if !ok || snap.Size != 10<<30 || snap.Content != vol.Content {
		t.Fatalf("snapshot %+v of %+v", snap, vol)
	}
	if used := 1<<40 - srv.Pools()[1].Free; used != 10<<30 {
		t.Errorf("%d in use: a snapshot takes no space", used)
	}
	if err := srv.SetContent("bt/vol/disk.img", "written"); err != nil {
		t.Fatal(err)
	}
	if later, _ := srv.File("bt/snap/disk.img"); later.Content != snap.Content {
		t.Error("the snapshot changed")
	}
	for script, want := range map[string]string{
		`/file/remove "bt/snap/disk.img"`:                                            "failure: read-only file system",
		`/disk/add type=file slot=w file-path=/bt/snap/w.img file-size=1G`:           "failure: read-only file system",
		`/file/remove "bt/snap"`:                                                     "failure: disk is in use",
		`/disk/btrfs/subvolume/add name=x fs=raid10`:                                 "input does not match any value of fs",
		`/disk/btrfs/subvolume/add name=x fs=bt parent=nobody`:                       "input does not match any value of parent",
		`/disk/btrfs/subvolume/add name=vol fs=bt`:                                   "failure: already have such subvolume",
		`/disk/btrfs/subvolume/remove vol`:                                           "invalid internal item number",
		`/disk/btrfs/subvolume/set [/disk/btrfs/subvolume/find name=vol] parent=vol`: "failure: can not change parent",
	} {
		if _, err := srv.Run(ctxOf(t), script); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", script, err, want)
		}
	}
	// A new volume from the snapshot has its data.
	must(t, srv, `/disk/btrfs/subvolume/add parent=snap fs=bt name=clone`)
	if clone, _ := srv.File("bt/clone/disk.img"); clone.Content != snap.Content {
		t.Errorf("clone %+v", clone)
	}
	must(t, srv, `/disk/btrfs/subvolume/remove [find where name="snap"]`)
	if _, ok := srv.File("bt/snap/disk.img"); ok || len(srv.Subvolumes()) != 2 {
		t.Errorf("left: %+v", srv.Subvolumes())
	}
}

// TestForeignVolumes: slots longer than the limit go on working.
func TestForeignVolumes(t *testing.T) {
	srv := newServer(t, routeros.Options{})
	const slot = "pvc-0d5f4f0e-6d3b-4b7c-9a55-0f7a3f1c2b4e"
	_, err := srv.AddDisk(map[string]string{
		"type": "file", "slot": slot, "file-path": "/raid10/csi/" + slot + ".img", "file-size": "10G",
		"nvme-tcp-export": "yes", "nvme-tcp-server-port": "4420", "mount-filesystem": "no",
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, srv, `/disk/set [find where slot="`+slot+`"] file-size=20G comment=x`)
	d, _ := srv.Disk(slot)
	want := routeros.Disk{
		ID: "*2", Slot: slot, Type: "file", Comment: "x", File: "raid10/csi/" + slot + ".img", Size: 20 << 30,
		Exported: true, NQN: "nqn.2000-02.com.mikrotik:" + slot, Port: 4420, Content: d.Content,
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}

func TestBackend(t *testing.T) {
	rec := &recorder{}
	srv := newServer(t, routeros.Options{Backend: rec})
	const add = `/disk/add type=file slot=v file-path=/raid10/v.img file-size=1G`
	steps := []struct{ script, want string }{
		{add, "file-create"},
		{`/disk/set v comment=x`, ""},
		{`/disk/set v nvme-tcp-export=yes nvme-tcp-server-nqn=a`, "export-on"},
		{`/disk/set v nvme-tcp-server-nqn=b`, "export-change"},
		{`/disk/set v file-size=2G`, "file-resize export-resize"},
		{`/disk/comment v comment=y`, ""},
		{`/disk/disable v`, "export-off"},
		{`/disk/enable v`, "export-on"},
		{`/disk/remove v`, "export-off"},
		{`/file/remove "raid10/v.img"`, "file-remove"},
		{add + " nvme-tcp-export=yes", "file-create export-on"},
	}
	for _, s := range steps {
		must(t, srv, s.script)
		if got := rec.kinds(); got != s.want {
			t.Errorf("%s: told %q, want %q", s.script, got, s.want)
		}
	}
	before := srv.Disks()
	rec.refuse = errors.New("device or resource busy")
	for _, script := range []string{`/disk/set v nvme-tcp-export=no`, `/disk/remove v`, `/disk/set v file-size=2G`} {
		if _, err := srv.Run(context.Background(), script); err == nil || err.Error() != "failure: device or resource busy" {
			t.Errorf("%s: %v", script, err)
		}
	}
	if diff := cmp.Diff(before, srv.Disks()); diff != "" {
		t.Errorf("a refused change was made: %s", diff)
	}
}

// TestSchemaNames: every command and parameter of the schema is accepted by
// the parser under its own name.
func TestSchemaNames(t *testing.T) {
	srv := newServer(t, routeros.Options{})
	for _, script := range []string{
		`/disk set raid10 nvme-tcp-server-allow-host-name="nqn.x" nvme-tcp-server-password="" compress=no`,
		`/disk print detail without-paging show-sensitive where slot=x`,
		`/disk/smart-info raid10`, `/disk/settings/print`, `/file/rsync-daemon/get enabled`,
	} {
		_, err := srv.Run(ctxOf(t), script)
		if err != nil && !strings.Contains(err.Error(), "not simulated") {
			t.Errorf("%s: %v", script, err)
		}
	}
}
