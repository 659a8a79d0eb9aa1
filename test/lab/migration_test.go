package lab

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// runningVM is a running VM with one shared disk.
func runningVM(ctx context.Context, t *testing.T, c *Cluster, ns string) (vmi *VMI, pv string) {
	t.Helper()
	claim, err := c.CreateVolume(ctx, Volume{Namespace: ns, Claim: "disk"})
	if err != nil {
		t.Fatal(err)
	}
	vmi, err = c.CreateVMI(ctx, NewVMI(ns, "vm").WithDisk("disk"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitVMIRunning(ctx, vmi); err != nil {
		t.Fatal(err)
	}
	pv = claim.Spec.VolumeName
	if err := c.WaitAttached(ctx, pv, vmi.Status.NodeName); err != nil {
		t.Fatal(err)
	}
	return vmi, pv
}

func migrate(ctx context.Context, t *testing.T, c *Cluster, vmi *VMI, options ...MigrateOption) *VMIM {
	t.Helper()
	vmim, err := c.Migrate(ctx, vmi, options...)
	if err != nil {
		t.Fatal(err)
	}
	return vmim
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLabMigrationSucceeds(t *testing.T) {
	ctx, c, ns := setUp(t)
	vmi, pv := runningVM(ctx, t, c, ns)
	source := vmi.Status.NodeName
	vmim := migrate(ctx, t, c, vmi, Following(handler.HoldingAt(handler.Switch)))
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationRunning))
	must(t, c.WaitStep(ctx, vmim, handler.Switch))
	target, err := c.TargetPod(ctx, vmim)
	must(t, err)
	if target.Spec.NodeName == source {
		t.Fatalf("the target is on the source's node %s", source)
	}
	must(t, c.WaitAttached(ctx, pv, source, target.Spec.NodeName))

	c.Release(vmi)
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationSucceeded))
	must(t, c.WaitAttached(ctx, pv, target.Spec.NodeName))
	must(t, c.WaitVMI(ctx, vmi, "to be on the target", func(vmi *VMI) bool {
		return vmi.Status.NodeName == target.Spec.NodeName && vmi.Labels[kubevirtv1.MigrationTargetNodeNameLabel] == ""
	}))
	expectNoFailedWrites(t, c, ns)
}

// expectNoFailedWrites checks that what the lab plays stays within what
// KubeVirt's own components and their rights allow. virt-controller itself is
// left out: it loses a race against its own cache now and then (a JSON patch of
// activePods, 422), here as in any cluster. So are conflicts, and what a kubelet
// may not yet know.
func expectNoFailedWrites(t *testing.T, c *Cluster, ns string) {
	t.Helper()
	events, err := c.Audit(audit.Writes(), audit.Failures(), func(e audit.Event) bool {
		return e.Object.Namespace == ns && e.Response.Code != 409 && e.Response.Code != 404 &&
			e.User.Name != "system:serviceaccount:kubevirt:kubevirt-controller"
	})
	must(t, err)
	if len(events) > 0 {
		t.Errorf("failed writes:\n%s", events)
	}
}

func TestLabMigrationFailsWhileRunning(t *testing.T) {
	ctx, c, ns := setUp(t)
	vmi, pv := runningVM(ctx, t, c, ns)
	source := vmi.Status.NodeName
	vmim := migrate(ctx, t, c, vmi, Following(handler.FailingAt(handler.Switch)))
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationFailed))
	must(t, c.WaitAttached(ctx, pv, source))
	must(t, c.WaitVMIRunning(ctx, vmi))
	if vmi.Status.NodeName != source {
		t.Errorf("the VM is on %s", vmi.Status.NodeName)
	}

	// The VM can still be migrated.
	vmim = migrate(ctx, t, c, vmi, Following(handler.Succeed()))
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationSucceeded))
	must(t, c.WaitVMI(ctx, vmi, "to have moved", func(vmi *VMI) bool { return vmi.Status.NodeName != source }))
	must(t, c.WaitAttached(ctx, pv, vmi.Status.NodeName))
}

func TestLabMigrationFailsEarly(t *testing.T) {
	for _, step := range []handler.Step{handler.Launch, handler.Prepare, handler.Start} {
		t.Run(step.String(), func(t *testing.T) {
			ctx, c, ns := setUp(t)
			vmi, pv := runningVM(ctx, t, c, ns)
			vmim := migrate(ctx, t, c, vmi, Following(handler.FailingAt(step)))
			must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationFailed))
			must(t, c.WaitAttached(ctx, pv, vmi.Status.NodeName))
			must(t, c.WaitVMIRunning(ctx, vmi))
			handedOff := vmi.Status.MigrationState != nil && vmi.Status.MigrationState.MigrationUID == vmim.UID
			if handedOff != (step != handler.Launch) {
				t.Errorf("handed off: %v", handedOff)
			}
		})
	}
}

func TestLabHungMigrationIsAborted(t *testing.T) {
	ctx, c, ns := setUp(t)
	vmi, pv := runningVM(ctx, t, c, ns)
	source := vmi.Status.NodeName
	vmim := migrate(ctx, t, c, vmi, Following(handler.HoldingAt(handler.Switch)))
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationRunning))
	must(t, c.WaitStep(ctx, vmim, handler.Switch))
	must(t, c.Client.Delete(ctx, vmim))
	must(t, c.WaitVMI(ctx, vmi, "to know of the abort", func(vmi *VMI) bool {
		return vmi.Status.MigrationState.Failed && vmi.Status.MigrationState.AbortStatus == kubevirtv1.MigrationAbortSucceeded
	}))
	must(t, c.WaitAttached(ctx, pv, source))
}

func TestLabTargetThatNeverStarts(t *testing.T) {
	ctx, c, ns := setUp(t)
	vmi, pv := runningVM(ctx, t, c, ns)
	source := vmi.Status.NodeName
	vmim := migrate(ctx, t, c, vmi, Following(handler.HoldingAt(handler.Launch)))
	must(t, c.WaitStep(ctx, vmim, handler.Launch))
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationScheduling))
	target, err := c.TargetPod(ctx, vmim)
	must(t, err)
	must(t, c.WaitAttached(ctx, pv, source, target.Spec.NodeName))
	// Cancelled before the hand-off, its target goes.
	must(t, c.Client.Delete(ctx, vmim))
	must(t, c.WaitPod(ctx, target, ""))
	must(t, c.WaitAttached(ctx, pv, source))
}

func TestLabThereAndBack(t *testing.T) {
	ctx, c, ns := setUp(t)
	vmi, pv := runningVM(ctx, t, c, ns)
	first := vmi.Status.NodeName
	other := "node-a"
	if first == other {
		other = "node-b"
	}
	for _, node := range []string{other, first, other} {
		vmim := migrate(ctx, t, c, vmi, To(node))
		must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationSucceeded))
		must(t, c.WaitAttached(ctx, pv, node))
	}
}

func TestLabPostCopyFailureKillsTheVM(t *testing.T) {
	ctx, c, ns := setUp(t)
	vmi, pv := runningVM(ctx, t, c, ns)
	vmim := migrate(ctx, t, c, vmi, Following(handler.Course{PostCopy: true, FailAt: handler.Switch}))
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationFailed))
	must(t, c.WaitVMI(ctx, vmi, "to have failed", func(vmi *VMI) bool { return vmi.Status.Phase == kubevirtv1.Failed }))
	must(t, c.WaitAttached(ctx, pv))
}

func TestLabDeletedVMIReleasesItsVolume(t *testing.T) {
	ctx, c, ns := setUp(t)
	vmi, pv := runningVM(ctx, t, c, ns)
	must(t, c.Client.Delete(ctx, vmi))
	must(t, c.WaitVMIGone(ctx, vmi))
	must(t, c.WaitAttached(ctx, pv))
}

func TestLabStuckUnmountKeepsTheSourceAttached(t *testing.T) {
	ctx, c, ns := setUp(t)
	vmi, pv := runningVM(ctx, t, c, ns)
	source := c.Node(vmi.Status.NodeName)
	source.Behave(func(b *Behaviour) { b.NeverUnmount = true })
	defer source.Behave(func(b *Behaviour) { b.NeverUnmount = false })
	vmim := migrate(ctx, t, c, vmi)
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationSucceeded))
	pods := &corev1.PodList{}
	must(t, c.WaitFor(ctx, "the source launcher to end", func(ctx context.Context) (bool, error) {
		err := c.Client.List(ctx, pods)
		for _, pod := range pods.Items {
			if pod.Namespace == ns && pod.Spec.NodeName == source.Name && pod.Status.Phase == corev1.PodSucceeded {
				return true, err
			}
		}
		return false, err
	}))
	attached, err := c.Attachments(ctx, pv)
	must(t, err)
	if len(attached) != 2 {
		t.Errorf("attachments: %v", attached)
	}
	source.Behave(func(b *Behaviour) { b.NeverUnmount = false })
	must(t, c.WaitVMI(ctx, vmi, "to have moved", func(vmi *VMI) bool { return vmi.Status.NodeName != source.Name }))
	must(t, c.WaitAttached(ctx, pv, vmi.Status.NodeName))
}

func TestLabHotpluggedVolumeMigrates(t *testing.T) {
	ctx, c, ns := setUp(t)
	vmi, pv := runningVM(ctx, t, c, ns)
	source := vmi.Status.NodeName
	claim, err := c.CreateVolume(ctx, Volume{Namespace: ns, Claim: "extra"})
	must(t, err)
	must(t, c.Hotplug(ctx, vmi, "extra"))
	must(t, c.WaitDisk(ctx, vmi, "extra"))
	must(t, c.WaitAttached(ctx, claim.Spec.VolumeName, source))
	vmim := migrate(ctx, t, c, vmi)
	must(t, c.WaitMigration(ctx, vmim, kubevirtv1.MigrationSucceeded))
	must(t, c.WaitVMI(ctx, vmi, "to have moved", func(vmi *VMI) bool { return vmi.Status.NodeName != source }))
	must(t, c.WaitAttached(ctx, pv, vmi.Status.NodeName))
	must(t, c.WaitAttached(ctx, claim.Spec.VolumeName, vmi.Status.NodeName))
}
