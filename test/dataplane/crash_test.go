package dataplane

import (
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
)

// killing is a request in which the plugin is killed.
type killing struct {
	name       string
	capability *spec.VolumeCapability
	before     []func(*scenario, *Node) error // done already
	request    func(*scenario, *Node) error
	programs   []string // that it runs
}

// The plugin is killed at each step of bringing a volume to a pod and taking it
// away again, before (on one node) and after (on the other, meanwhile) every program
// that it runs. Started again and asked again, it goes on from there.
func TestKilledAtEachStep(t *testing.T) {
	stage, show, hide, unstage := (*scenario).tryStage, (*scenario).tryShow, (*scenario).tryHide, (*scenario).tryUnstage
	steps := func(done ...func(*scenario, *Node) error) []func(*scenario, *Node) error { return done }
	killings := []killing{
		{"stage", rwoExt4, nil, stage, []string{"nvme-connect", "blkid", "dd", "mkfs.ext4", "mount"}},
		{"stage_again", rwoExt4, steps(stage, unstage), stage, []string{"fsck", "mount"}},
		{"publish", rwoExt4, steps(stage), show, []string{"mount"}},
		{"unpublish", rwoExt4, steps(stage, show), hide, []string{"umount"}},
		{"unstage", rwoExt4, steps(stage), unstage, []string{"umount", "nvme-disconnect"}},
		{"stage_block", rwoBlock, nil, stage, []string{"nvme-connect"}},
		{"publish_block", rwoBlock, steps(stage), show, []string{"mount"}},
	}
	for i, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			for _, k := range killings {
				for _, program := range k.programs {
					t.Run(k.name+"_"+program, func(t *testing.T) { k.play(t, i, Gate{When: when, Program: program}) })
				}
			}
		})
	}
}

func (k killing) play(t *testing.T, node int, gate Gate) {
	s := begin(t)
	s.a, s.b = s.bed.Nodes[node], s.bed.Nodes[1-node]
	s.create(k.capability, 64*mib)
	s.publish(s.a)
	for _, step := range k.before {
		s.must(step(s, s.a))
	}
	s.killAt(s.a, gate, k.request)
	s.must(k.request(s, s.a))
	s.prove()
}

// killAt kills the plugin when a request has come to a gate, and starts it again.
func (s *scenario) killAt(n *Node, gate Gate, request func(*scenario, *Node) error) {
	s.Helper()
	plugin := world.plugins[n]
	s.must(n.Shut(s.ctx, gate))
	answer := make(chan error, 1)
	go func() { answer <- request(s, n) }()
	s.must(n.AwaitGate(s.ctx, gate))
	s.must(plugin.Crash(s.ctx))
	s.must(n.DropGate(s.ctx))
	if err := <-answer; err == nil {
		s.Fatal("the request succeeded although the plugin was killed")
	}
	s.must(plugin.Start(s.ctx))
}

// prove takes the volume to a pod, from wherever it is, uses it, and takes it
// away without a trace.
func (s *scenario) prove() {
	s.Helper()
	s.enter(s.a)
	if s.capability.GetMount() != nil {
		s.fillFile(s.a, 1)
	} else {
		s.must(s.a.write(s.ctx, s.target(), 1, 10))
		s.wantBlocks(s.a, 1, 10)
	}
	s.wantHealth(s.a, well)
	nqn := s.nqn(s.a)
	s.detach(s.a)
	if states, err := s.a.states(s.ctx, nqn); err != nil || states != "" {
		s.Errorf("connections are left: %q, %v", states, err)
	}
	if mounts, err := s.a.Run(s.ctx, "cat", "/proc/mounts"); err != nil || strings.Contains(mounts, s.id()) {
		s.Errorf("mounts are left (%v):\n%s", err, mounts)
	}
	s.remove()
}

// A pod that is deleted while its volume is on the way: the plugin, killed half
// way, is asked to unstage what it never finished staging.
func TestKilledAndGivenUp(t *testing.T) {
	for _, gate := range []Gate{{"after", "nvme-connect"}, {"before", "mkfs.ext4"}, {"after", "mount"}} {
		t.Run(strings.ReplaceAll(gate.String(), " ", "_"), func(t *testing.T) {
			s := begin(t)
			s.create(rwoExt4, 64*mib)
			s.publish(s.a)
			s.killAt(s.a, gate, (*scenario).tryStage)
			started := time.Now()
			s.must(s.tryUnstage(s.a))
			t.Logf("unstaged after %v", time.Since(started).Round(time.Millisecond))
			if states, err := s.a.states(s.ctx, s.nqn(s.a)); err != nil || states != "" {
				t.Errorf("connections are left: %q, %v", states, err)
			}
			s.prove()
		})
	}
}
