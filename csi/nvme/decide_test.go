package nvme

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHostOf(t *testing.T) {
	// Arrays know hosts by these: they never change.
	want := Host{NQN: "nqn.2014-08.org.nvmexpress:uuid:880fb58f-73b4-5f51-a32d-99d1030feb95", ID: "880fb58f-73b4-5f51-a32d-99d1030feb95"}
	if got := HostOf("node-a"); got != want {
		t.Errorf("got %+v", got)
	}
	if HostOf("node-a") == HostOf("node-b") {
		t.Error("two nodes have one identity")
	}
}

func TestNames(t *testing.T) {
	for nqn, want := range map[string]bool{
		"nqn.2000-02.com.mikrotik:pvc-a.g1":            true,
		"nqn.2026-01.org.example:pvc-a.g18446744073":   true,
		"nqn.2000-02.com.mikrotik:pvc-a":               true,
		"nqn.2026-09.com.mikrotik:rds2216.pvc-a":       true,
		"nqn.2000-02.com.mikrotik:pvc-ab.g1":           false,
		"nqn.2000-02.com.mikrotik:pvc-ab":              false,
		"nqn.2000-02.com.mikrotik:xpvc-a":              false,
		"nqn.2000-02.com.mikrotik:pvc-a.g":             false,
		"nqn.2000-02.com.mikrotik:pvc-a.g1.g2":         false,
		"nqn.2000-02.com.mikrotik:pvc-a.x1":            false,
		"nqn.2000-02.com.mikrotik":                     false,
		"iqn.2000-02.com.mikrotik:pvc-a":               false,
		"nqn.2014-08.org.nvmexpress:uuid:0f1e-pvc-a":   false,
		"nqn.2014-08.org.nvmexpress.discovery":         false,
		"nqn.2000-02.com.mikrotik:boot-of-the-machine": false,
		"": false,
	} {
		if got := Names(nqn, "pvc-a"); got != want {
			t.Errorf("%q: %t, want %t", nqn, got, want)
		}
	}
	if Names("nqn.2000-02.com.mikrotik:", "") {
		t.Error("the empty slot has a name")
	}
}

func TestFind(t *testing.T) {
	one := func(nqn string, names ...string) Subsystem {
		s := Subsystem{NQN: nqn, Controllers: []Controller{{Name: "nvme0", State: StateLive}}}
		for i, n := range names {
			s.Namespaces = append(s.Namespaces, Namespace{Disk: Disk{Name: n}, ID: i + 1})
		}
		return s
	}
	for name, c := range map[string]struct {
		given []Subsystem
		nsid  int
		want  string
		err   error
	}{
		"the only one":              {given: []Subsystem{one(volumeNQN, "nvme5n1")}, nsid: 1, want: "nvme5n1"},
		"by id, not by number":      {given: []Subsystem{one(volumeNQN, "nvme5n2", "nvme5n1")}, nsid: 2, want: "nvme5n1"},
		"another generation":        {given: []Subsystem{one("nqn.2000-02.com.mikrotik:pvc-a.g2", "nvme5n1")}, nsid: 1, err: ErrNoDevice},
		"another namespace":         {given: []Subsystem{one(volumeNQN, "nvme5n1")}, nsid: 2, err: ErrNoDevice},
		"nothing":                   {nsid: 1, err: ErrNoDevice},
		"connected, no namespace":   {given: []Subsystem{one(volumeNQN)}, nsid: 1, err: ErrNoDevice},
		"two of one namespace":      {given: []Subsystem{one(volumeNQN, "nvme5n1"), one(volumeNQN, "nvme6n1")}, nsid: 1, err: ErrAmbiguous},
		"an old one on its way out": {given: []Subsystem{{NQN: volumeNQN}, one(volumeNQN, "nvme6n1")}, nsid: 1, want: "nvme6n1"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Find(c.given, volumeNQN, c.nsid)
			if d.Name != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %q, %v", d.Name, err)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	for name, c := range map[string]struct {
		have, want int64
		err        error
	}{
		"equal":   {1 << 30, 1 << 30, nil},
		"larger":  {2 << 30, 1 << 30, nil},
		"smaller": {1<<30 - 512, 1 << 30, ErrTooSmall},
		"unknown": {1 << 30, 0, nil},
		"no size": {0, 0, ErrNoDevice},
	} {
		if err := (Device{Namespace: Namespace{Size: c.have}}).Verify(c.want); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMissing(t *testing.T) {
	at := func(a string) Portal { return Portal{netip.MustParseAddr(a), "4420"} }
	with := func(state, address, port string) []Subsystem {
		return []Subsystem{{NQN: volumeNQN, Controllers: []Controller{{State: state, Address: address, Port: port}}}}
	}
	two := []Portal{at("192.0.2.1"), at("fd00::1")}
	for name, c := range map[string]struct {
		given []Subsystem
		want  []Portal
	}{
		"nothing connected":    {nil, two},
		"one live":             {with(StateLive, "192.0.2.1", "4420"), two[1:]},
		"one reconnecting":     {with(StateConnecting, "192.0.2.1", "4420"), two[1:]},
		"one resetting":        {with(StateResetting, "192.0.2.1", "4420"), two[1:]},
		"one deleting":         {with(StateDeleting, "192.0.2.1", "4420"), two},
		"one deleting, no IO":  {with(StateDeletingNoIO, "192.0.2.1", "4420"), two},
		"one dead":             {with(StateDead, "192.0.2.1", "4420"), two},
		"another port":         {with(StateLive, "192.0.2.1", "4421"), two},
		"written otherwise":    {with(StateLive, "fd00:0:0::1", "4420"), two[:1]},
		"mapped":               {with(StateLive, "::ffff:192.0.2.1", "4420"), two[1:]},
		"not an address":       {with(StateLive, "", ""), two},
		"of another subsystem": {[]Subsystem{{NQN: "other", Controllers: []Controller{{State: StateLive, Address: "192.0.2.1", Port: "4420"}}}}, two},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Missing(c.given, volumeNQN, two), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error("(-want +got):\n" + diff)
			}
		})
	}
}

func TestMayDisconnect(t *testing.T) {
	host := HostOf("node-a")
	volume := func() Subsystem {
		return Subsystem{
			NQN:         volumeNQN,
			Controllers: []Controller{{Name: "nvme4", Transport: "tcp", State: StateLive, HostNQN: host.NQN}},
			Namespaces:  []Namespace{{Disk: Disk{"nvme3n1", "259:8"}, ID: 1, Partitions: []Disk{{"nvme3n1p1", "259:9"}}}},
		}
	}
	for name, c := range map[string]struct {
		change func(s *Subsystem, u *Usage)
		err    error
	}{
		"ours and unused":                      {change: func(*Subsystem, *Usage) {}},
		"another generation":                   {change: func(s *Subsystem, _ *Usage) { s.NQN = "nqn.2000-02.com.mikrotik:pvc-a.g2" }},
		"reconnecting":                         {change: func(s *Subsystem, _ *Usage) { s.Controllers[0].State = StateConnecting }},
		"a kernel that does not tell the host": {change: func(s *Subsystem, _ *Usage) { s.Controllers[0].HostNQN = "" }},
		"made by another plugin": {change: func(s *Subsystem, _ *Usage) {
			s.NQN, s.Controllers[0].HostNQN = "nqn.2000-02.com.mikrotik:pvc-a", "machine"
		}},
		"without a controller":     {change: func(s *Subsystem, _ *Usage) { s.Controllers = nil }},
		"other mounts":             {change: func(_ *Subsystem, u *Usage) { u.Mounts["259:1"] = []string{"/"} }},
		"another volume is staged": {change: func(_ *Subsystem, u *Usage) { u.StagedBy["nqn.2000-02.com.mikrotik:pvc-b.g1"] = "pvc-b" }},

		"the boot disk":                    {err: ErrForeign, change: func(s *Subsystem, _ *Usage) { s.NQN = "nqn.2000-02.com.mikrotik:boot" }},
		"another volume":                   {err: ErrForeign, change: func(s *Subsystem, _ *Usage) { s.NQN = "nqn.2000-02.com.mikrotik:pvc-ab.g3" }},
		"a local disk":                     {err: ErrForeign, change: func(s *Subsystem, _ *Usage) { s.Controllers[0].Transport = "pcie" }},
		"another host's name":              {err: ErrForeign, change: func(s *Subsystem, _ *Usage) { s.Controllers[0].HostNQN = "machine" }},
		"staged under another handle":      {err: ErrForeign, change: func(_ *Subsystem, u *Usage) { u.StagedBy[volumeNQN] = "pvc-a.other" }},
		"mounted":                          {err: ErrInUse, change: func(_ *Subsystem, u *Usage) { u.Mounts["259:8"] = []string{"/mnt"} }},
		"a partition is mounted":           {err: ErrInUse, change: func(_ *Subsystem, u *Usage) { u.Mounts["259:9"] = []string{"/mnt"} }},
		"device mapper is on it":           {err: ErrInUse, change: func(s *Subsystem, _ *Usage) { s.Namespaces[0].Users = []string{"dm-3"} }},
		"mounted in another namespace":     {err: ErrInUse, change: func(_ *Subsystem, u *Usage) { u.Filesystems["nvme3n1"] = "xfs" }},
		"a partition in another namespace": {err: ErrInUse, change: func(_ *Subsystem, u *Usage) { u.Filesystems["nvme3n1p1"] = "ext4" }},
	} {
		t.Run(name, func(t *testing.T) {
			s := volume()
			u := Usage{Slot: "pvc-a", Host: host, Mounts: map[string][]string{}, Filesystems: map[string]string{}, StagedBy: map[string]string{}}
			c.change(&s, &u)
			if err := MayDisconnect(s, u); !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("got %v, want %v", err, c.err)
			}
		})
	}
}
