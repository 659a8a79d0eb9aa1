package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

// The reasons of a volume's ill health.
const (
	reasonGone         = "DeviceGone"
	reasonReplaced     = "DeviceReplaced"
	reasonAmbiguous    = "DeviceAmbiguous"
	reasonIdentity     = "IdentityChanged"
	reasonTooSmall     = "DeviceTooSmall"
	reasonNotMounted   = "NotMounted"
	reasonReconnecting = "Reconnecting"
	reasonShutDown     = "FilesystemShutDown"
	reasonPathLost     = "PathLost"
	reasonReadOnly     = "FilesystemReadOnly"
)

// problem is one thing that is wrong with a staged volume.
type problem struct {
	status  spec.VolumeHealthErrorType
	reason  string
	message string
}

func inaccessible(reason, format string, args ...any) problem {
	return problem{spec.VolumeHealthErrorType_INACCESSIBLE, reason, fmt.Sprintf(format, args...)}
}

func degraded(reason, format string, args ...any) problem {
	return problem{spec.VolumeHealthErrorType_DEGRADED, reason, fmt.Sprintf(format, args...)}
}

// judge says what is wrong with a volume that is staged here. It decides by what
// it is given, and by nothing else.
func judge(r record, now sight) []problem {
	d, err := nvme.Find(now.subsystems, r.NQN, r.NSID)
	var problems []problem
	switch {
	case errors.Is(err, nvme.ErrAmbiguous):
		return []problem{inaccessible(reasonAmbiguous, "%s", err)}
	case err != nil && !waits(r, now):
		return []problem{inaccessible(reasonGone, "%s; what pods see is dead, and comes back only after all of them on this node have stopped", err)}
	case err != nil:
		return []problem{inaccessible(reasonReconnecting, "%s", err)}
	}
	for _, path := range r.uses(now) {
		if dev, _, ok := now.shows(path); ok && dev != d.Dev {
			return []problem{inaccessible(reasonReplaced, "%s shows device %s, and the volume is %s (%s) now; it comes back only after all pods on this node have stopped", path, dev, d.Dev, d.Name)}
		}
	}
	inUse := !r.Block || len(r.uses(now)) > 0
	if inUse && r.Identity != "" && d.Identity != r.Identity {
		return []problem{inaccessible(reasonIdentity, "%s is %s, and %s was staged", d.Name, d.Identity, r.Identity)}
	}
	if d.Size < r.Size {
		problems = append(problems, inaccessible(reasonTooSmall, "%s has %d bytes, and had %d", d.Name, d.Size, r.Size))
	}
	if !r.Block {
		problems = append(problems, judgeMount(r, now)...)
	}
	switch live := d.Live(); {
	case live == 0:
		problems = append(problems, inaccessible(reasonReconnecting, "no connection of %s is live; I/O waits for the array to come back", d.Name))
	case live < r.Portals:
		problems = append(problems, degraded(reasonPathLost, "%d of %d connections of %s are live", live, r.Portals, d.Name))
	}
	return problems
}

// waits reports whether the kernel still tries to reconnect.
func waits(r record, now sight) bool {
	for _, s := range nvme.ByNQN(now.subsystems, r.NQN) {
		for _, c := range s.Controllers {
			if c.State != nvme.StateLive && !c.Leaving() {
				return true
			}
		}
	}
	return false
}

func judgeMount(r record, now sight) []problem {
	top, mounted := now.table.Top(r.Staging)
	switch {
	case !mounted:
		return []problem{inaccessible(reasonNotMounted, "nothing is mounted at %s any more", r.Staging)}
	case top.SuperReadOnly && !r.ReadOnly:
		return []problem{degraded(reasonReadOnly, "the filesystem has become read-only, probably because the kernel found it damaged; see the kernel's log")}
	}
	return nil
}

// uses are the paths at which the volume is staged or published.
func (r record) uses(now sight) []string {
	var paths []string
	if !r.Block {
		if _, mounted := now.table.Top(r.Staging); mounted {
			paths = append(paths, r.Staging)
		}
	}
	for _, p := range r.Published {
		if _, mounted := now.table.Top(p.Path); mounted {
			paths = append(paths, p.Path)
		}
	}
	return paths
}

// usable turns problems into an error, if they keep the volume from being used.
func usable(problems []problem) error {
	for _, p := range problems {
		switch {
		case p.status != spec.VolumeHealthErrorType_INACCESSIBLE:
		case p.reason == reasonReconnecting:
			return fmt.Errorf("%w now: %s", nvme.ErrUnreachable, p.message)
		default:
			return fmt.Errorf("%w: %s: %s", errDead, p.reason, p.message)
		}
	}
	return nil
}

// NodeGetVolumeHealth says what is wrong with a volume that is staged here.
func (s *Server) NodeGetVolumeHealth(ctx context.Context, r *spec.NodeGetVolumeHealthRequest) (*spec.NodeGetVolumeHealthResponse, error) {
	problems, err := s.health(ctx, r.GetVolumeId())
	if err != nil {
		return nil, fail(err, "health of volume %q", r.GetVolumeId())
	}
	health := &spec.VolumeHealth{VolumeId: r.GetVolumeId()}
	for _, p := range problems {
		health.HealthStatuses = append(health.HealthStatuses, &spec.VolumeHealth_VolumeHealthEntry{Status: p.status, Reason: p.reason, Message: p.message})
	}
	return &spec.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
}

func (s *Server) health(ctx context.Context, id string) ([]problem, error) {
	v, err := readVolume(id)
	if err != nil {
		return nil, err
	}
	r, err := s.load(v)
	if err != nil {
		return nil, err
	}
	if r.Step != stepStaged {
		return nil, fmt.Errorf("%w: it is not staged", errNotHere)
	}
	now, err := s.look()
	if err != nil {
		return nil, err
	}
	problems := judge(r, now)
	if usable(problems) != nil || r.Block {
		return problems, nil
	}
	// XFS tells nobody but who asks that it has shut down.
	err = s.patient.do(ctx, r.Staging, func() error {
		_, err := s.config.Statfs(r.Staging)
		return err
	})
	if errors.Is(err, syscall.EIO) {
		return append(problems, inaccessible(reasonShutDown, "the filesystem has shut down after I/O errors; it comes back only after all pods on this node have stopped")), nil
	}
	return problems, err
}

// summary is a volume's health in one line.
func summary(problems []problem) string {
	words := make([]string, len(problems))
	for i, p := range problems {
		words[i] = p.status.String() + " " + p.reason + ": " + p.message
	}
	return strings.Join(words, "; ")
}
