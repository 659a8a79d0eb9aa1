package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/process"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// setUpProvisioning is setUp for tests by the end of which the array holds as little
// as before, and the sidecars were refused nothing.
func setUpProvisioning(t *testing.T) (context.Context, *stack.Stack, string) {
	t.Helper()
	ctx, s, ns := setUp(t)
	mark, err := s.MarkAudit()
	if err != nil {
		t.Fatal(err)
	}
	before := onArray(s)
	t.Cleanup(func() {
		if after := onArray(s); !slices.Equal(after, before) {
			t.Errorf("left on the array:\n%s\nbefore there was:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
		events, err := s.AuditSince(mark, audit.User(stack.PluginUser), audit.Forbidden())
		if err != nil || len(events) > 0 {
			t.Errorf("config/rbac/csi lacks: %v\n%s", err, events)
		}
		if t.Failed() {
			for name, p := range s.Sidecars {
				t.Logf("the end of %s's log:\n%s", name, process.Tail(p.LogFile(), 40))
			}
		}
	})
	return ctx, s, ns
}

// onArray is every disk and file of the array.
func onArray(s *stack.Stack) []string {
	var all []string
	for _, d := range s.Array.Disks() {
		all = append(all, "disk "+d.Slot)
	}
	for _, f := range s.Array.Files() {
		all = append(all, "file "+f.Name)
	}
	return all
}

func mustCreate(ctx context.Context, t *testing.T, s *stack.Stack, o client.Object) {
	t.Helper()
	if err := s.Client.Create(ctx, o); err != nil {
		t.Fatal(err)
	}
}

func mustBind(ctx context.Context, t *testing.T, s *stack.Stack, claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	t.Helper()
	if err := s.WaitBound(ctx, claim); err != nil {
		t.Fatal(err)
	}
	pv := &corev1.PersistentVolume{}
	if err := s.Client.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, pv); err != nil {
		t.Fatal(err)
	}
	return pv
}

// mustDelete deletes a claim and waits until its volume is gone from the cluster, which
// is after it is gone from the array.
func mustDelete(ctx context.Context, t *testing.T, s *stack.Stack, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	for _, o := range []client.Object{claim, &corev1.PersistentVolume{}} {
		key := client.ObjectKeyFromObject(claim)
		if _, isPV := o.(*corev1.PersistentVolume); isPV {
			key = client.ObjectKey{Name: claim.Spec.VolumeName}
		} else if err := s.Client.Delete(ctx, claim.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		err := s.WaitFor(ctx, fmt.Sprintf("%T %s to be gone", o, key), func(ctx context.Context) (bool, error) {
			err := s.Client.Get(ctx, key, o)
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		})
		if err != nil {
			t.Fatal(err)
		}
		if claim.Spec.VolumeName == "" {
			return
		}
	}
}

// waitEvent waits for an event on a claim whose message has all the parts.
func waitEvent(ctx context.Context, t *testing.T, s *stack.Stack, claim *corev1.PersistentVolumeClaim, reason string, parts ...string) {
	t.Helper()
	var seen []string
	err := s.WaitFor(ctx, "event "+reason+" on claim "+claim.Name, func(ctx context.Context) (bool, error) {
		var events corev1.EventList
		if err := s.Client.List(ctx, &events, client.InNamespace(claim.Namespace)); err != nil {
			return false, err
		}
		seen = nil
		for _, e := range events.Items {
			if e.InvolvedObject.Name != claim.Name {
				continue
			}
			seen = append(seen, e.Reason+": "+e.Message)
			lacks := func(part string) bool { return !strings.Contains(e.Message, part) }
			if e.Reason == reason && !slices.ContainsFunc(parts, lacks) {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		t.Fatalf("%v, with %q; there are:\n%s", err, parts, strings.Join(seen, "\n"))
	}
}

// TestAVolumeThroughItsClaim: of both binding modes, from the claim to the array's
// disk, the attachment, and away again.
func TestAVolumeThroughItsClaim(t *testing.T) {
	for _, class := range []string{stack.ClassImmediate, stack.ClassWait} {
		t.Run(class, func(t *testing.T) {
			ctx, s, ns := setUpProvisioning(t)
			claim := stack.NewClaim(ns, "data", class, stack.Sized("1500Mi"))
			mustCreate(ctx, t, s, claim)
			pod := lab.NewPod(ns, "consumer", "", "data")
			if class == stack.ClassWait {
				waitEvent(ctx, t, s, claim, "WaitForFirstConsumer")
				if claim.Spec.VolumeName != "" {
					t.Errorf("volume %s was made before anybody needed it", claim.Spec.VolumeName)
				}
				mustCreate(ctx, t, s, pod)
			}
			pv := mustBind(ctx, t, s, claim)
			disk, ok := s.Array.Disk(rds.SlotFor(pv.Name))
			if !ok || disk.Size != 1500<<20 || pv.Spec.CSI.VolumeHandle != disk.Slot {
				t.Errorf("disk %+v for volume %s with handle %s", disk, pv.Name, pv.Spec.CSI.VolumeHandle)
			}
			if got := pv.Spec.CSI.VolumeAttributes["csi.storage.k8s.io/pvc/name"]; got != "data" {
				t.Errorf("the volume does not know its claim: %v", pv.Spec.CSI.VolumeAttributes)
			}
			if class == stack.ClassImmediate {
				mustCreate(ctx, t, s, pod)
			}
			if err := s.WaitPod(ctx, pod, corev1.PodRunning); err != nil {
				t.Fatal(err)
			}
			if err := s.WaitAttached(ctx, pv.Name, pod.Spec.NodeName); err != nil {
				t.Fatal(err)
			}
			if err := s.Client.Delete(ctx, pod, client.GracePeriodSeconds(1)); err != nil {
				t.Fatal(err)
			}
			mustDelete(ctx, t, s, claim)
		})
	}
}

// TestCapacityIsTold: the scheduler is told what the array can still promise, by an
// object that goes with the Deployment.
func TestCapacityIsTold(t *testing.T) {
	ctx, s, ns := setUpProvisioning(t)
	want := func(what string) {
		t.Helper()
		var last *resource.Quantity
		err := s.WaitFor(ctx, "the capacity "+what, func(ctx context.Context) (bool, error) {
			c, err := capacityOf(ctx, s, stack.ClassWait)
			if c == nil || err != nil {
				return false, err
			}
			if owner := c.OwnerReferences; len(owner) != 1 || owner[0].Kind != "Deployment" {
				return false, fmt.Errorf("CSIStorageCapacity %s belongs to %v", c.Name, owner)
			}
			last = c.Capacity
			return last.Value() == available(s), nil
		})
		if err != nil {
			t.Fatalf("%v; it is %v, the pool can promise %d", err, last, available(s))
		}
	}
	want("at first")
	first := available(s)
	claim := stack.NewClaim(ns, "data", stack.ClassImmediate, stack.Sized("10Gi"))
	mustCreate(ctx, t, s, claim)
	mustBind(ctx, t, s, claim)
	waiting := stack.NewClaim(ns, "waiting", stack.ClassWait, stack.Sized("1Gi"))
	mustCreate(ctx, t, s, waiting)
	pod := lab.NewPod(ns, "consumer", "", "waiting")
	mustCreate(ctx, t, s, pod)
	mustBind(ctx, t, s, waiting) // its provisioning refreshes the object
	if got := first - available(s); got != 11<<30 {
		t.Errorf("two volumes take %d bytes of the pool", got)
	}
	want("with two volumes more")
	if err := s.Client.Delete(ctx, pod, client.GracePeriodSeconds(1)); err != nil {
		t.Fatal(err)
	}
	mustDelete(ctx, t, s, claim)
	mustDelete(ctx, t, s, waiting)
	want("when they are gone")
}

func capacityOf(ctx context.Context, s *stack.Stack, class string) (*storagev1.CSIStorageCapacity, error) {
	var all storagev1.CSIStorageCapacityList
	if err := s.Client.List(ctx, &all, client.InNamespace(stack.Namespace)); err != nil {
		return nil, err
	}
	for i := range all.Items {
		if c := &all.Items[i]; c.StorageClassName == class && c.Capacity != nil {
			return c, nil
		}
	}
	return nil, nil
}

// available is what the array's pool can promise, reckoned from its own books.
func available(s *stack.Stack) int64 {
	pool := s.Array.Pools()[0]
	var promised int64
	for _, d := range s.Array.Disks() {
		if d.File != "" {
			promised += d.Size
		}
	}
	return min(pool.Free, pool.Size-promised)
}

// TestARestartInTheMiddle: whoever dies while the array makes a volume, one volume is
// made, and nothing is left of it in the end.
func TestARestartInTheMiddle(t *testing.T) {
	for name, restart := range map[string]func(context.Context, *stack.Stack) error{
		"csi-provisioner": func(_ context.Context, s *stack.Stack) error {
			s.Sidecars["csi-provisioner"].Crash() // and starts again, as a container does
			return nil
		},
		"the plugin": func(_ context.Context, s *stack.Stack) error {
			s.Plugin.Kill()
			return s.Plugin.Run()
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, s, ns := setUpProvisioning(t)
			fault, err := s.Array.Inject(routeros.Fault{Kind: routeros.Pause, Pattern: "/disk/add", Steps: 4})
			if err != nil {
				t.Fatal(err)
			}
			defer fault.Remove()
			claim := stack.NewClaim(ns, "data", stack.ClassImmediate)
			mustCreate(ctx, t, s, claim)
			select {
			case <-fault.Reached():
			case <-ctx.Done():
				t.Fatal("nothing was made")
			}
			if err := restart(ctx, s); err != nil {
				t.Fatal(err)
			}
			fault.Release()
			pv := mustBind(ctx, t, s, claim)
			var made []string
			for _, line := range onArray(s) {
				if strings.Contains(line, rds.SlotFor(pv.Name)) {
					made = append(made, line)
				}
			}
			if len(made) != 2 {
				t.Errorf("one disk and its file, not %q", made)
			}
			mustDelete(ctx, t, s, claim)
		})
	}
}

// TestAClaimThatCannotBeMet: the claim says why, in words, and the array holds nothing
// of it.
func TestAClaimThatCannotBeMet(t *testing.T) {
	for name, tc := range map[string]struct {
		size       string
		parameters map[string]string
		says       []string
	}{
		"more than the pool has": {size: "5Ti", says: []string{"no space", "5497558138880 bytes are wanted, pool raid10 can promise"}},
		"a parameter's value":    {parameters: map[string]string{"dualAttach": "Sometimes"}, says: []string{`parameter dualAttach is "Sometimes"; it is LiveMigration or Any`}},
		"a parameter's name":     {parameters: map[string]string{"pool": "raid10"}, says: []string{`parameter "pool" is not known; known are array, dualAttach`}},
		"an array's name":        {parameters: map[string]string{"array": "other"}, says: []string{`array "other" is not configured; known are rds`}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, s, ns := setUpProvisioning(t)
			class := stack.ClassImmediate
			if tc.parameters != nil {
				class = ns
				if err := s.CreateClass(ctx, class, tc.parameters); err != nil {
					t.Fatal(err)
				}
			}
			claim := stack.NewClaim(ns, "data", class)
			if tc.size != "" {
				stack.Sized(tc.size)(claim)
			}
			mustCreate(ctx, t, s, claim)
			waitEvent(ctx, t, s, claim, "ProvisioningFailed", tc.says...)
			mustDelete(ctx, t, s, claim)
		})
	}
}

// TestAClaimGrows: by csi-resizer, on the array and in the cluster; beyond the pool it
// says why not, and can be taken back.
func TestAClaimGrows(t *testing.T) {
	ctx, s, ns := setUpProvisioning(t)
	claim := stack.NewClaim(ns, "data", stack.ClassImmediate)
	mustCreate(ctx, t, s, claim)
	pv := mustBind(ctx, t, s, claim)
	ask := func(size string) {
		t.Helper()
		err := s.WaitFor(ctx, "claim "+claim.Name+" to ask for "+size, func(ctx context.Context) (bool, error) {
			if err := s.Client.Get(ctx, client.ObjectKeyFromObject(claim), claim); err != nil {
				return false, err
			}
			stack.Sized(size)(claim)
			err := s.Client.Update(ctx, claim)
			return err == nil, ignoreConflict(err)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ask("5Ti")
	waitEvent(ctx, t, s, claim, "VolumeResizeFailed", "no space")
	ask("3Gi") // Kubernetes lets a claim that could not grow ask for less
	err := s.WaitFor(ctx, "the volume to have 3 GiB", func(ctx context.Context) (bool, error) {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(pv), pv)
		return pv.Spec.Capacity.Storage().Value() == 3<<30, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if disk, _ := s.Array.Disk(pv.Spec.CSI.VolumeHandle); disk.Size != 3<<30 {
		t.Errorf("the array's disk has %d bytes", disk.Size)
	}
	waitEvent(ctx, t, s, claim, "FileSystemResizeRequired") // the node's part
	mustDelete(ctx, t, s, claim)
}

// ignoreConflict lets a change that met another one be tried again.
func ignoreConflict(err error) error {
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}
