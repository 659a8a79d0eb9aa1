package dataplane

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/nvmet"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
)

// These tests prove the bed itself, with plain nvme-cli and without the plugin:
// what two Linux hosts do with the exports of this target.

// connect attaches an export with nvme-cli, as a host of its own, and waits for
// its disk.
func (n *Node) connect(ctx context.Context, nqn string) (string, error) {
	suffix := map[string]string{"node-a": "a", "node-b": "b"}[n.Name]
	return n.connectAs(ctx, nqn, "00000000-0000-5000-8000-00000000000"+suffix)
}

// reconnect attaches an export in the plugin's name.
func (n *Node) reconnect(ctx context.Context, nqn string) (string, error) {
	return n.connectAs(ctx, nqn, nvme.HostOf(n.Name).ID)
}

func (n *Node) connectAs(ctx context.Context, nqn, host string) (string, error) {
	_, err := n.Run(ctx, "nvme", "connect", "-t", "tcp", "-a", ArrayAddress, "-s", strconv.Itoa(ArrayPort), "-n", nqn,
		"--hostnqn=nqn.2014-08.org.nvmexpress:uuid:"+host, "--hostid="+host,
		"--reconnect-delay=1", "--ctrl-loss-tmo=600", "--keep-alive-tmo=2", "--nr-io-queues=1")
	if err != nil {
		return "", err
	}
	var device string
	err = await(ctx, 10*time.Second, "the disk of "+nqn, func(ctx context.Context) (err error) {
		device, err = n.device(ctx, nqn)
		return err
	})
	return device, err
}

// device finds the disk of an NQN, by nothing else.
func (n *Node) device(ctx context.Context, nqn string) (string, error) {
	found, err := n.Shell(ctx, fmt.Sprintf(`for s in /sys/class/nvme-subsystem/nvme-subsys*; do
	[ "$(cat $s/subsysnqn)" = %q ] || continue
	for d in $s/nvme*n*; do
		case ${d##*/} in *c*n*) ;; nvme*n*) [ -e "$d/size" ] && echo /dev/${d##*/} ;; esac
	done
done`, nqn))
	device := strings.TrimSpace(found)
	if err == nil && (device == "" || strings.Contains(device, "\n")) {
		err = fmt.Errorf("%s has %q for %s", n.Name, device, nqn)
	}
	return device, err
}

func (n *Node) disconnect(ctx context.Context, nqn string) error {
	_, err := n.Run(ctx, "nvme", "disconnect", "-n", nqn)
	return err
}

// write has the agent write the given number of blocks in a row.
func (n *Node) write(ctx context.Context, device string, writer, count int) error {
	_, err := n.Run(ctx, "/agent", "write", "-path", device, "-writer", fmt.Sprint(writer), "-count", fmt.Sprint(count), "-blocks", fmt.Sprint(count))
	return err
}

// read has the agent read blocks past every cache.
func (n *Node) read(ctx context.Context, device string, blocks int) (wire.Blocks, error) {
	var report wire.Blocks
	out, err := n.Run(ctx, "/agent", "verify", "-path", device, "-blocks", fmt.Sprint(blocks))
	if err != nil {
		return report, err
	}
	return report, json.Unmarshal([]byte(out), &report)
}

// export makes a file on the array and exports it, and removes both in the end.
func export(t *testing.T, b *Bed, size int64) nvmet.Request {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	r := nvmet.Request{Verb: nvmet.ExportOn, File: "plain/" + name + ".img", Slot: name, NQN: "nqn.2000-02.com.mikrotik:" + name}
	do(t, b, nvmet.Request{Verb: nvmet.Create, File: r.File, Size: size})
	do(t, b, r)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, n := range b.Nodes {
			if err := n.disconnect(ctx, r.NQN); err != nil {
				t.Error(err)
			}
		}
		for _, undo := range []nvmet.Request{
			{Verb: nvmet.Behave, Behaviour: nvmet.Default()},
			{Verb: nvmet.ExportOff, Slot: r.Slot}, {Verb: nvmet.Remove, File: r.File},
		} {
			if err := b.Do(ctx, undo); err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

func do(t *testing.T, b *Bed, r nvmet.Request) {
	t.Helper()
	if err := b.Do(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func TestKernelTwoHostsOneNamespace(t *testing.T) {
	ctx, b := bed(t)
	e := export(t, b, 64<<20)
	var devices [2]string
	for i, n := range b.Nodes {
		var err error
		if devices[i], err = n.connect(ctx, e.NQN); err != nil {
			t.Fatal(err)
		}
		sector, err := n.Shell(ctx, "cat /sys/block/"+strings.TrimPrefix(devices[i], "/dev/")+"/queue/logical_block_size")
		if err != nil || strings.TrimSpace(sector) != "512" {
			t.Errorf("%s: sectors of %q bytes, %v", n.Name, sector, err)
		}
	}
	if err := b.Nodes[0].write(ctx, devices[0], 1, 200); err != nil {
		t.Fatal(err)
	}
	var sums [2]string
	for i, n := range b.Nodes {
		got, err := n.read(ctx, devices[i], 200)
		if err != nil {
			t.Fatal(err)
		}
		if got.ByWriter[1] != 200 || got.Broken != 0 {
			t.Errorf("%s reads %v, %d broken", n.Name, got.ByWriter, got.Broken)
		}
		sums[i] = got.SHA256
	}
	if sums[0] != sums[1] {
		t.Errorf("the nodes read different data: %v", sums)
	}
}

// What a host sees of an export that goes off and on again, by what the array
// does with the namespace's identity and how it switches off. The plugin must
// live with each.
func TestKernelOffAndOn(t *testing.T) {
	_, b := bed(t)
	for _, test := range []struct {
		identity nvmet.Identity
		off      nvmet.Off
		back     bool // the same disk serves again, without anybody's doing
	}{
		{nvmet.IdentityKept, nvmet.OffUnlink, true},
		{nvmet.IdentityNone, nvmet.OffUnlink, true},
		{nvmet.IdentityRandom, nvmet.OffUnlink, false},
		{nvmet.IdentityKept, nvmet.OffDisable, true},
	} {
		t.Run(fmt.Sprintf("%s_%s", test.identity, test.off), func(t *testing.T) {
			ctx, n := t.Context(), b.Nodes[0]
			do(t, b, nvmet.Request{Verb: nvmet.Behave, Behaviour: nvmet.Behaviour{Identity: test.identity, Off: test.off}})
			e := export(t, b, 64<<20)
			device, err := n.connect(ctx, e.NQN)
			if err != nil {
				t.Fatal(err)
			}
			if err := n.write(ctx, device, 1, 20); err != nil {
				t.Fatal(err)
			}
			mark := n.mark(t)
			off := e
			off.Verb = nvmet.ExportOff
			do(t, b, off)
			n.awaitGone(t, e.NQN)
			do(t, b, e)
			if !test.back {
				n.awaitKernel(t, mark, "identifiers changed")
				return
			}
			n.awaitReadable(t, e.NQN, 1, 20)
		})
	}
}

// awaitGone waits until a host has noticed that an export is off: its
// connection is not live any more, or its disk is gone.
func (n *Node) awaitGone(t *testing.T, nqn string) {
	t.Helper()
	err := await(t.Context(), 30*time.Second, n.Name+" to notice", func(ctx context.Context) error {
		states, err := n.states(ctx, nqn)
		if err != nil || !strings.Contains(states, "live") {
			return err
		}
		if _, gone := n.device(ctx, nqn); gone != nil {
			return nil
		}
		return fmt.Errorf("its connections are %q", states)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// states are those of a host's connections to an NQN.
func (n *Node) states(ctx context.Context, nqn string) (string, error) {
	out, err := n.Shell(ctx, fmt.Sprintf(`for c in /sys/class/nvme/nvme*; do
	[ "$(cat $c/subsysnqn 2>/dev/null)" = %q ] && cat $c/state; done; true`, nqn))
	return strings.TrimSpace(out), err
}

// awaitReadable waits until the disk of an NQN gives the writer's blocks.
func (n *Node) awaitReadable(t *testing.T, nqn string, writer uint64, blocks int) {
	t.Helper()
	err := await(t.Context(), 30*time.Second, n.Name+" to read "+nqn, func(ctx context.Context) error {
		states, err := n.states(ctx, nqn)
		if err != nil {
			return err
		}
		if !strings.Contains(states, "live") {
			return fmt.Errorf("its connections are %q", states)
		}
		device, err := n.device(ctx, nqn)
		if err != nil {
			return err
		}
		got, err := n.read(ctx, device, blocks)
		if err == nil && got.ByWriter[writer] != blocks {
			err = fmt.Errorf("it reads %v", got.ByWriter)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// mark is how much the kernel has said so far.
func (n *Node) mark(t *testing.T) int {
	t.Helper()
	out, err := n.Run(t.Context(), "dmesg")
	if err != nil {
		t.Fatal(err)
	}
	return len(out)
}

// awaitKernel waits until the kernel has said something since the mark, some
// number of times.
func (n *Node) awaitKernel(t *testing.T, mark int, text string) {
	t.Helper()
	n.awaitKernelTimes(t, mark, text, 1)
}

func (n *Node) awaitKernelTimes(t *testing.T, mark int, text string, times int) {
	t.Helper()
	err := await(t.Context(), 60*time.Second, fmt.Sprintf("the kernel of %s to say %q %d times", n.Name, text, times), func(ctx context.Context) error {
		out, err := n.Run(ctx, "dmesg")
		if err != nil {
			return err
		}
		if said := out[min(mark, len(out)):]; strings.Count(said, text) < times {
			return fmt.Errorf("it said:\n%s", said)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A grown size shows when the host asks, or, on an array with an old kernel, only
// after the export was opened anew.
func TestKernelGrow(t *testing.T) {
	ctx, b := bed(t)
	n := b.Nodes[0]
	size := func(nqn string) string {
		device, err := n.device(ctx, nqn)
		if err != nil {
			return err.Error()
		}
		out, err := n.Run(ctx, "blockdev", "--getsize64", device)
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(out)
	}
	rescan := func(nqn string) {
		if _, err := n.Shell(ctx, fmt.Sprintf(`for c in /sys/class/nvme/nvme*; do [ "$(cat $c/subsysnqn)" = %q ] && echo 1 > $c/rescan_controller; done; true`, nqn)); err != nil {
			t.Fatal(err)
		}
	}
	for _, reopen := range []bool{false, true} {
		t.Run(fmt.Sprintf("reopen_%t", reopen), func(t *testing.T) {
			do(t, b, nvmet.Request{Verb: nvmet.Behave, Behaviour: nvmet.Behaviour{Identity: nvmet.IdentityKept, Off: nvmet.OffUnlink, GrowOnReopen: reopen}})
			e := export(t, b, 64<<20)
			if _, err := n.connect(ctx, e.NQN); err != nil {
				t.Fatal(err)
			}
			grow := nvmet.Request{Verb: nvmet.Resize, File: e.File, Size: 96 << 20}
			do(t, b, grow)
			if got := size(e.NQN); got != fmt.Sprint(64<<20) {
				t.Fatalf("before anybody asked the size is %s", got)
			}
			rescan(e.NQN)
			if reopen {
				if got := size(e.NQN); got != fmt.Sprint(64<<20) {
					t.Fatalf("the size is %s without the export having been reopened", got)
				}
				off := e
				off.Verb = nvmet.ExportOff
				do(t, b, off)
				n.awaitGone(t, e.NQN)
				do(t, b, e)
			}
			err := await(ctx, 30*time.Second, "the new size", func(context.Context) error {
				if got := size(e.NQN); got != fmt.Sprint(96<<20) {
					return fmt.Errorf("it is %s", got)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Why every step from nobody to somebody takes a new NQN. A host that was cut off
// with a write in its queue comes back by itself; with the old NQN it
// overwrites what the next owner wrote, with a new one it never gets in.
func TestKernelQueuedWrite(t *testing.T) {
	_, b := bed(t)
	for _, test := range []struct {
		name  string
		next  string // what the next NQN has behind the first
		lands bool
	}{
		{"same NQN", "", true},
		{"new NQN", ".g2", false},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			ctx, old, next := t.Context(), b.Nodes[0], b.Nodes[1]
			e := export(t, b, 64<<20)
			first, err := old.connect(ctx, e.NQN)
			if err != nil {
				t.Fatal(err)
			}
			if err := old.write(ctx, first, 1, 50); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Mend(old) }) // after a failure; nobody is better told
			if err := b.Cut(old); err != nil {
				t.Fatal(err)
			}
			queued, err := old.Start(ctx, wire.Command{Args: []string{"/agent", "write", "-path", first, "-writer", "1", "-blocks", "50", "-count", "50"}})
			if err != nil {
				t.Fatal(err)
			}
			old.awaitGone(t, e.NQN)
			off, on := e, e
			off.Verb, on.NQN = nvmet.ExportOff, e.NQN+test.next
			do(t, b, off)
			do(t, b, on)
			second, err := next.connect(ctx, on.NQN)
			if err != nil {
				t.Fatal(err)
			}
			if err := next.write(ctx, second, 2, 50); err != nil {
				t.Fatal(err)
			}
			mark := old.mark(t)
			if err := b.Mend(old); err != nil {
				t.Fatal(err)
			}
			if test.lands {
				if r, err := queued.Wait(ctx); err != nil || r.Code != 0 {
					t.Fatalf("the queued write: %v, %s", err, r.ExitText())
				}
			} else {
				old.awaitKernelTimes(t, mark, "Failed reconnect attempt", 3)
			}
			got, err := next.read(ctx, second, 50)
			if err != nil {
				t.Fatal(err)
			}
			if landed := got.ByWriter[1] > 0; landed != test.lands {
				t.Errorf("the next owner reads %v", got.ByWriter)
			}
			if on.NQN == e.NQN {
				return
			}
			for _, n := range []*Node{old, next} { // the queued write ends with an error only now
				if err := n.disconnect(ctx, on.NQN); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
