package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/mount"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
)

// showing is a request to let a pod see a staged volume.
type showing struct {
	staging
	publication
}

// NodePublishVolume shows a staged volume at a pod's path.
func (s *Server) NodePublishVolume(ctx context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	p, err := s.readShowing(ctx, r)
	if err == nil {
		err = p.run(ctx)
	}
	if err != nil {
		return nil, fail(err, "publish volume %q at %q", r.GetVolumeId(), r.GetTargetPath())
	}
	return &spec.NodePublishVolumeResponse{}, nil
}

func (s *Server) readShowing(ctx context.Context, r *spec.NodePublishVolumeRequest) (showing, error) {
	p := showing{}
	if r.GetVolumeId() != "" && r.GetTargetPath() != "" && r.GetVolumeCapability() != nil && r.GetStagingTargetPath() == "" {
		return p, fmt.Errorf("%w: staging_target_path is missing", errNotStaged)
	}
	var err error
	p.staging, err = s.readStaging(ctx, &spec.NodeStageVolumeRequest{
		VolumeId: r.GetVolumeId(), StagingTargetPath: r.GetStagingTargetPath(), VolumeCapability: r.GetVolumeCapability(),
		PublishContext: r.GetPublishContext(), VolumeContext: r.GetVolumeContext(),
	})
	if err != nil {
		return p, err
	}
	if p.Path, err = readPath("target_path", r.GetTargetPath()); err != nil {
		return p, err
	}
	p.ReadOnly = r.GetReadonly()
	if p.block && p.ReadOnly {
		// Linux lets a device node on a read-only mount be written to.
		return p, invalid("a block volume cannot be published read-only")
	}
	return p, nil
}

func (p showing) run(ctx context.Context) error {
	end, err := p.server.pending.begin(p.volume, "publish volume")
	if err != nil {
		return err
	}
	defer end()
	r, err := p.server.load(p.volume)
	if err != nil {
		return err
	}
	now, err := p.server.look()
	if err != nil {
		return err
	}
	if r, err = p.staged(r, now); err != nil {
		return err
	}
	d, err := p.permitted(r, now)
	if err != nil {
		return err
	}
	source := p.path
	if p.block {
		source = d.Path()
	}
	if done, err := p.inPlace(ctx, r, now, d, source); done || err != nil {
		return err
	}
	if _, known := r.publishedAt(p.Path); !known {
		r.Published = append(slices.Clone(r.Published), p.publication)
		if err := p.server.records.save(r); err != nil {
			return err
		}
	}
	return p.show(ctx, d, source)
}

// staged finds what was staged. Without a record it is what another plugin, or
// an earlier life of this one, has staged.
func (p showing) staged(r record, now sight) (record, error) {
	if r.Step != stepStaged {
		adopted, ok := p.adopt(now)
		if !ok {
			return r, errNotStaged
		}
		r = adopted
	}
	switch {
	case r.Block != p.block:
		return r, fmt.Errorf("%w: it is staged as %s", errIncompatible, r.mode())
	case !r.Block && r.Staging != p.path:
		return r, fmt.Errorf("%w at %s, but at %s", errNotStaged, p.path, r.Staging)
	case r.ReadOnly && !r.Block && !p.ReadOnly && !p.readOnly:
		return r, fmt.Errorf("%w: it is staged read-only", errIncompatible)
	}
	return r, nil
}

func (p showing) adopt(now sight) (record, bool) {
	if !p.block {
		r := p.found(record{}, now)
		return r, r.Step == stepStaged
	}
	d, err := nvme.Find(now.subsystems, p.target.NQN, p.target.NSID)
	if err != nil {
		return record{}, false
	}
	r := p.record(stepStaged)
	r.Dev, r.Identity, r.Size = d.Dev, d.Identity, d.Size
	return r, true
}

// permitted decides whether the volume may be shown: it must be alive, and its
// access mode must allow one more place.
func (p showing) permitted(r record, now sight) (nvme.Device, error) {
	if known, ok := r.publishedAt(p.Path); ok && known.ReadOnly != p.ReadOnly {
		return nvme.Device{}, fmt.Errorf("%w: it is published with read-only %t", errIncompatible, known.ReadOnly)
	}
	if err := usable(judge(r, now)); err != nil {
		return nvme.Device{}, err
	}
	if r.NQN != p.target.NQN {
		return nvme.Device{}, fmt.Errorf("%w as %s: %s is staged", errNotStaged, p.target.NQN, r.NQN)
	}
	d, err := nvme.Find(now.subsystems, r.NQN, r.NSID)
	if err != nil || !p.exclusive {
		return d, err
	}
	var others []string
	for _, at := range r.uses(now) {
		if at != r.Staging && at != p.Path {
			others = append(others, at)
		}
	}
	if len(others) > 0 {
		return d, fmt.Errorf("%w, at %s, and the access mode allows one place", errExclusive, strings.Join(others, ", "))
	}
	return d, nil
}

// inPlace decides about what is mounted at the target.
func (p showing) inPlace(ctx context.Context, r record, now sight, d nvme.Device, source string) (done bool, err error) {
	dev, node, mounted := now.shows(p.Path)
	switch {
	case !mounted:
		return false, nil
	// Never by name: the kernel gives a name, and a number, to another device.
	case dev != d.Dev, node != p.block:
		return false, fmt.Errorf("%w: %s shows device %s, and the volume is %s (%s)", errDead, p.Path, dev, d.Dev, d.Name)
	}
	top, _ := now.table.Top(p.Path)
	if p.ReadOnly && !top.ReadOnly {
		if err := p.mounter.MakeReadOnly(ctx, source, p.Path); err != nil {
			return false, err
		}
	}
	if _, known := r.publishedAt(p.Path); !known {
		r.Published = append(slices.Clone(r.Published), p.publication)
	}
	return true, p.server.records.save(r)
}

// show bind-mounts, and looks whether it is the right thing that is seen.
func (p showing) show(ctx context.Context, d nvme.Device, source string) error {
	var err error
	if p.block {
		if err = mount.MakeDir(filepath.Dir(p.Path)); err == nil {
			err = mount.MakeFile(p.Path)
		}
	} else {
		err = mount.MakeDir(p.Path)
	}
	if err != nil {
		return err
	}
	if err := p.mounter.Bind(ctx, source, p.Path, p.ReadOnly); err != nil {
		return err
	}
	now, err := p.server.look()
	if err != nil {
		return err
	}
	if dev, _, mounted := now.shows(p.Path); !mounted || dev != d.Dev {
		err := fmt.Errorf("%w: %s shows device %q after publishing %s (%s)", mount.ErrNotMounted, p.Path, dev, d.Name, d.Dev)
		return errors.Join(err, p.mounter.Unmount(ctx, p.Path))
	}
	logr.FromContextOrDiscard(ctx).Info("published", "device", d.Name, "dev", d.Dev, "path", p.Path)
	return nil
}

// NodeUnpublishVolume takes a volume from a pod's path. It needs no record.
func (s *Server) NodeUnpublishVolume(ctx context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	v, err := readVolume(r.GetVolumeId())
	if err == nil {
		err = s.unpublish(ctx, v, r.GetTargetPath())
	}
	if err != nil {
		return nil, fail(err, "unpublish volume %q from %q", r.GetVolumeId(), r.GetTargetPath())
	}
	return &spec.NodeUnpublishVolumeResponse{}, nil
}

func (s *Server) unpublish(ctx context.Context, v volume, path string) error {
	path, err := readPath("target_path", path)
	if err != nil {
		return err
	}
	end, err := s.pending.begin(v, "unpublish volume")
	if err != nil {
		return err
	}
	defer end()
	r, err := s.load(v)
	if err != nil {
		logr.FromContextOrDiscard(ctx).Info("unpublishing without the record", "reason", err.Error())
	}
	if path == r.Staging {
		return invalid("target_path is %s, where the volume is staged", path)
	}
	if err := s.mounter(v).Unmount(ctx, path); err != nil {
		return err
	}
	if err := remove(path); err != nil {
		return err
	}
	if _, known := r.publishedAt(path); !known {
		return nil
	}
	r.unpublish(path)
	return s.records.save(r)
}

// remove removes a target that nothing is mounted at. What somebody has put into
// the directory meanwhile is not removed.
func remove(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("remove the mount point: %w", err)
	case info.Mode().IsRegular() && info.Size() > 0, !info.Mode().IsRegular() && !info.IsDir():
		return fmt.Errorf("remove the mount point: %s is not one", path)
	}
	return mount.Remove(path)
}
