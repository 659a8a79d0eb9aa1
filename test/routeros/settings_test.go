package routeros_test

import (
	"strings"
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

func TestSettings(t *testing.T) {
	phrases := routeros.DefaultPhrases()
	phrases.DuplicateSlot = "failure: in other words"
	const add = `/disk/add type=file slot=v file-path=/raid10/v.img file-size=1G`
	tests := map[string]struct {
		set    routeros.Settings
		script string
		want   string
	}{
		"where an error happened": {
			routeros.Settings{LocateErrors: true}, `:onerror e in={/disk/set *9 comment=x} do={:put $e}`,
			"no such item (4) (/disk/set; line 1)",
		},
		"not said by default": {routeros.Settings{}, `:onerror e in={/disk/set *9 comment=x} do={:put $e}`, "no such item (4)"},
		"words for what is not recorded": {
			routeros.Settings{Phrases: &phrases}, `:onerror e in={` + add + `} do={:put $e}`, "failure: in other words",
		},
		"idle export is shown": {
			routeros.Settings{ShowIdleExport: true}, `:put ([/disk/print detail as-value where slot=v]->0->"nvme-tcp-server-port")`, "4420",
		},
		"idle export is hidden": {
			routeros.Settings{}, `:put ([/disk/print detail as-value where slot=v]->0->"nvme-tcp-server-port")`, "",
		},
		"hidden, but there": {routeros.Settings{}, `:put [/disk/get v nvme-tcp-server-port]`, "4420"},
		"found, though hidden": {
			routeros.Settings{}, `:put [:len [/disk/find where nvme-tcp-server-nqn="nqn.2000-02.com.mikrotik:v"]]`, "1",
		},
		"passwords are not shown": {
			routeros.Settings{}, `/disk/set v nvme-tcp-server-password=secret; :put [/disk/print detail as-value where slot=v]; ` +
				`/disk/print detail where slot=v`, "!secret",
		},
		"by internal id": {routeros.Settings{}, `:put [/disk/get [find where .id=*2] slot]`, "v"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			srv := newServer(t, routeros.Options{})
			must(t, srv, add)
			srv.Configure(func(s *routeros.Settings) { *s = tt.set })
			out := strings.TrimSpace(must(t, srv, tt.script))
			if never, ok := strings.CutPrefix(tt.want, "!"); ok {
				if strings.Contains(out, never) {
					t.Errorf("%s is in %s", never, out)
				}
				return
			}
			if out != tt.want {
				t.Errorf("got %q, want %q", out, tt.want)
			}
		})
	}
}

// TestDirectoryWithSubvolume: a directory is removed with all it holds, but
// not over a subvolume.
func TestDirectoryWithSubvolume(t *testing.T) {
	srv := newServer(t, routeros.Options{})
	if err := srv.AddPool(routeros.Pool{Name: "bt", FS: "btrfs", Size: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	if err := srv.AddFile("bt/a/b/x.img", 1<<20); err != nil {
		t.Fatal(err)
	}
	must(t, srv, `/disk/btrfs/subvolume/add fs=bt name=a/sub`)
	if _, err := srv.Run(ctxOf(t), `/file/remove "bt/a"`); err == nil {
		t.Error("removed a directory with a subvolume in it")
	}
	must(t, srv, `/disk/btrfs/subvolume/remove [find name="a/sub"]; /file/remove "bt/a"`)
	for _, f := range srv.Files() {
		if strings.HasPrefix(f.Name, "bt/") {
			t.Errorf("%s is left", f.Name)
		}
	}
}
