package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/mount"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

func TestJudge(t *testing.T) {
	const dev, staging = "259:3", "/staging"
	type given struct {
		r   record
		now sight
		c   *nvme.Controller
		n   *nvme.Namespace
		m   *mount.Entry
	}
	filesystem := func() given {
		r := record{Step: stepStaged, Staging: staging, NQN: nqnOf(1), NSID: 1, Portals: 1, Size: gib, Dev: dev, Identity: "uuid.1"}
		now := sight{
			subsystems: []nvme.Subsystem{{NQN: nqnOf(1), Controllers: []nvme.Controller{{Name: "nvme0", State: nvme.StateLive}},
				Namespaces: []nvme.Namespace{{Disk: nvme.Disk{Name: "nvme0n1", Dev: dev}, ID: 1, Size: gib, Identity: "uuid.1"}}}},
			table: mount.Table{{Dev: dev, Root: "/", Point: staging, FSType: "ext4"}},
			nodes: map[string]string{},
		}
		return given{r, now, &now.subsystems[0].Controllers[0], &now.subsystems[0].Namespaces[0], &now.table[0]}
	}
	block := func() given {
		g := filesystem()
		g.r.Block, g.r.Published = true, []publication{{Path: staging}}
		g.m.Dev, g.m.Root, g.m.FSType = "0:6", "/nvme0n1", "devtmpfs"
		g.now.nodes[staging] = dev
		return g
	}
	for name, c := range map[string]struct {
		start  func() given
		change func(g *given)
		want   string // status and reason
	}{
		"well":                                 {filesystem, func(*given) {}, ""},
		"block, well":                          {block, func(*given) {}, ""},
		"larger":                               {filesystem, func(g *given) { g.n.Size *= 2 }, ""},
		"size not known":                       {filesystem, func(g *given) { g.r.Size = 0 }, ""},
		"read-only as asked":                   {filesystem, func(g *given) { g.m.SuperReadOnly, g.r.ReadOnly = true, true }, ""},
		"block, not published, another number": {block, func(g *given) { g.r.Published, g.n.Dev = nil, "259:9" }, ""},

		"disconnected":                 {filesystem, func(g *given) { g.now.subsystems = nil }, "INACCESSIBLE DeviceGone"},
		"namespace gone":               {filesystem, func(g *given) { g.now.subsystems[0].Namespaces = nil }, "INACCESSIBLE DeviceGone"},
		"another generation":           {filesystem, func(g *given) { g.now.subsystems[0].NQN = nqnOf(2) }, "INACCESSIBLE DeviceGone"},
		"two devices":                  {filesystem, func(g *given) { g.now.subsystems = append(g.now.subsystems, g.now.subsystems[0]) }, "INACCESSIBLE DeviceAmbiguous"},
		"renumbered":                   {filesystem, func(g *given) { g.n.Dev = "259:9" }, "INACCESSIBLE DeviceReplaced"},
		"block, renumbered":            {block, func(g *given) { g.n.Dev = "259:9" }, "INACCESSIBLE DeviceReplaced"},
		"another identity":             {filesystem, func(g *given) { g.n.Identity = "uuid.2" }, "INACCESSIBLE IdentityChanged"},
		"shrunk":                       {filesystem, func(g *given) { g.n.Size-- }, "INACCESSIBLE DeviceTooSmall"},
		"unmounted":                    {filesystem, func(g *given) { g.now.table = nil }, "INACCESSIBLE NotMounted"},
		"reconnecting":                 {filesystem, func(g *given) { g.c.State = nvme.StateConnecting }, "INACCESSIBLE Reconnecting"},
		"reconnecting, namespace gone": {filesystem, func(g *given) { g.c.State = nvme.StateConnecting; g.now.subsystems[0].Namespaces = nil }, "INACCESSIBLE Reconnecting"},
		"one of two paths":             {filesystem, func(g *given) { g.r.Portals = 2 }, "DEGRADED PathLost"},
		"read-only":                    {filesystem, func(g *given) { g.m.SuperReadOnly = true }, "DEGRADED FilesystemReadOnly"},
	} {
		t.Run(name, func(t *testing.T) {
			g := c.start()
			c.change(&g)
			problems := judge(g.r, g.now)
			var got []string
			for _, p := range problems {
				got = append(got, p.status.String()+" "+p.reason)
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if lost := usable(problems) != nil; lost != strings.HasPrefix(c.want, "INACCESSIBLE") {
				t.Errorf("usable: %t", !lost)
			}
		})
	}
}

func TestHealthAsksTheFilesystem(t *testing.T) {
	b := newBench(t)
	b.ok(b.stage())
	b.statfs = func(string) (Usage, error) { return Usage{}, &fs.PathError{Op: "statfs", Path: "x", Err: syscall.EIO} }
	if got := b.verdict(); !strings.Contains(got, "INACCESSIBLE "+reasonShutDown) {
		t.Errorf("health is %q", got)
	}
	// One that hangs is asked once.
	release, asked := make(chan struct{}), make(chan struct{}, 9)
	b.statfs = func(string) (Usage, error) { asked <- struct{}{}; <-release; return Usage{}, nil }
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	waiting.Go(func() { _, _ = b.NodeGetVolumeHealth(ctx, &spec.NodeGetVolumeHealthRequest{VolumeId: b.handle}) })
	<-asked
	_, err := b.health(t.Context(), b.handle)
	if !errors.Is(err, child.ErrDeadline) || len(asked) != 0 {
		t.Errorf("asked %d times more, %v", len(asked), err)
	}
	cancel()
	waiting.Wait()
	close(release)
}

func TestMetricsFollowTheVolumes(t *testing.T) {
	b := newBench(t)
	registry := prometheus.NewRegistry()
	registry.MustRegister(b.Server)
	unreadable := 0
	expect := func(lost, worse int, staged int) {
		t.Helper()
		want := fmt.Sprintf(`
# HELP rds_csi_node_hung_children Child processes that could not be killed because their disk does not answer.
# TYPE rds_csi_node_hung_children gauge
rds_csi_node_hung_children 0
# HELP rds_csi_node_staged_volumes Volumes that are staged on this node.
# TYPE rds_csi_node_staged_volumes gauge
rds_csi_node_staged_volumes %d
# HELP rds_csi_node_unreadable_records Records of volumes on this node that cannot be read: how these volumes are is not known.
# TYPE rds_csi_node_unreadable_records gauge
rds_csi_node_unreadable_records %d
`, staged, unreadable)
		if staged > 0 {
			want += fmt.Sprintf(`
# HELP rds_csi_node_volume_degraded 1 if a volume that is staged on this node has lost a path or is read-only, 0 otherwise.
# TYPE rds_csi_node_volume_degraded gauge
rds_csi_node_volume_degraded{volume_id=%q} %d
# HELP rds_csi_node_volume_inaccessible 1 if a volume that is staged on this node cannot be used, 0 otherwise.
# TYPE rds_csi_node_volume_inaccessible gauge
rds_csi_node_volume_inaccessible{volume_id=%q} %d
`, slot, worse, slot, lost)
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	}
	expect(0, 0, 0)
	b.ok(b.stage())
	expect(0, 0, 1)
	b.do(func() { b.mounts[0].superRO = true })
	expect(0, 1, 1)
	// What is not known of one volume hides nothing of the others.
	b.ok(os.WriteFile(filepath.Join(b.state, "pvc-other.json"), []byte("{"), 0o600))
	unreadable = 1
	expect(0, 1, 1)
	b.do(func() { b.controllers, b.disks = map[string]*controller{}, map[string]*disk{} })
	expect(1, 0, 1)
	b.ok(b.unstage())
	expect(0, 0, 0)
	b.ok(os.Remove(filepath.Join(b.state, "pvc-other.json")))
	unreadable = 0
	expect(0, 0, 0)
}

// Log and events tell changes, once; an event that could not be made is made the
// next time.
func TestReport(t *testing.T) {
	b := newBench(t)
	var lines []string
	var told []HealthChange
	var away error
	b.config.Announce = func(_ context.Context, c HealthChange) error {
		if away == nil {
			told = append(told, c)
		}
		return away
	}
	ctx := logr.NewContext(t.Context(), funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}))
	w := watch{logged: map[string]string{}, announced: map[string]string{}}
	report := func() (string, []HealthChange) {
		lines, told = nil, nil
		b.report(ctx, w)
		return strings.Join(lines, "\n"), told
	}
	b.ok(b.stage())
	if got, told := report(); got != "" || told != nil {
		t.Errorf("a healthy volume: %s, %+v", got, told)
	}
	state := func(s string) {
		b.do(func() {
			for _, c := range b.controllers {
				c.state = s
			}
		})
	}
	state(nvme.StateConnecting)
	away = errors.New("no API server")
	if got, _ := report(); !strings.Contains(got, reasonReconnecting) || !strings.Contains(got, slot) || !strings.Contains(got, away.Error()) {
		t.Errorf("got %q", got)
	}
	away = nil
	if got, told := report(); got != "" || len(told) != 1 || told[0].Volume != slot || !told[0].Inaccessible || !strings.Contains(told[0].Problems, reasonReconnecting) {
		t.Errorf("when it can be told: %q, %+v", got, told)
	}
	if got, told := report(); got != "" || told != nil {
		t.Errorf("again: %q, %+v", got, told)
	}
	state(nvme.StateLive)
	if got, told := report(); !strings.Contains(got, "well again") || len(told) != 1 || told[0] != (HealthChange{Volume: slot}) {
		t.Errorf("got %q, %+v", got, told)
	}
	// A record that cannot be read is told of, and does not hide how the others are.
	b.ok(os.WriteFile(filepath.Join(b.state, "pvc-other.json"), []byte("{"), 0o600))
	state(nvme.StateConnecting)
	if got, told := report(); !strings.Contains(got, "pvc-other.json") || !strings.Contains(got, reasonReconnecting) || len(told) != 1 {
		t.Errorf("beside an unreadable record: %q, %+v", got, told)
	}
	// Nor is what was said of a volume forgotten while its own cannot be read.
	good, err := os.ReadFile(filepath.Join(b.state, slot+".json"))
	b.ok(err, os.Remove(filepath.Join(b.state, "pvc-other.json")), os.WriteFile(filepath.Join(b.state, slot+".json"), []byte("{"), 0o600))
	report()
	state(nvme.StateLive)
	b.ok(os.WriteFile(filepath.Join(b.state, slot+".json"), good, 0o600))
	if got, told := report(); !strings.Contains(got, "well again") || len(told) != 1 || told[0] != (HealthChange{Volume: slot}) {
		t.Errorf("when it can be read: %q, %+v", got, told)
	}
	b.ok(b.unstage())
	report()
	if len(w.logged)+len(w.announced) != 0 {
		t.Errorf("remembers %v", w)
	}
}

func TestOneOperationAtATime(t *testing.T) {
	b := newBench(t)
	reached, release := make(chan struct{}), make(chan struct{})
	b.before = func(c child.Command) error {
		if c.Name == "mkfs.ext4" {
			close(reached)
			<-release
		}
		return nil
	}
	staged := make(chan error, 1)
	go func() { staged <- b.stage() }()
	<-reached
	for name, err := range map[string]error{"stage": b.stage(), "publish": b.publish("a", false), "unpublish": b.unpublish("a"), "unstage": b.unstage()} {
		if err == nil || !strings.Contains(err.Error(), "Aborted") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	close(release)
	b.ok(<-staged)
	b.want(codes.OK, b.publish("a", false))
}
