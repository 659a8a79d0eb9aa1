package dataplane

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/test/dataplane/nvmet"
)

const mib = int64(1) << 20

// world is the plugin whole, on the bed: one for all tests.
var world universe

type universe struct {
	array      *Array
	controller *Controller
	plugins    map[*Node]*Plugin
}

func (u *universe) open(ctx context.Context, b *Bed) (err error) {
	defer func() {
		if err != nil {
			u.close()
		}
	}()
	if u.array, err = b.OpenArray(); err != nil {
		return err
	}
	if u.controller, err = b.OpenController(u.array, ArrayAddress); err != nil {
		return err
	}
	u.plugins = map[*Node]*Plugin{}
	for _, n := range b.Nodes {
		if u.plugins[n], err = n.OpenPlugin(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (u *universe) close() {
	for _, p := range u.plugins {
		if p != nil {
			p.Close()
		}
	}
	if u.controller != nil {
		u.controller.Close()
	}
	if u.array != nil {
		u.array.Close()
	}
}

// scenario is a test's view of the world, with one volume and what Kubernetes
// would remember of it.
type scenario struct {
	*testing.T
	ctx        context.Context
	bed        *Bed
	array      *Array
	controller *Controller
	a, b       *Node

	volume     *spec.Volume
	capability *spec.VolumeCapability
	published  map[*Node]map[string]string // publish contexts
	pod        string                      // whose view of the volume is looked at
}

// rpcTimeout is about what sidecars and kubelet wait for an answer.
const rpcTimeout = 60 * time.Second

func begin(t *testing.T) *scenario {
	t.Helper()
	ctx, b := bed(t)
	s := &scenario{
		T: t, ctx: ctx, bed: b, array: world.array, controller: world.controller, a: b.Nodes[0], b: b.Nodes[1],
		published: map[*Node]map[string]string{}, pod: "pod",
	}
	s.behave(nvmet.Default())
	t.Cleanup(s.finish)
	return s
}

// alone begins a test that runs beside others: on one node, whose link and plugin
// no other touches, or on the other, with whatever these others do.
func alone(t *testing.T, node int) *scenario {
	t.Helper()
	t.Parallel()
	s := begin(t)
	s.a, s.b = s.bed.Nodes[node], s.bed.Nodes[1-node]
	return s
}

func access(mode spec.VolumeCapability_AccessMode_Mode, fstype string) *spec.VolumeCapability {
	c := &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{Mode: mode}}
	if fstype == "" {
		c.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{FsType: fstype}}
	}
	return c
}

var (
	rwxBlock = access(spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, "")
	rwoBlock = access(spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER, "")
	rwoExt4  = access(spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER, "ext4")
	rwoXFS   = access(spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER, "xfs")
	rwopExt4 = access(spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, "ext4")
)

func (s *scenario) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scenario) rpc() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, rpcTimeout)
}

// cut unplugs a node's cable, until mend or the test's end.
func (s *scenario) cut(n *Node) {
	s.Helper()
	s.Cleanup(func() { s.mend(n) })
	s.must(s.bed.Cut(n))
}

func (s *scenario) mend(n *Node) {
	s.Helper()
	if err := s.bed.Mend(n); err != nil {
		s.Error(err)
	}
}

func (s *scenario) behave(b nvmet.Behaviour) {
	s.Helper()
	s.must(s.bed.Do(s.ctx, nvmet.Request{Verb: nvmet.Behave, Behaviour: b}))
}

// another is a second volume of the same test.
func (s *scenario) another(c *spec.VolumeCapability, size int64) *scenario {
	s.Helper()
	other := *s
	other.published = map[*Node]map[string]string{}
	s.Cleanup(other.finish)
	other.create(c, size)
	return &other
}

var volumes atomic.Int64

// create makes the volume.
func (s *scenario) create(c *spec.VolumeCapability, size int64) {
	s.Helper()
	s.createFrom(nil, c, size)
}

// createFrom makes the volume of another one, or empty. A copy takes the array a
// while, and is asked for until it is there.
func (s *scenario) createFrom(source *spec.VolumeContentSource, c *spec.VolumeCapability, size int64) {
	s.Helper()
	name := fmt.Sprintf("pvc-00000000-0000-4000-8000-%012d", volumes.Add(1))
	s.must(await(s.ctx, rpcTimeout, "volume "+name, func(ctx context.Context) error {
		r, err := s.controller.CreateVolume(ctx, &spec.CreateVolumeRequest{
			Name: name, VolumeCapabilities: []*spec.VolumeCapability{c}, VolumeContentSource: source,
			CapacityRange: &spec.CapacityRange{RequiredBytes: size},
		})
		if err != nil && (source == nil || status.Code(err) != codes.Aborted) {
			s.Fatal(err)
		}
		s.volume, s.capability = r.GetVolume(), c
		return err
	}))
	s.bed.API.Put("/api/v1/persistentvolumes", &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			ClaimRef:               &corev1.ObjectReference{Namespace: claims, Name: "claim-" + s.id()},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: csi.DefaultDriverName, VolumeHandle: s.id()}},
		},
	})
}

// claims is the namespace of the volumes' claims.
const claims = "vms"

// wantEvent waits for an event on the volume's claim.
func (s *scenario) wantEvent(n *Node, reason, message string) {
	s.Helper()
	s.must(await(s.ctx, 30*time.Second, "the event "+reason, func(context.Context) error {
		var others []string
		for _, o := range s.bed.API.Objects("/api/v1/namespaces/" + claims + "/events") {
			e := o.(*corev1.Event)
			if e.InvolvedObject.Name != "claim-"+s.id() {
				continue
			}
			if e.Reason == reason && strings.Contains(e.Message, "on node "+n.Name) && strings.Contains(e.Message, message) {
				return nil
			}
			others = append(others, e.Reason+": "+e.Message)
		}
		return fmt.Errorf("there are %q", others)
	}))
}

func (s *scenario) id() string { return s.volume.GetVolumeId() }

// publish attaches the volume to a node.
func (s *scenario) publish(n *Node) {
	s.Helper()
	s.must(s.tryPublish(n))
}

func (s *scenario) tryPublish(n *Node) error {
	ctx, cancel := s.rpc()
	defer cancel()
	r, err := s.controller.ControllerPublishVolume(ctx, &spec.ControllerPublishVolumeRequest{
		VolumeId: s.id(), NodeId: n.Name, VolumeCapability: s.capability, VolumeContext: s.volume.GetVolumeContext(),
	})
	if err != nil {
		return err
	}
	s.published[n] = r.GetPublishContext()
	s.controller.cluster.attach(s.id(), n.Name, true)
	return nil
}

// unpublish detaches it.
func (s *scenario) unpublish(n *Node) {
	s.Helper()
	ctx, cancel := s.rpc()
	defer cancel()
	_, err := s.controller.ControllerUnpublishVolume(ctx, &spec.ControllerUnpublishVolumeRequest{VolumeId: s.id(), NodeId: n.Name})
	s.must(err)
	s.controller.cluster.attach(s.id(), n.Name, false)
	delete(s.published, n)
}

func (s *scenario) staging() string {
	return "/var/lib/kubelet/plugins/kubernetes.io/csi/" + s.id() + "/globalmount"
}

// target is where a pod of the test sees the volume.
func (s *scenario) target() string {
	return "/var/lib/kubelet/pods/" + s.pod + "/volumes/" + s.id() + "/mount"
}

func (s *scenario) tryStage(n *Node) error {
	ctx, cancel := s.rpc()
	defer cancel()
	_, err := world.plugins[n].NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{
		VolumeId: s.id(), StagingTargetPath: s.staging(), VolumeCapability: s.capability,
		PublishContext: s.published[n], VolumeContext: s.volume.GetVolumeContext(),
	})
	return err
}

func (s *scenario) tryShow(n *Node) error {
	ctx, cancel := s.rpc()
	defer cancel()
	_, err := world.plugins[n].NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{
		VolumeId: s.id(), StagingTargetPath: s.staging(), TargetPath: s.target(), VolumeCapability: s.capability,
		PublishContext: s.published[n], VolumeContext: s.volume.GetVolumeContext(),
	})
	return err
}

func (s *scenario) tryHide(n *Node) error {
	ctx, cancel := s.rpc()
	defer cancel()
	_, err := world.plugins[n].NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: s.id(), TargetPath: s.target()})
	return err
}

func (s *scenario) tryUnstage(n *Node) error {
	ctx, cancel := s.rpc()
	defer cancel()
	_, err := world.plugins[n].NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{VolumeId: s.id(), StagingTargetPath: s.staging()})
	return err
}

// attach takes the volume all the way to a pod on a node, detach back again.
func (s *scenario) attach(n *Node) {
	s.Helper()
	s.publish(n)
	s.enter(n)
}

func (s *scenario) enter(n *Node) {
	s.Helper()
	s.must(s.tryStage(n))
	s.must(s.tryShow(n))
}

func (s *scenario) leave(n *Node) {
	s.Helper()
	s.must(s.tryHide(n))
	s.must(s.tryUnstage(n))
}

func (s *scenario) detach(n *Node) {
	s.Helper()
	s.leave(n)
	s.unpublish(n)
}

// remove deletes the volume, and looks that nothing is left of it.
func (s *scenario) remove() {
	s.Helper()
	ctx, cancel := s.rpc()
	defer cancel()
	_, err := s.controller.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: s.id()})
	s.must(err)
	slot, _, _ := strings.Cut(s.id(), ".")
	if _, exists := s.array.Disk(slot); exists {
		s.Error("the disk is still on the array")
	}
	for _, f := range s.array.Files() {
		if strings.Contains(f.Name, slot) {
			s.Errorf("file %s is still on the array", f.Name)
		}
	}
	s.volume = nil
}

// finish leaves the next test a clean bed, whatever this one came to.
func (s *scenario) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s.ctx = ctx
	if s.Failed() {
		for n, p := range world.plugins {
			s.Logf("the plugin on %s:\n%s", n.Name, lastLines(p.Log(ctx), 15))
		}
	}
	var errs []error
	if s.volume != nil {
		for _, n := range []*Node{s.a, s.b} {
			errs = append(errs, s.tryHide(n), s.tryUnstage(n))
			s.controller.cluster.attach(s.id(), n.Name, false)
		}
		_, err := s.controller.ControllerUnpublishVolume(ctx, &spec.ControllerUnpublishVolumeRequest{VolumeId: s.id()})
		errs = append(errs, err)
		_, err = s.controller.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: s.id()})
		errs = append(errs, err)
		s.volume = nil
	}
	if err := errors.Join(errs...); err != nil {
		s.Errorf("clean up: %v", err)
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// holders are the nodes that the array's ledger names.
func (s *scenario) holders() string {
	s.Helper()
	slot, _, _ := strings.Cut(s.id(), ".")
	disk, exists := s.array.Disk(slot)
	if !exists {
		s.Fatalf("no disk %s", slot)
	}
	return strings.Join(rds.ParseLedger(disk.Comment).Nodes(), " ")
}

// nqn is the export's present name.
func (s *scenario) nqn(n *Node) string { return s.published[n]["nqn"] }

// fsck attaches the volume to a node without the plugin and checks its filesystem.
func (s *scenario) fsck(n *Node, check ...string) {
	s.Helper()
	s.publish(n)
	nqn := s.nqn(n)
	device, err := n.connect(s.ctx, nqn)
	s.must(err)
	if out, err := n.Run(s.ctx, append(check, device)...); err != nil {
		s.Errorf("the filesystem is not clean: %v", err)
	} else {
		s.Logf("%s: %s", strings.Join(check, " "), strings.TrimSpace(out))
	}
	s.must(n.disconnect(s.ctx, nqn))
	s.unpublish(n)
}

// The states of health that the scenarios come to.
const (
	well         = ""
	reconnecting = "INACCESSIBLE Reconnecting"
	pathLost     = "DEGRADED PathLost"
)

// wantHealth checks what the node plugin says about the volume, to who asks and
// in its metrics.
func (s *scenario) wantHealth(n *Node, want string) {
	s.Helper()
	s.must(await(s.ctx, 20*time.Second, fmt.Sprintf("health %q", want), func(ctx context.Context) error {
		got, err := s.health(ctx, n)
		if err == nil && got != want {
			err = fmt.Errorf("its health is %q", got)
		}
		return err
	}))
	metrics, err := world.plugins[n].Metrics(s.ctx)
	s.must(err)
	for series, prefix := range map[string]string{"inaccessible": "INACCESSIBLE", "degraded": "DEGRADED"} {
		line := fmt.Sprintf("rds_csi_node_volume_%s{volume_id=%q} 0", series, s.id())
		if want != well && strings.HasPrefix(want, prefix) {
			line = strings.TrimSuffix(line, "0") + "1"
		}
		if !strings.Contains(metrics, line+"\n") {
			s.Errorf("the health is %q, and no metric says %s", want, line)
		}
	}
}

// health is what the node plugin says is wrong with the volume, if anything is.
func (s *scenario) health(ctx context.Context, n *Node) (string, error) {
	r, err := world.plugins[n].NodeGetVolumeHealth(ctx, &spec.NodeGetVolumeHealthRequest{VolumeId: s.id()})
	var words []string
	for _, h := range r.GetVolumeHealth().GetHealthStatuses() {
		words = append(words, h.GetStatus().String()+" "+h.GetReason())
	}
	return strings.Join(words, ", "), err
}

func wantCode(t testing.TB, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
}
