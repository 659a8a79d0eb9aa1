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
		for _, wrong := range []map[string]string{{"ctrlLossTmo": "-2"}, {"reconnectDelay": "1s"}, {"keepAliveTmo": "3601"}, {"nrIOQueues": "0"},
			{"nvmePortals": ""}, {"nvmePortals": "10.0.0.1,"}, {"nvmePortals": "10.0.0.1 10.0.1.1"}, {"nvmePortals": "fe80::1%eth0"},
			{"nvmePortals": "a;b"}, {"nvmePortals": "a,b,c,d,e,f,g,h,i"}} {
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

// Portals of the StorageClass have precedence over the array's addresses, for good.
func TestPortalsOfTheClass(t *testing.T) {
	forEach(t, func(t *testing.T, e *env, _ fixture) {
		r, err := e.CreateVolume(t.Context(), &spec.CreateVolumeRequest{Name: pvName, VolumeCapabilities: []*spec.VolumeCapability{rwoMount},
			Parameters: map[string]string{"nvmePortals": "rds-b.example.com, 10.0.9.1"}})
		if err != nil {
			t.Fatal(err)
		}
		const want = "rds-b.example.com,10.0.9.1"
		if got := r.GetVolume().GetVolumeContext()["nvmeAddresses"]; got != want {
			t.Errorf("the volume is at %q, want %q", got, want)
		}
		if got := e.mustPublish(t, r.GetVolume(), "node-a", rwoMount)["nvmeAddresses"]; got != want {
			t.Errorf("node-a is told %q, want %q", got, want)
		}
	})
}
