package node

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// FuzzContexts stages a volume with contexts and mount options that no controller
// would send. Whatever they hold, each program gets the arguments it is meant to
// get, each as one word of its own kind, and no other program runs.
func FuzzContexts(f *testing.F) {
	good := nqnOf(1)
	f.Add(good, "192.0.2.1", "4420", "1800", "4", "1", "ext4", "noatime")
	f.Add(good, "192.0.2.1,fd00::1", "4420", "-1", "", "0", "xfs", "nouuid")
	// One wrong thing at a time: the first that is refused hides the others.
	f.Add(good+"\n--hostnqn=x:"+slot, "192.0.2.1", "4420", "1800", "4", "1", "ext4", "noatime")
	f.Add("nqn.x --hostid=1:"+slot, "192.0.2.1", "4420", "1800", "4", "1", "ext4", "noatime")
	f.Add("-n:"+slot, "192.0.2.1", "4420", "1800", "4", "1", "ext4", "noatime")
	f.Add(good, "192.0.2.1 --config=/etc/passwd", "4420", "1800", "4", "1", "ext4", "noatime")
	f.Add(good, "fe80::1%--hostnqn=x", "4420", "1800", "4", "1", "ext4", "noatime")
	f.Add(good, "--traddr=192.0.2.1", "4420", "1800", "4", "1", "ext4", "noatime")
	f.Add(good, "192.0.2.1", "04420", "1800", "4", "1", "ext4", "noatime")
	f.Add(good, "192.0.2.1", "4420;reboot", "1800", "4", "1", "ext4", "noatime")
	f.Add(good, "192.0.2.1", "4420", "1 --tls", "4", "1", "ext4", "noatime")
	f.Add(good, "192.0.2.1", "4420", "018", "+4", "01", "ext4", "noatime")
	f.Add(good, "192.0.2.1", "4420", "1800", "4", "1", "ext4 -F", "noatime")
	f.Add(good, "192.0.2.1", "4420", "1800", "4", "1", "../ext4", "noatime")
	f.Add(good, "192.0.2.1", "4420", "1800", "4", "1", "ext4", "ro,bind")
	f.Add(good, "192.0.2.1", "4420", "1800", "4", "1", "ext4", "-t tmpfs")
	f.Add(good, "192.0.2.1", "4420", "1800", "4", "1", "ext4", "--bind")
	f.Fuzz(func(t *testing.T, nqn, addresses, port, ctrlLoss, queues, delay, fstype, option string) {
		b := newBench(t)
		var ran []child.Command
		b.before = func(c child.Command) error { ran = append(ran, c); return nil }
		b.contexts = map[string]string{
			contextNQN: nqn, contextAddresses: addresses, contextPort: port, rds.ParamCtrlLoss: ctrlLoss, rds.ParamQueues: queues,
			rds.ParamReconnectDelay: delay, rds.ParamKeepAlive: delay,
		}
		b.fstype, b.flags = fstype, []string{option}
		_ = b.stage() // refused or not
		for _, c := range ran {
			if !wellFormed(c, option) {
				t.Errorf("ran %q %q", c.Name, c.Args)
			}
		}
	})
}

var devicePattern = regexp.MustCompile(`^/dev/nvme[0-9]+n[0-9]+$`)

// wellFormed reports whether a program's arguments are what they are meant to be.
func wellFormed(c child.Command, option string) bool {
	device := slices.ContainsFunc(c.Args, devicePattern.MatchString)
	switch c.Name {
	case "nvme":
		return wellFormedNVMe(c.Args)
	case "modprobe":
		return slices.Equal(c.Args, []string{"nvme-tcp"})
	case "blkid", "fsck", "mkfs.ext4", "mkfs.xfs":
		return device && !slices.Contains(c.Args, option)
	case "dd":
		return strings.HasPrefix(c.Args[0], "if=/dev/nvme") && len(c.Args) == 5
	case "resize2fs", "xfs_growfs", "umount":
		return len(c.Args) == 1
	case "mount":
		// -t type -o options device target: the option is in one word with the others.
		at := slices.Index(c.Args, "-o")
		return device && len(c.Args) == 6 && c.Args[0] == "-t" && at == 2 && (c.Args[1] == "ext4" || c.Args[1] == "xfs")
	}
	return false
}

func wellFormedNVMe(args []string) bool {
	if args[0] != "connect" {
		return len(args) == 2 && regexp.MustCompile(`^(--device=nvme[0-9]+|/dev/nvme[0-9]+)$`).MatchString(args[1])
	}
	number := func(s string) bool {
		n, err := strconv.Atoi(s)
		return err == nil && strconv.Itoa(n) == s
	}
	host := nvme.HostOf("node-a")
	is := func(want string) func(string) bool { return func(got string) bool { return got == want } }
	kinds := map[string]func(string) bool{
		"--transport": is("tcp"), "--hostnqn": is(host.NQN), "--hostid": is(host.ID),
		"--traddr":       func(s string) bool { a, err := netip.ParseAddr(s); return err == nil && a.Zone() == "" },
		"--nqn":          func(s string) bool { return nvme.Names(s, slot) && regexp.MustCompile(`^nqn\.[!-~]+$`).MatchString(s) },
		"--trsvcid":      number,
		"--nr-io-queues": number, "--ctrl-loss-tmo": number, "--reconnect-delay": number, "--keep-alive-tmo": number,
	}
	for _, arg := range args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		if kinds[name] == nil || !kinds[name](value) {
			return false
		}
		delete(kinds, name) // none comes twice
	}
	return kinds["--hostnqn"] == nil && kinds["--hostid"] == nil && kinds["--nqn"] == nil && kinds["--traddr"] == nil
}
