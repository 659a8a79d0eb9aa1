package dataplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/guest"
)

// A gate stands before and after each program that the plugin runs. Closed, it
// holds the program there, so that the plugin can be killed at exactly that step.
const (
	gates     = "/gates" // the programs as the plugin finds them
	gateState = "/run/gates"
)

// gated are the programs with gates. nvme has gates for each of its commands.
var gated = []string{"nvme", "blkid", "dd", "mkfs.ext4", "mkfs.xfs", "fsck", "mount", "umount", "resize2fs", "xfs_growfs"}

const gateScript = `#!/bin/sh
# Runs %[1]s, unless a test has closed a gate in front of or behind it.
step=${0##*/}
[ "$step" != nvme ] || step=nvme-$1
gate() {
	[ -e %[2]s/$1-$step ] || return 0
	echo $$ > %[2]s/reached.new && mv %[2]s/reached.new %[2]s/reached
	while [ -e %[2]s/$1-$step ]; do usleep 20000; done
}
gate before
%[1]s "$@"
code=$?
gate after
exit $code
`

func (n *Node) installGates(ctx context.Context) error {
	for _, program := range gated {
		real, err := guest.Find(program)
		if err != nil {
			return err
		}
		if err := n.WriteFile(ctx, gates+"/"+program, 0o755, fmt.Appendf(nil, gateScript, real, gateState)); err != nil {
			return err
		}
	}
	_, err := n.Run(ctx, "mkdir", "-p", gateState)
	return err
}

// Gate is a step of the plugin: before or after it runs a program.
type Gate struct {
	When    string // before, after
	Program string // blkid, mkfs.ext4, nvme-connect, …
}

func (g Gate) String() string { return g.When + " " + g.Program }

func (g Gate) file() string { return gateState + "/" + g.When + "-" + g.Program }

// Shut closes a gate.
func (n *Node) Shut(ctx context.Context, g Gate) error {
	_, err := n.Shell(ctx, "rm -f "+gateState+"/*; : > "+g.file())
	return err
}

// AwaitGate waits until a program stands at the gate that was shut.
func (n *Node) AwaitGate(ctx context.Context, g Gate) error {
	return await(ctx, 30*time.Second, "the step "+g.String(), func(ctx context.Context) error {
		_, err := n.ReadFile(ctx, gateState+"/reached")
		if errors.Is(err, fs.ErrNotExist) {
			return errors.New("it has not come")
		}
		return err
	})
}

// DropGate ends the program at the gate, as the end of the plugin's container
// does, and removes the gate.
func (n *Node) DropGate(ctx context.Context) error {
	pid, err := n.ReadFile(ctx, gateState+"/reached")
	if err != nil {
		return err
	}
	_, err = n.Shell(ctx, "kill -9 "+strings.TrimSpace(string(pid))+"; rm -f "+gateState+"/*")
	return err
}
