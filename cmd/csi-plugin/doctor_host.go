package main

import (
	"context"
	"errors"
	"fmt"
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

func newDoctorHost(ctx context.Context, config routeros.Config, lookup nvme.Lookup) (*doctorHost, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	h := &doctorHost{run: child.New().For("doctor")}
	h.connector = nvme.NewConnector(os.DirFS("/sys"), nvme.HostOf("doctor."+name), 1, clock.RealClock{}, node.DeviceNumber)
	if h.portals, err = nvme.Portals(ctx, lookup, config.NVMeAddresses, strconv.Itoa(config.NVMePort)); err != nil {
		return nil, fmt.Errorf("nvmeAddresses: %w", err)
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

func (h *doctorHost) Lost(ctx context.Context, nqn string) error {
	return h.connector.AwaitLost(ctx, nqn, exportNSID)
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
