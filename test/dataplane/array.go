package dataplane

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	client "git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/nvmet"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// Where volumes are kept on the array.
const (
	poolName = "raid10"
	basePath = poolName + "/k8s"
)

// backendTimeout bounds one change in the array guest.
const backendTimeout = 30 * time.Second

// Array is the array whole: its console, and the kernel that does what the
// console says.
type Array struct {
	*routeros.Server
	Client *client.Array
	bed    *Bed
}

// OpenArray starts an array whose files and exports are the array guest's.
func (b *Bed) OpenArray() (*Array, error) {
	server, err := routeros.New(routeros.Options{HostKeyType: routeros.Ed25519, Backend: backend{b}})
	if err != nil {
		return nil, err
	}
	a := &Array{Server: server, bed: b}
	if err := a.open(); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

func (a *Array) open() error {
	if err := a.AddPool(routeros.Pool{Name: poolName, Size: 10 << 40}); err != nil {
		return err
	}
	if err := a.AddDirectory(basePath); err != nil {
		return err
	}
	if err := a.Start(a.bed.console); err != nil {
		return err
	}
	key := a.bed.path(keyFile)
	if err := routeros.WriteKey(key); err != nil {
		return err
	}
	var err error
	a.Client, err = client.New(client.Config{
		Name: "main", Address: a.Addr(), User: "admin", KeyFile: key,
		HostKey:  client.HostKeys{ssh.FingerprintSHA256(a.HostKey())},
		BasePath: basePath, NVMeAddresses: []string{ArrayAddress},
	})
	return err
}

// keyFile is the key of the array's user, in the bed's folder.
const keyFile = "key"

// Close ends the console; the exports end with the guest.
func (a *Array) Close() {
	if a.Client != nil {
		_ = a.Client.Close() // nothing is kept in a connection
	}
	_ = a.Server.Close()
}

// backend carries out in the array guest what the console decides.
type backend struct{ bed *Bed }

var verbs = map[routeros.EventKind]nvmet.Verb{
	routeros.FileCreate: nvmet.Create, routeros.FileResize: nvmet.Resize, routeros.ExportResize: nvmet.Resize,
	routeros.FileCopy: nvmet.Copy, routeros.FileRename: nvmet.Rename, routeros.FileRemove: nvmet.Remove,
	routeros.ExportOn: nvmet.ExportOn, routeros.ExportChange: nvmet.ExportOn, routeros.ExportOff: nvmet.ExportOff,
}

// Apply implements routeros.Backend.
func (b backend) Apply(e routeros.Event) error {
	verb, known := verbs[e.Kind]
	if !known {
		return fmt.Errorf("the test bed cannot do %s", e.Kind)
	}
	if verb == nvmet.ExportOn && e.Port != ArrayPort {
		return fmt.Errorf("the test bed exports on port %d only, not %d", ArrayPort, e.Port)
	}
	ctx, cancel := context.WithTimeout(context.Background(), backendTimeout)
	defer cancel()
	return b.bed.Do(ctx, nvmet.Request{
		Verb: verb, File: e.File, From: e.From, Size: e.Size, Slot: e.Slot, NQN: e.NQN, AllowHost: e.AllowHost,
	})
}

// PowerOff takes the array away as a reboot does: silence on the wire, no
// console, and no connection survives.
func (a *Array) PowerOff(ctx context.Context) error {
	for _, n := range a.bed.Nodes {
		if err := a.bed.Cut(n); err != nil {
			return err
		}
	}
	// Before the console's own end, which would switch off each export in order.
	return errors.Join(a.bed.Do(ctx, nvmet.Request{Verb: nvmet.Down}), a.Down())
}

// PowerOn brings it back with all exports that it had. With portFirst hosts can
// connect before the exports are there, and between is run meanwhile.
func (a *Array) PowerOn(ctx context.Context, portFirst bool, between func() error) error {
	steps := []func() error{
		func() error { return a.bed.Do(ctx, nvmet.Request{Verb: nvmet.Up}) },
		a.Up,
	}
	open := []func() error{
		func() error { return a.bed.Do(ctx, nvmet.Request{Verb: nvmet.OpenPort, Port: ArrayPort}) },
		func() error { return a.bed.Mend(a.bed.Nodes[0]) },
		func() error { return a.bed.Mend(a.bed.Nodes[1]) },
		between,
	}
	if portFirst {
		steps = append(open, steps...)
	} else {
		steps = append(steps, open...)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// adopt puts a disk on the array as another plugin has made it: exported from
// the beginning, without a ledger.
func (b *Bed) adopt(ctx context.Context, a *Array, slot, nqn, file string, size int64) error {
	if err := b.Do(ctx, nvmet.Request{Verb: nvmet.Create, File: file, Size: size}); err != nil {
		return err
	}
	_, err := a.AddDisk(map[string]string{
		"type": "file", "slot": slot, "file-path": "/" + file, "file-size": strconv.FormatInt(size, 10),
		"nvme-tcp-export": "yes", "nvme-tcp-server-port": strconv.Itoa(ArrayPort), "nvme-tcp-server-nqn": nqn,
	})
	if err != nil {
		return err
	}
	// Seeding tells the backend nothing.
	return b.Do(ctx, nvmet.Request{Verb: nvmet.ExportOn, File: file, Slot: slot, NQN: nqn})
}
