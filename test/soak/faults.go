package soak

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// strike makes a fault happen and, after its time, undoes it, also when the round is
// over before.
func (w *world) strike(ctx context.Context, f Fault, vmim *lab.VMIM) error {
	whole := context.WithoutCancel(ctx)
	switch f.Kind {
	case CutArray:
		return w.inject(ctx, f, routeros.Fault{Kind: routeros.CutAtStep, Steps: f.Commands, Times: 3})
	case HangArray:
		return w.inject(ctx, f, routeros.Fault{Kind: routeros.HangBefore, Times: 1})
	case SlowArray:
		return w.inject(ctx, f, routeros.Fault{Kind: routeros.Delay, Delay: 500 * time.Millisecond, Times: -1})
	case ArrayDown:
		if err := w.Array.Down(); err != nil {
			return err
		}
		f.last(ctx)
		return w.Array.Up()
	case PowerOff, StuckUnmount:
		return w.strikeNode(ctx, f, vmim)
	case KillOperator:
		o := w.Operators[0]
		return restart(ctx, f, o.Process, func() error { return w.WaitOperator(whole, o) })
	case KillController:
		return restart(ctx, f, w.Process("virt-controller"), nil)
	case KillPlugin:
		return restart(ctx, f, w.Plugin, nil)
	case Intrude:
		return w.intrude(ctx, f, vmim)
	}
	return fmt.Errorf("no fault %d", f.Kind)
}

// last lets the fault's time pass.
func (f Fault) last(ctx context.Context) {
	timer := time.NewTimer(f.Lasts)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (w *world) inject(ctx context.Context, f Fault, fault routeros.Fault) error {
	in, err := w.Array.Inject(fault)
	if err != nil {
		return err
	}
	f.last(ctx)
	in.Remove()
	return nil
}

func restart(ctx context.Context, f Fault, p *lab.Process, ready func() error) error {
	p.Kill()
	f.last(ctx)
	if err := p.Run(); err != nil || ready == nil {
		return err
	}
	return ready()
}

// strikeNode makes the node misbehave where the VM runs.
func (w *world) strikeNode(ctx context.Context, f Fault, vmim *lab.VMIM) error {
	vmi := &lab.VMI{}
	if err := w.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: vmim.Spec.VMIName}, vmi); err != nil {
		return err
	}
	node := w.Node(vmi.Status.NodeName)
	if node == nil {
		return fmt.Errorf("VM %s is on no node", vmi.Name)
	}
	if f.Kind == StuckUnmount {
		node.Behave(func(b *lab.Behaviour) { b.NeverUnmount = true })
		f.last(ctx)
		node.Behave(func(b *lab.Behaviour) { b.NeverUnmount = false })
		return nil
	}
	whole := context.WithoutCancel(ctx)
	err := node.PowerOff(whole)
	f.last(ctx)
	return errors.Join(err, node.PowerOn(whole))
}

// intrude has an ordinary pod ask for the VM's volume on a node that takes no part in
// the migration. It must not get it, which the watcher sees to.
func (w *world) intrude(ctx context.Context, f Fault, vmim *lab.VMIM) error {
	vmi := &lab.VMI{}
	if err := w.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: vmim.Spec.VMIName}, vmi); err != nil {
		return err
	}
	target, err := w.TargetPod(ctx, vmim)
	if err != nil {
		return err
	}
	taken := map[string]bool{vmi.Status.NodeName: true}
	if state := vmi.Status.MigrationState; state != nil {
		taken[state.SourceNode], taken[state.TargetNode] = true, true
	}
	if target != nil {
		taken[target.Spec.NodeName] = true
	}
	for _, node := range nodeNames() {
		if taken[node] {
			continue
		}
		pod := lab.NewPod(namespace, vmim.Name+"-intruder", node, vmi.Name)
		if err := w.Client.Create(ctx, pod); err != nil {
			return err
		}
		f.last(ctx)
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), lab.DefaultWait)
		defer cancel()
		if err := w.Client.Delete(whole, pod, client.GracePeriodSeconds(0)); err != nil {
			return err
		}
		return w.WaitPod(whole, pod, corev1.PodPhase(""))
	}
	return nil // all nodes take part
}

// nodeNames are the lab's nodes.
func nodeNames() []string {
	var names []string
	for i := range planNodes {
		names = append(names, fmt.Sprintf("node-%c", 'a'+i))
	}
	return names
}
