package csi

import (
	"context"
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// ControllerGetVolumeHealth tells what the array knows to be wrong with a volume.
func (s *Server) ControllerGetVolumeHealth(ctx context.Context, r *spec.ControllerGetVolumeHealthRequest) (*spec.ControllerGetVolumeHealthResponse, error) {
	problems, err := s.health(ctx, r.GetVolumeId())
	if err != nil {
		return nil, fmt.Errorf("get health of volume %q: %w", r.GetVolumeId(), err)
	}
	return &spec.ControllerGetVolumeHealthResponse{VolumeHealth: healthMessage(r.GetVolumeId(), problems)}, nil
}

func (s *Server) health(ctx context.Context, id string) ([]rds.Problem, error) {
	vol, err := s.locate(id)
	if err != nil {
		return nil, err
	}
	view, err := vol.Array.View(ctx)
	if err != nil {
		return nil, err
	}
	v, ok := view.Volumes[vol.slot]
	if !ok {
		// The array's own answer: absent, or no volume of this driver.
		if v, err = vol.Array.Volume(ctx, vol.slot); err != nil {
			return nil, err
		}
	}
	return rds.Health(v, view.Pool), nil
}

// ControllerListVolumeHealth lists the volumes with which something is wrong. An
// array that does not answer fails the listing: its volumes would seem healthy.
func (s *Server) ControllerListVolumeHealth(ctx context.Context, r *spec.ControllerListVolumeHealthRequest) (*spec.ControllerListVolumeHealthResponse, error) {
	after, err := readPage(r)
	if err != nil {
		return nil, fmt.Errorf("list volume health: %w", err)
	}
	all, err := s.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("list volume health: %w", err)
	}
	var ill []*spec.VolumeHealth
	for _, l := range all {
		if problems := rds.Health(l.volume, l.pool); len(problems) > 0 {
			ill = append(ill, healthMessage(l.handle, problems))
		}
	}
	page, next := paginate(ill, (*spec.VolumeHealth).GetVolumeId, after, r.GetMaxEntries())
	return &spec.ControllerListVolumeHealthResponse{Entries: page, NextToken: next}, nil
}

func healthMessage(handle string, problems []rds.Problem) *spec.VolumeHealth {
	h := &spec.VolumeHealth{VolumeId: handle}
	for _, p := range problems {
		kind := spec.VolumeHealthErrorType_DEGRADED
		if p.Fatal {
			kind = spec.VolumeHealthErrorType_INACCESSIBLE
		}
		h.HealthStatuses = append(h.HealthStatuses, &spec.VolumeHealth_VolumeHealthEntry{Status: kind, Reason: p.Reason, Message: p.Message})
	}
	return h
}
