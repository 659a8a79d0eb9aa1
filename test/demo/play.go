package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// role is one VM of the demo and what its migration goes through.
type role struct {
	name   string
	says   string
	limit  string // of dualattach.TimeoutAnnotation
	course handler.Course
	// ends: the condition that shows that its part is over.
	ends, status, reason string
}

var cast = []role{
	{
		name: "vm-moves", says: "succeeds: 4 s of copying, then the guest runs on node-b",
		course: handler.Succeed().Taking(handler.Switch, 4*time.Second),
		ends:   string(dualattach.ConditionMigrated), status: "True", reason: "Completed",
	},
	{
		name: "vm-returns", says: "fails while copying, so node-b has to give the volume back",
		course: handler.FailingAt(handler.Switch).Taking(handler.Switch, 3*time.Second),
		ends:   string(dualattach.ConditionMigrated), status: "False", reason: "RolledBack",
	},
	{
		name: "vm-hangs", says: "never ends; an administrator allowed 15 s (annotation " + dualattach.TimeoutAnnotation + ")",
		limit: "15s", course: handler.HoldingAt(handler.Switch),
		ends: string(dualattach.ConditionTimedOut), status: "True", reason: "DualAttached",
	},
}

// play starts the VMs, migrates them and reports. It returns what is missing.
func play(ctx context.Context, s *stack.Stack) ([]error, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.CreateNamespace(ctx, namespace); err != nil {
		return nil, err
	}
	vms, err := startVMs(ctx, s)
	if err != nil {
		return nil, err
	}
	// Only now, so that all of them run on node-a.
	if _, err := s.AddNode(ctx, "node-b"); err != nil {
		return nil, err
	}
	fmt.Println("\nThe cast, all on node-a:")
	for _, r := range cast {
		fmt.Printf("  %-11s %s\n", r.name, r.says)
	}
	watching := newTimeline(s)
	for i, r := range cast {
		if _, err := s.Migrate(ctx, vms[i], lab.To("node-b"), lab.Following(r.course), lab.Named(r.name)); err != nil {
			return nil, fmt.Errorf("migrate %s: %w", r.name, err)
		}
	}
	if err := watching.until(ctx, over); err != nil {
		return nil, err
	}
	return report(ctx, s)
}

func startVMs(ctx context.Context, s *stack.Stack) ([]*lab.VMI, error) {
	vms := make([]*lab.VMI, len(cast))
	all, ctx := errgroup.WithContext(ctx)
	for i, r := range cast {
		all.Go(func() error {
			if _, err := s.CreateRWXClaim(ctx, namespace, r.name+"-disk", nil); err != nil {
				return err
			}
			vm := lab.NewVMI(namespace, r.name).WithDisk(r.name + "-disk")
			if r.limit != "" {
				vm = vm.WithAnnotation(dualattach.TimeoutAnnotation, r.limit)
			}
			var err error
			if vms[i], err = s.CreateVMI(ctx, vm); err != nil {
				return err
			}
			return s.WaitVMIRunning(ctx, vms[i])
		})
	}
	return vms, all.Wait()
}
