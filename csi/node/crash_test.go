package node

import (
	"errors"
	"fmt"
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
)

// killed is what a plugin that is killed with SIGKILL returns: nothing.
var errKilled = errors.New("killed")

// killAt runs an operation and kills the plugin at the nth moment: just before or
// just after one of the commands it runs. It reports whether there was such a
// moment. A new plugin is started either way.
func (b *bench) killAt(n int, operation func() error) (killed bool) {
	b.Helper()
	moment := 0
	strike := func() {
		if moment++; moment == n {
			panic(errKilled)
		}
	}
	b.before = func(child.Command) error { strike(); return nil }
	b.after = func(child.Command) { strike() }
	defer func() {
		b.before, b.after = nil, nil
		if p := recover(); p != nil {
			if p != errKilled { //nolint:errorlint // it is the very value
				panic(p)
			}
			killed = true
		}
		b.Server = b.serve(b.state)
	}()
	b.ok(operation())
	return false
}

const manyMoments = 40

// Whenever the plugin is killed, the same request again succeeds, and so does
// giving up instead.
func TestKilledAtEveryStep(t *testing.T) {
	for _, block := range []bool{false, true} {
		for name, c := range map[string]struct {
			prepare func(b *bench) // what came before
			killed  func(b *bench) error
			undo    func(b *bench) // what takes it away, after the kill
		}{
			"stage": {
				prepare: func(*bench) {},
				killed:  func(b *bench) error { return b.stage() },
				undo:    func(b *bench) { b.ok(b.unstage()) },
			},
			"stage instead of an older generation": {
				prepare: func(b *bench) { b.ok(b.stage()); b.do(func() { b.mounts = nil }); b.export(2) },
				killed:  func(b *bench) error { return b.stage() },
				undo:    func(b *bench) { b.ok(b.unstage()) },
			},
			"publish": {
				prepare: func(b *bench) { b.ok(b.stage()) },
				killed:  func(b *bench) error { return b.publish("a", !block) },
				undo:    func(b *bench) { b.ok(b.unpublish("a"), b.unstage()) },
			},
			"unpublish": {
				prepare: func(b *bench) { b.ok(b.stage(), b.publish("a", false)) },
				killed:  func(b *bench) error { return b.unpublish("a") },
				undo:    func(b *bench) { b.ok(b.unpublish("a"), b.unstage()) },
			},
			"unstage": {
				prepare: func(b *bench) { b.ok(b.stage()) },
				killed:  func(b *bench) error { return b.unstage() },
				undo:    func(b *bench) { b.ok(b.unstage()) },
			},
		} {
			t.Run(fmt.Sprintf("%s, block %t", name, block), func(t *testing.T) {
				for _, again := range []bool{true, false} {
					moments := 0
					for n := 1; n < manyMoments; n++ {
						b := newBench(t)
						b.block = block
						c.prepare(b)
						if !b.killAt(n, func() error { return c.killed(b) }) {
							break
						}
						moments++
						if again {
							b.ok(c.killed(b))
						}
						c.undo(b)
						b.clean()
						b.ok(b.stage(), b.publish("z", false), b.unpublish("z"), b.unstage())
						b.clean()
					}
					if moments < 2 || moments == manyMoments-1 {
						t.Errorf("%d moments", moments)
					}
				}
			})
		}
	}
}

// A format that was cut off is done again, but only on the very export that was
// blank: on a later one somebody else may have finished it.
func TestFormatThatWasCutOff(t *testing.T) {
	cutOff := func(t *testing.T) *bench {
		b := newBench(t)
		b.before = func(c child.Command) error {
			if c.Name == "mkfs.ext4" {
				b.do(func() { b.device().content.dirty = true })
				panic(errKilled)
			}
			return nil
		}
		func() {
			defer func() { _ = recover() }()
			_ = b.stage()
		}()
		b.before = nil
		b.Server = b.serve(b.state)
		return b
	}
	t.Run("the same export", func(t *testing.T) {
		b := cutOff(t)
		b.ok(b.stage())
		if b.device().content.made != 1 {
			t.Error("not formatted")
		}
	})
	t.Run("after a reboot of the node", func(t *testing.T) {
		b := cutOff(t)
		b.reboot()
		b.config.BootID = "boot-2"
		b.ok(b.stage())
		if b.device().content.made != 1 {
			t.Error("not formatted")
		}
	})
	t.Run("a later export, not finished", func(t *testing.T) {
		b := cutOff(t)
		b.export(2)
		if err := b.stage(); err == nil {
			t.Error("a device that is not blank was staged")
		}
		if got := b.commands("mkfs"); len(got) != 1 {
			t.Errorf("ran %q", got)
		}
	})
	t.Run("a later export, finished elsewhere", func(t *testing.T) {
		b := cutOff(t)
		b.export(2)
		b.exports[nqnOf(2)].content.fstype = "ext4"
		b.ok(b.stage())
		if got := b.commands("mkfs"); len(got) != 1 {
			t.Errorf("formatted again: %q", got)
		}
	})
	t.Run("staged since", func(t *testing.T) {
		b := cutOff(t)
		b.ok(b.stage())
		b.reboot()
		b.config.BootID = "boot-2"
		b.ok(b.stage())
		if b.device().content.made != 1 {
			t.Error("formatted again")
		}
	})
}
