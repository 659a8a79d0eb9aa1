package lab

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

func TestLabNodeWithoutPowerKeepsItsVolumeUntilOutOfService(t *testing.T) {
	ctx, c, ns := setUp(t)
	node, err := c.AddNode(ctx, "node-"+ns)
	must(t, err)
	t.Cleanup(func() { must(t, node.Remove(context.Background())) })
	claim, err := c.CreateVolume(ctx, Volume{Namespace: ns, Claim: "disk"})
	must(t, err)
	pod := NewPod(ns, "pod", node.Name, "disk")
	must(t, c.Client.Create(ctx, pod))
	must(t, c.WaitPod(ctx, pod, corev1.PodRunning))

	must(t, node.PowerOff(ctx))
	must(t, c.Client.Delete(ctx, pod, client.GracePeriodSeconds(0)))
	must(t, c.WaitPod(ctx, pod, ""))
	must(t, c.WaitAttached(ctx, claim.Spec.VolumeName, node.Name))
	must(t, node.OutOfService(ctx))
	must(t, c.WaitAttached(ctx, claim.Spec.VolumeName))
}

func TestLabSlowNode(t *testing.T) {
	ctx, c, ns := setUp(t)
	node, err := c.AddNode(ctx, "node-"+ns)
	must(t, err)
	t.Cleanup(func() { must(t, node.Remove(context.Background())) })
	node.Behave(func(b *Behaviour) { b.NeverMount = true })
	claim, err := c.CreateVolume(ctx, Volume{Namespace: ns, Claim: "disk"})
	must(t, err)
	pod := NewPod(ns, "pod", node.Name, "disk")
	must(t, c.Client.Create(ctx, pod))
	must(t, c.WaitAttached(ctx, claim.Spec.VolumeName, node.Name))
	must(t, c.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod))
	if pod.Status.Phase != corev1.PodPending {
		t.Errorf("the pod is %s", pod.Status.Phase)
	}
	node.Behave(func(b *Behaviour) { b.NeverMount = false })
	must(t, c.WaitPod(ctx, pod, corev1.PodRunning))
}

func TestLabSourceWithoutPowerHangsTheMigration(t *testing.T) {
	ctx, c, ns := setUp(t)
	node, err := c.AddNode(ctx, "node-"+ns)
	must(t, err)
	t.Cleanup(func() { must(t, node.Remove(context.Background())) })
	_, err = c.CreateVolume(ctx, Volume{Namespace: ns, Claim: "disk"})
	must(t, err)
	vmi, err := c.CreateVMI(ctx, NewVMI(ns, "vm").WithDisk("disk").PreferNode(node.Name))
	must(t, err)
	must(t, c.WaitVMIRunning(ctx, vmi))
	vmim := migrate(ctx, t, c, vmi, To("node-a"), Following(handler.HoldingAt(handler.Start)))
	must(t, c.WaitStep(ctx, vmim, handler.Start))
	must(t, node.PowerOff(ctx))
	c.Release(vmi)
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationTargetReady))
	must(t, node.PowerOn(ctx))
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationSucceeded))
}
