package csi_test

import (
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How nodes connect is said in the StorageClass and read by them.
func TestConnectionParametersReachTheNode(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, _ fixture) {
		create := func(parameters map[string]string) (*spec.Volume, error) {
			r, err := e.CreateVolume(t.Context(), &spec.CreateVolumeRequest{Name: pvName, VolumeCapabilities: []*spec.VolumeCapability{rwoMount}, Parameters: parameters})
			return r.GetVolume(), err
		}
		for _, wrong := range []map[string]string{{"ctrlLossTmo": "-2"}, {"reconnectDelay": "1s"}, {"keepAliveTmo": "3601"}, {"nrIOQueues": "0"}} {
			if _, err := create(wrong); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%v: got %v", wrong, err)
			}
		}
		want := map[string]string{"ctrlLossTmo": "-1", "reconnectDelay": "2", "keepAliveTmo": "15", "nrIOQueues": "2"}
		v, err := create(want)
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range want {
			if got := v.GetVolumeContext()[key]; got != value {
				t.Errorf("%s is %q, want %q", key, got, value)
			}
		}
	})
}
