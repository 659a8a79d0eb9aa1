package stack

import (
	"context"
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
)

const gibibyte = 1 << 30

func (s *Stack) dial() (err error) {
	s.csi, err = grpc.NewClient("unix://"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return err
}

// Controller calls the plugin's CSI controller service directly.
func (s *Stack) Controller() spec.ControllerClient { return spec.NewControllerClient(s.csi) }

// CreateRWXClaim has the plugin create a shared block volume, and binds a claim to
// it. parameters are a StorageClass's.
func (s *Stack) CreateRWXClaim(ctx context.Context, namespace, claim string, parameters map[string]string) (*corev1.PersistentVolumeClaim, error) {
	name := "pvc-" + uuid.NewString()
	response, err := s.Controller().CreateVolume(ctx, &spec.CreateVolumeRequest{
		Name:          name,
		CapacityRange: &spec.CapacityRange{RequiredBytes: gibibyte},
		Parameters:    parameters,
		VolumeCapabilities: []*spec.VolumeCapability{{
			AccessType: &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}},
			AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
		}},
	}, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("create the volume of claim %s/%s: %w", namespace, claim, err)
	}
	return s.CreateVolume(ctx, lab.Volume{
		Namespace: namespace, Claim: claim, PV: name, Handle: response.Volume.VolumeId, Size: "1Gi",
		AccessMode: corev1.ReadWriteMany, Mode: corev1.PersistentVolumeBlock, Attributes: response.Volume.VolumeContext,
	})
}
