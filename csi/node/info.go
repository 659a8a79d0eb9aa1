package node

import (
	"context"
	"maps"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
)

// NodeGetCapabilities lists what the Node service can do.
func (s *Server) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	response := &spec.NodeGetCapabilitiesResponse{}
	for _, kind := range []spec.NodeServiceCapability_RPC_Type{
		spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		spec.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		spec.NodeServiceCapability_RPC_EXPAND_VOLUME,
		// Lets ReadWriteOnce and ReadWriteOncePod be told apart.
		spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		spec.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
	} {
		response.Capabilities = append(response.Capabilities, &spec.NodeServiceCapability{
			Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: kind}},
		})
	}
	return response, nil
}

// NodeGetInfo says who this node is: its id is its name.
func (s *Server) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	o := s.config.Options
	info := &spec.NodeGetInfoResponse{NodeId: o.NodeName, MaxVolumesPerNode: o.MaxVolumes}
	if len(o.Topology) > 0 {
		info.AccessibleTopology = &spec.Topology{Segments: maps.Clone(o.Topology)}
	}
	return info, nil
}
