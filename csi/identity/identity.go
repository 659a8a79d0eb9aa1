// Package identity is the CSI Identity service, the same for the controller's
// process and for those on nodes: what it says is about the driver as a whole.
//
// It imports the CSI specification and gRPC.
package identity

import (
	"context"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Service is the Identity service.
type Service struct {
	spec.UnimplementedIdentityServer

	Driver  string // its name
	Version string
	Ready   func() error // nil: always; why this process must not serve now
}

// Register adds the service to a gRPC server.
func (s Service) Register(r grpc.ServiceRegistrar) { spec.RegisterIdentityServer(r, s) }

// GetPluginInfo names the driver.
func (s Service) GetPluginInfo(context.Context, *spec.GetPluginInfoRequest) (*spec.GetPluginInfoResponse, error) {
	return &spec.GetPluginInfoResponse{Name: s.Driver, VendorVersion: s.Version}, nil
}

// GetPluginCapabilities says that there is a Controller service and that
// volumes grow while they are in use.
func (s Service) GetPluginCapabilities(context.Context, *spec.GetPluginCapabilitiesRequest) (*spec.GetPluginCapabilitiesResponse, error) {
	return &spec.GetPluginCapabilitiesResponse{Capabilities: []*spec.PluginCapability{
		{Type: &spec.PluginCapability_Service_{Service: &spec.PluginCapability_Service{Type: spec.PluginCapability_Service_CONTROLLER_SERVICE}}},
		{Type: &spec.PluginCapability_VolumeExpansion_{VolumeExpansion: &spec.PluginCapability_VolumeExpansion{Type: spec.PluginCapability_VolumeExpansion_ONLINE}}},
	}}, nil
}

// Probe reports whether this process can serve. An array that is down, or a
// volume that does not answer, does not make it unready: restarting the plugin
// would not bring it back, and every request says for itself what it cannot reach.
func (s Service) Probe(context.Context, *spec.ProbeRequest) (*spec.ProbeResponse, error) {
	return &spec.ProbeResponse{Ready: wrapperspb.Bool(s.Ready == nil || s.Ready() == nil)}, nil
}
