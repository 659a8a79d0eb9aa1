package dataplane

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/nvmet"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/wire"
)

// These tests prove the bed itself, with plain nvme-cli and without the plugin:
// what two Linux hosts do with the exports of this target.

// connect attaches an export with nvme-cli and waits for its disk.
func (n *Node) connect(ctx context.Context, nqn string, more ...string) (string, error) {
	args := append([]string{"nvme", "connect", "-t", "tcp", "-a", ArrayAddress, "-s", fmt.Sprint(ArrayPort), "-n", nqn,
		"--hostnqn=nqn.2014-08.org.nvmexpress:uuid:00000000-0000-5000-8000-00000000" + hostID(n), "--hostid=00000000-0000-5000-8000-00000000" + hostID(n),
		"--reconnect-delay=1", "--ctrl-loss-tmo=600", "--keep-alive-tmo=2", "--nr-io-queues=1"}, more...)
	if _, err := n.Run(ctx, args...); err != nil {
		return "", err
	}
	var device string
	err := await(ctx, 10*time.Second, "the disk of "+nqn, func(ctx context.Context) (err error) {
		device, err = n.device(ctx, nqn)
		return err
	})
	return device, err
}

func hostID(n *Node) string {
	return map[string]string{"node-a": "000a", "node-b": "000b"}[n.Name]
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
