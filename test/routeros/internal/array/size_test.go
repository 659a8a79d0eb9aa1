package array

import "testing"

func TestParseSize(t *testing.T) {
	tests := map[string]int64{
		"0": 0, "512": 512, "1K": 1 << 10, "1M": 1 << 20, "1G": 1 << 30, "1T": 1 << 40, "2P": 2 << 50,
		"10GiB": 10 << 30, "10Gi": 10 << 30, "1.5G": 3 << 29, "1024.0GiB": 1 << 40, "1099511627776": 1 << 40,
		"": -1, "G": -1, "-1": -1, "1.5": -1, "1X": -1, "1 099": -1, "9999999P": -1, "99999999999999999999": -1, "0x10": -1,
	}
	for text, want := range tests {
		got, ok := parseSize(text)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("parseSize(%q) = %d, want %d", text, got, want)
		}
	}
}

// TestSchema: the embedded schema builds the menus the tables stand on.
func TestSchema(t *testing.T) {
	root, err := menus()
	if err != nil {
		t.Fatal(err)
	}
	disk := root.Dirs["disk"]
	for _, name := range []string{"add", "set", "remove", "find", "print", "get", "comment", "enable", "disable", "unset"} {
		if disk.Commands[name] == nil {
			t.Errorf("/disk/%s is missing", name)
		}
	}
	sub := disk.Dirs["btrfs"].Dirs["subvolume"]
	if sub.Path != "/disk/btrfs/subvolume" || !sub.Commands["add"].Mutates || sub.Commands["print"].Mutates {
		t.Errorf("%+v", sub)
	}
	if _, ok := disk.Commands["set"].Args["nvme-tcp-server-nqn"]; !ok {
		t.Error("set has no nvme-tcp-server-nqn")
	}
	if _, ok := disk.Commands["set"].Args["free"]; ok {
		t.Error("free can be set")
	}
}
