package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// churnOptions are those of many short lives over a bad line.
type churnOptions struct {
	volumes, concurrency, channels int
	latency                        time.Duration
	cuts                           float64
	seed                           uint64
	// Between two attempts of a request, doubling, as the sidecars do.
	retryFirst, retryMost time.Duration
}

// requestTimeout is that of the sidecars in config/csi.
const requestTimeout = time.Minute

// notFinal are the codes after which csi-provisioner repeats a request because it may
// be under way still. After any other it believes that there is no volume.
var notFinal = []codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted}

// churner is one run.
type churner struct {
	churnOptions
	rig     *rig
	plugin  spec.ControllerClient
	witness *witness
	result  *churnResult
}

// churn creates, publishes, unpublishes and deletes volumes on an array that cuts
// connections at random points of random commands. Whatever goes wrong with a volume
// is in the result, not an error.
func churn(ctx context.Context, o churnOptions) (*churnResult, error) {
	r, err := newRig(rigOptions{fs: "xfs", latency: o.latency, channels: o.channels, cuts: o.cuts, seed: o.seed})
	if err != nil {
		return nil, err
	}
	defer r.close()
	array, err := r.client()
	if err != nil {
		return nil, err
	}
	defer func() { _ = array.Close() }() // nothing is lost with a measurement
	plugin, closePlugin, err := servePlugin(r, array)
	if err != nil {
		return nil, err
	}
	defer closePlugin()
	c := &churner{churnOptions: o, rig: r, plugin: plugin, witness: newWitness(plugin, r.server), result: newChurnResult(o)}
	before := r.contents()
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	// A script whose connection was cut may run on.
	if err := r.server.WaitIdle(ctx); err != nil {
		return nil, err
	}
	c.result.commands = array.RoundTrips()
	c.result.connections = r.server.Stats().Connections
	for _, command := range r.server.Log() {
		if command.Fault != "" {
			c.result.cut++
		}
	}
	for _, name := range r.contents() {
		if !slices.Contains(before, name) {
			c.result.leaked = append(c.result.leaked, name)
		}
	}
	return c.result, ctx.Err()
}

func (c *churner) run(ctx context.Context) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() { watched <- c.witness.watch(watching) }()
	start := time.Now()
	lives := errgroup.Group{}
	lives.SetLimit(c.concurrency)
	for i := range c.volumes {
		lives.Go(func() error {
			if err := c.live(ctx, i); err != nil {
				c.result.fail(err)
			}
			return nil
		})
	}
	_ = lives.Wait() // they return none
	c.result.took = time.Since(start)
	stop()
	err := <-watched
	c.result.looks, c.result.lost = c.witness.looks, c.witness.lost
	return err
}

// live leads one volume through its life and compares each step with what the array
// itself holds.
func (c *churner) live(ctx context.Context, i int) error {
	name, node := fmt.Sprintf("pvc-%08x-0000-4000-8000-000000000000", i), fmt.Sprintf("node-%d", i%5)
	created, err := repeat(ctx, c, "CreateVolume", func(ctx context.Context) (*spec.CreateVolumeResponse, error) {
		return c.plugin.CreateVolume(ctx, &spec.CreateVolumeRequest{
			Name: name, CapacityRange: &spec.CapacityRange{RequiredBytes: gib}, VolumeCapabilities: []*spec.VolumeCapability{shared()},
		})
	})
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	v := created.GetVolume()
	c.witness.exists(v.GetVolumeId())
	_, err = repeat(ctx, c, "ControllerPublishVolume", func(ctx context.Context) (*spec.ControllerPublishVolumeResponse, error) {
		return c.plugin.ControllerPublishVolume(ctx, &spec.ControllerPublishVolumeRequest{
			VolumeId: v.GetVolumeId(), NodeId: node, VolumeCapability: shared(), VolumeContext: v.GetVolumeContext(),
		})
	})
	if err = errors.Join(err, c.rig.holds(v.GetVolumeId(), node)); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	_, err = repeat(ctx, c, "ControllerUnpublishVolume", func(ctx context.Context) (*spec.ControllerUnpublishVolumeResponse, error) {
		return c.plugin.ControllerUnpublishVolume(ctx, &spec.ControllerUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: node})
	})
	if err = errors.Join(err, c.rig.holds(v.GetVolumeId())); err != nil {
		return fmt.Errorf("unpublish %s: %w", name, err)
	}
	c.witness.goes(v.GetVolumeId())
	_, err = repeat(ctx, c, "DeleteVolume", func(ctx context.Context) (*spec.DeleteVolumeResponse, error) {
		return c.plugin.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// repeat sends the same request until the answer is final.
func repeat[T any](ctx context.Context, c *churner, method string, do func(context.Context) (T, error)) (T, error) {
	start, wait := time.Now(), c.retryFirst
	for {
		request, cancel := context.WithTimeout(ctx, requestTimeout)
		out, err := do(request)
		cancel()
		code := status.Code(err)
		if !slices.Contains(notFinal, code) {
			c.result.done(method, time.Since(start))
			return out, err
		}
		c.result.repeated(method, code)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return out, err
		}
		wait = min(2*wait, c.retryMost)
	}
}

// servePlugin serves the controller at a socket, with its edge, as the sidecars see it.
func servePlugin(r *rig, array *routeros.Array) (spec.ControllerClient, func(), error) {
	server, err := newServer(array)
	if err != nil {
		return nil, nil, err
	}
	metrics, err := csi.NewMetrics(prometheus.NewRegistry(), nil, nil)
	if err != nil {
		return nil, nil, err
	}
	socket := filepath.Join(r.dir, "csi.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, nil, err
	}
	g := grpc.NewServer(grpc.UnaryInterceptor(csi.Interceptor(logr.Discard(), metrics, nil)))
	server.Register(g)
	go func() { _ = g.Serve(listener) }()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		g.Stop()
		return nil, nil, err
	}
	return spec.NewControllerClient(conn), func() { _ = conn.Close(); g.Stop() }, nil
}

// contents are the array's disks and files.
func (r *rig) contents() []string {
	var all []string
	for _, d := range r.server.Disks() {
		all = append(all, fmt.Sprintf("disk %s (%s)", d.Slot, d.Comment))
	}
	for _, f := range r.server.Files() {
		all = append(all, "file "+f.Name)
	}
	return all
}

// holds compares the array's ledger and export of a volume with what they must be.
func (r *rig) holds(slot string, nodes ...string) error {
	disk, ok := r.server.Disk(slot)
	if !ok {
		return errors.New("the array has no such disk")
	}
	ledger := rds.ParseLedger(disk.Comment)
	if !ledger.Known || !slices.Equal(ledger.Nodes(), nodes) || disk.Exported != (len(nodes) > 0) {
		return fmt.Errorf("the array has the ledger %q and exported=%t, wanted are %v", disk.Comment, disk.Exported, nodes)
	}
	return nil
}
