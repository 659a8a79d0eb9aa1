package soak

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

const (
	namespace = "soak"
	// limit is the deadline of every VM's migrations, and of a node's release.
	limit = 4 * time.Second
	// patience is how long a round may take, the Leases of killed programs included.
	patience = 3 * time.Minute
)

// world is the lab with its VMs.
type world struct {
	*stack.Stack
	vms     []*lab.VMI
	claims  map[string]volume // by claim
	seen    *stack.Stopwatch
	watcher *watcher
}

// volume is one of the VMs'.
type volume struct{ pv, slot, vm string }

func vmName(i int) string { return fmt.Sprintf("vm-%d", i) }

// newWorld makes the VMs and begins to watch, until ctx ends.
func newWorld(ctx context.Context, s *stack.Stack) (*world, error) {
	w := &world{Stack: s, claims: map[string]volume{}}
	if err := s.CreateNamespace(ctx, namespace); err != nil {
		return nil, err
	}
	var err error
	if w.seen, err = s.Watch(ctx, namespace); err != nil {
		return nil, err
	}
	for i := range planVMs {
		if err := w.createClaim(ctx, vmName(i), vmName(i)); err != nil {
			return nil, err
		}
		vm, err := s.CreateVMI(ctx, lab.NewVMI(namespace, vmName(i)).WithDisk(vmName(i)).
			WithAnnotation(dualattach.TimeoutAnnotation, limit.String()))
		if err != nil {
			return nil, err
		}
		w.vms = append(w.vms, vm)
	}
	for _, vm := range w.vms {
		if err := s.WaitVMIRunning(ctx, vm); err != nil {
			return nil, err
		}
	}
	w.watcher, err = startWatcher(ctx, s)
	return w, err
}

func (w *world) createClaim(ctx context.Context, claim, vm string) error {
	pvc, err := w.CreateRWXClaim(ctx, namespace, claim, nil)
	if err != nil {
		return err
	}
	pv := &corev1.PersistentVolume{}
	if err := w.Client.Get(ctx, client.ObjectKey{Name: pvc.Spec.VolumeName}, pv); err != nil {
		return err
	}
	w.claims[claim] = volume{pv: pv.Name, slot: pv.Spec.CSI.VolumeHandle, vm: vm}
	return nil
}

// migrationName is the VMIM's of a move.
func migrationName(r Round, m Move) string { return fmt.Sprintf("%s-r%d", vmName(m.VM), r.Number) }

// plugName is the claim that a move plugs.
func plugName(r Round, m Move) string { return migrationName(r, m) + "-plug" }

// run runs a round: disks are plugged, all moves begin, faults strike when theirs
// comes to its step, and what was plugged is taken away.
func (w *world) run(ctx context.Context, r Round) error {
	if err := w.plugAll(ctx, r); err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	begun := make([]chan *lab.VMIM, len(r.Moves))
	for i, m := range r.Moves {
		begun[i] = make(chan *lab.VMIM, 1+len(r.Faults))
		all.Go(func() error {
			defer close(begun[i])
			vmim, err := w.Migrate(ctx, w.vms[m.VM], lab.Following(m.course()), lab.Named(migrationName(r, m)))
			if err != nil {
				return err
			}
			for range cap(begun[i]) {
				begun[i] <- vmim
			}
			if err := w.seeThrough(ctx, m, vmim); err != nil {
				return fmt.Errorf("migration %s: %w", vmim.Name, err)
			}
			return nil
		})
	}
	for _, f := range r.Faults {
		all.Go(func() error {
			vmim, ok := <-begun[f.Move]
			if !ok {
				return nil // the move says why
			}
			if err := w.atStep(ctx, vmim, f.At); err != nil {
				return err
			}
			if err := w.strike(ctx, f, vmim); err != nil {
				return fmt.Errorf("%s: %w", f.Kind, err)
			}
			return nil
		})
	}
	return all.Wait()
}

// plugAll gives VMs their second disks.
func (w *world) plugAll(ctx context.Context, r Round) error {
	for _, m := range r.Moves {
		if !m.Plug {
			continue
		}
		claim, vm := plugName(r, m), w.vms[m.VM]
		if err := w.createClaim(ctx, claim, vm.Name); err != nil {
			return err
		}
		if err := w.Hotplug(ctx, vm, claim); err != nil {
			return err
		}
		if err := w.WaitDisk(ctx, vm, claim); err != nil {
			return err
		}
	}
	return nil
}

// unplugAll takes those disks away again.
func (w *world) unplugAll(ctx context.Context, r Round) error {
	for _, m := range r.Moves {
		if !m.Plug {
			continue
		}
		claim, vm := plugName(r, m), w.vms[m.VM]
		if err := w.Unplug(ctx, vm, claim); err != nil {
			return err
		}
	}
	return nil
}

// seeThrough takes a migration through what the plan says of it, to its end.
func (w *world) seeThrough(ctx context.Context, m Move, vmim *lab.VMIM) error {
	hold := m.course().HoldAt
	if hold != handler.NoStep {
		if err := w.atStep(ctx, vmim, hold); err != nil {
			return err
		}
	}
	if m.Late {
		if err := wait(ctx, "it to be late", w.seen.Escalated(vmim.UID), w.seen.Ended(vmim.UID)); err != nil {
			return err
		}
	}
	switch {
	case m.End.cancelledAt() != handler.NoStep:
		if err := w.Client.Delete(ctx, vmim.DeepCopy()); client.IgnoreNotFound(err) != nil {
			return err
		}
		w.Release(w.vms[m.VM]) // a launcher that is held would never go
	case hold != handler.NoStep:
		w.Release(w.vms[m.VM])
	}
	return wait(ctx, "its end to be reported", w.seen.Ended(vmim.UID))
}

// atStep waits until a migration has come to a step, or is over before.
func (w *world) atStep(ctx context.Context, vmim *lab.VMIM, step handler.Step) error {
	ended := w.seen.Ended(vmim.UID)
	return w.WaitFor(ctx, fmt.Sprintf("%s to come to %s", vmim.Name, step), func(context.Context) (bool, error) {
		select {
		case <-ended:
			return true, nil
		default:
			return w.Handlers().At(vmim.UID) >= step, nil
		}
	})
}

// wait waits until one of the channels is closed.
func wait(ctx context.Context, what string, done ...<-chan struct{}) error {
	for len(done) < 2 {
		done = append(done, nil)
	}
	select {
	case <-done[0]:
	case <-done[1]:
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
	}
	return nil
}

// finish deletes all VMs and waits until nothing is attached any more.
func (w *world) finish(ctx context.Context) error {
	var errs []error
	for _, vm := range w.vms {
		errs = append(errs, w.Client.Delete(ctx, vm.DeepCopy()))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, vm := range w.vms {
		if err := w.WaitVMIGone(ctx, vm); err != nil {
			return err
		}
	}
	w.vms = nil
	return nil
}
