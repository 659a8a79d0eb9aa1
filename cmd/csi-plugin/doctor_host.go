package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"k8s.io/utils/clock"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/node"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/doctor"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// exportNSID is the only namespace of an export.
const exportNSID = 1

// doctorHost connects this machine for the doctor, under a host identity of its own:
// nothing of the node plugin's is touched.
type doctorHost struct {
	connector *nvme.Connector
	run       child.Runner
	portals   []nvme.Portal
}

func newDoctorHost(config routeros.Config) (*doctorHost, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	h := &doctorHost{run: child.New().For("doctor")}
	h.connector = nvme.NewConnector(os.DirFS("/sys"), nvme.HostOf("doctor."+name), 1, clock.RealClock{}, node.DeviceNumber)
	for _, address := range config.NVMeAddresses {
		ip, err := netip.ParseAddr(address)
		if err != nil {
			return nil, fmt.Errorf("nvmeAddresses: %w", err)
		}
		h.portals = append(h.portals, nvme.Portal{Address: ip, Port: strconv.Itoa(config.NVMePort)})
	}
	if len(h.portals) == 0 {
		return nil, errors.New("arrays.yaml names no nvmeAddresses to connect to")
	}
	return h, nil
}

func (h *doctorHost) Connect(ctx context.Context, nqn string, size int64) (doctor.Device, error) {
	d, partial, err := h.connector.Connect(ctx, h.run, nvme.Target{NQN: nqn, NSID: exportNSID, Size: size, Portals: h.portals, Queues: 1, CtrlLoss: 60, ReconnectDelay: 1})
	if err == nil {
		err = partial // here every portal must work
	}
	return seen(d), err
}

func (h *doctorHost) Look(_ context.Context, nqn string) (doctor.Device, error) {
	d, err := h.connector.Device(nqn, exportNSID)
	return seen(d), err
}

func (h *doctorHost) Rescan(ctx context.Context, nqn string, size int64) (doctor.Device, error) {
	d, err := h.connector.Device(nqn, exportNSID)
	if err != nil {
		return doctor.Device{}, err
	}
	if err := h.connector.Rescan(ctx, h.run, d); err != nil {
		return seen(d), err
	}
	d, err = h.connector.AwaitSize(ctx, nqn, exportNSID, size)
	return seen(d), err
}

func (h *doctorHost) Release(ctx context.Context, slot string) error {
	subsystems, err := h.connector.Subsystems()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range nvme.BySlot(subsystems, slot) {
		errs = append(errs, h.connector.Disconnect(ctx, h.run, s))
	}
	return errors.Join(errs...)
}

func seen(d nvme.Device) doctor.Device {
	return doctor.Device{Name: d.Name, Identity: d.Identity, Size: d.Size, Live: d.Live()}
}
