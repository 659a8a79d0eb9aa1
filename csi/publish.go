package csi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// publication is a request to let a node hold a volume.
type publication struct {
	volume
	server     *Server
	node       string
	multiNode  bool
	dualAttach string
	accessMode string // of the volume context; empty if it says nothing
}

// ControllerPublishVolume lets a node hold a volume and says how to reach it.
func (s *Server) ControllerPublishVolume(ctx context.Context, r *spec.ControllerPublishVolumeRequest) (*spec.ControllerPublishVolumeResponse, error) {
	p, err := s.readPublication(r)
	if err != nil {
		return nil, fmt.Errorf("publish volume %q to node %q: %w", r.GetVolumeId(), r.GetNodeId(), err)
	}
	v, err := p.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("publish volume %s to node %s: %w", p.handle, p.node, err)
	}
	// The NQN's generation, not the ledger's, which every write raises: the same
	// request again gets the same answer.
	generation, _ := rds.GenerationOf(v.NQN, p.slot)
	return &spec.ControllerPublishVolumeResponse{PublishContext: map[string]string{
		contextNQN:        v.NQN,
		contextAddresses:  p.portals(r.GetVolumeContext()),
		contextPort:       strconv.Itoa(v.Port),
		contextGeneration: strconv.FormatUint(generation, 10),
		contextSize:       strconv.FormatInt(v.Size, 10),
	}}, nil
}

func (s *Server) readPublication(r *spec.ControllerPublishVolumeRequest) (publication, error) {
	p := publication{server: s, node: r.GetNodeId()}
	var err error
	if p.volume, err = s.locate(r.GetVolumeId()); err != nil {
		return p, err
	}
	switch {
	case p.node == "":
		return p, invalid("node_id is missing")
	case !rds.ValidNode(p.node):
		return p, invalid("node_id may hold letters, digits, '.', '_', ':' and '-' only, and at most 253 of them")
	case r.GetReadonly():
		return p, invalid("read-only publication is not supported")
	}
	if err := checkCapability(r.GetVolumeCapability()); err != nil {
		return p, err
	}
	p.multiNode = multiNode(r.GetVolumeCapability())
	p.accessMode = r.GetVolumeContext()[contextAccessMode]
	p.dualAttach, err = contextDualAttach(r.GetVolumeContext())
	return p, err
}

func (p publication) run(ctx context.Context) (rds.Volume, error) {
	end, err := p.server.pending.begin(p.handle, "publish volume")
	if err != nil {
		return rds.Volume{}, err
	}
	defer end()
	exists, err := p.server.config.Cluster.NodeExists(ctx, p.node)
	if err != nil {
		return rds.Volume{}, clusterError("look up the node", err)
	}
	if !exists {
		return rds.Volume{}, fmt.Errorf("%w: no CSINode registers driver %s with node id %s; is the plugin running there?", rds.ErrNotFound, p.server.config.DriverName, p.node)
	}
	v, err := p.Array.Update(ctx, p.slot, p.decide)
	if err != nil {
		return v, err
	}
	if v.NQN == "" || v.Port <= 0 || !v.Exported {
		return v, fmt.Errorf("%w: the disk reads back without an export (NQN %q, port %d)", rds.ErrConflict, v.NQN, v.Port)
	}
	return v, nil
}

// decide is called by the array with the volume as it is, maybe more than once.
// Where the ledger can tell who holds the volume the cluster is not asked.
func (p publication) decide(ctx context.Context, v rds.Volume) (rds.Change, error) {
	var attached []string
	if rds.PublishNeedsCluster(v) {
		var err error
		if attached, err = p.server.attached(ctx, p.volume); err != nil {
			return rds.Change{}, err
		}
	}
	now := p.server.config.Now()
	holders := rds.Holders(v, p.node, attached, now)
	if err := p.mayJoin(ctx, holders, attached); err != nil {
		return rds.Change{}, p.wayOut(ctx, holders, err)
	}
	return rds.Publish(v, p.node, attached, now, p.NQNPrefix)
}

// mayJoin decides whether the node may hold the volume next to those that do.
// A node that holds it already repairs its publication and is not asked again.
func (p publication) mayJoin(ctx context.Context, holders rds.Ledger, attached []string) error {
	others := slices.DeleteFunc(holders.Nodes(), func(n string) bool { return n == rds.NodeKey(p.node) })
	if len(others) == 0 || holders.Holds(p.node) || slices.Contains(attached, p.node) {
		return nil
	}
	others = p.server.config.Cluster.NodeIDs(others)
	names := strings.Join(others, " and ")
	switch {
	case len(others) >= rds.MaxHolders:
		return fmt.Errorf("%w by nodes %s; a third node never joins", rds.ErrInUse, names)
	case !p.multiNode:
		return fmt.Errorf("%w by node %s, and the requested access mode allows one node only", rds.ErrInUse, names)
	case p.accessMode != "" && p.accessMode != readWriteMany:
		return fmt.Errorf("%w by node %s, and the volume was created as %s", rds.ErrInUse, names, p.accessMode)
	}
	pv, err := p.server.config.Cluster.SingleNodePV(ctx, p.spellings()...)
	if err != nil {
		return clusterError("look up the volume's PersistentVolume", err)
	}
	if pv != "" {
		return fmt.Errorf("%w by node %s, and PersistentVolume %s does not allow ReadWriteMany", rds.ErrInUse, names, pv)
	}
	if p.dualAttach == dualAttachAny {
		return nil
	}
	return p.askGuard(ctx, others[0])
}

// askGuard asks whether this is a migration. Before a refusal one live read tells
// whether the node's own attachment says attached: then its ledger entry was lost, and
// refusing it would only take a disk from a running VM.
func (p publication) askGuard(ctx context.Context, holder string) error {
	refusal := p.server.config.Guard.MayShare(ctx, p.node, holder, p.spellings()...)
	switch {
	case refusal == nil:
		return nil
	case !errors.Is(refusal, rds.ErrInUse):
		return clusterError("ask whether this is a live migration", refusal)
	}
	attached, err := p.server.attached(ctx, p.volume)
	if err != nil {
		return err
	}
	if slices.Contains(attached, p.node) {
		return nil
	}
	return refusal
}

// wayOut adds to a refusal what a person can do where waiting does not help: a node of
// which there is no VolumeAttachment is never unpublished. Taking it for released would
// be a guess; it may be connected. A refusal stands as it is if the cluster cannot be asked.
func (p publication) wayOut(ctx context.Context, holders rds.Ledger, refusal error) error {
	if !errors.Is(refusal, rds.ErrInUse) {
		return refusal
	}
	cluster := p.server.config.Cluster
	attached, others, err := cluster.AttachedNodes(ctx, p.spellings()...)
	if err != nil {
		return refusal
	}
	known := []string{rds.NodeKey(p.node)}
	for _, node := range slices.Concat(attached, others) {
		known = append(known, rds.NodeKey(node))
	}
	for _, held := range holders.Publications {
		if slices.Contains(known, held.Node) {
			continue
		}
		node := cluster.NodeIDs([]string{held.Node})[0]
		refusal = fmt.Errorf("%w. The cluster has no VolumeAttachment of it for node %s, so nothing will take it from there: when nothing on %s uses it "+
			"(the machine is off, or nvme list-subsys there does not show %s), take %s=%d out of the comment of disk %s on array %s (runbook RDSArrayDivergence)",
			refusal, node, node, p.slot, held.Node, held.Since.Unix(), p.slot, p.Name)
	}
	return refusal
}

// ControllerUnpublishVolume takes a volume from a node, or from every node if
// none is named.
func (s *Server) ControllerUnpublishVolume(ctx context.Context, r *spec.ControllerUnpublishVolumeRequest) (*spec.ControllerUnpublishVolumeResponse, error) {
	err := s.unpublish(ctx, r.GetVolumeId(), r.GetNodeId())
	// A disk that the array proves absent is held by nobody.
	if err != nil && !errors.Is(err, rds.ErrNotFound) {
		from := "every node"
		if r.GetNodeId() != "" {
			from = fmt.Sprintf("node %q", r.GetNodeId())
		}
		return nil, fmt.Errorf("unpublish volume %q from %s: %w", r.GetVolumeId(), from, err)
	}
	return &spec.ControllerUnpublishVolumeResponse{}, nil
}

func (s *Server) unpublish(ctx context.Context, id, node string) error {
	vol, err := s.locate(id)
	if err != nil {
		return err
	}
	end, err := s.pending.begin(vol.handle, "unpublish volume")
	if err != nil {
		return err
	}
	defer end()
	_, err = vol.Array.Update(ctx, vol.slot, func(ctx context.Context, v rds.Volume) (rds.Change, error) {
		var attached []string
		if rds.UnpublishNeedsCluster(v, node) {
			var err error
			if attached, err = s.attached(ctx, vol); err != nil {
				return rds.Change{}, err
			}
		}
		return rds.Unpublish(v, node, attached, s.config.Now())
	})
	return err
}
