package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/rights"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

const (
	nodeAccount = "rds-csi-node"
	nodePlugin  = "system:serviceaccount:" + stack.Namespace + ":" + nodeAccount
)

// programs are the roles of config/rbac and config/components, each with the one
// program that it is for.
var programs = map[string]rights.Program{
	"rds-csi-operator":                     {User: stack.OperatorUser, Agent: "operator/"},
	"rds-csi-operator-lease":               {User: stack.OperatorUser, Agent: "operator/"},
	"rds-csi-operator-kubevirt-controller": {User: stack.OperatorUser, Agent: "operator/"},
	"rds-csi-operator-vmi-condition":       {User: stack.OperatorUser, Agent: "operator/"},
	"rds-csi-controller":                   {User: stack.PluginUser, Agent: "rds-csi-plugin/"},
	"rds-csi-controller-lease":             {User: stack.PluginUser, Agent: "rds-csi-plugin/"},
	"rds-csi-attacher":                     {User: stack.PluginUser, Agent: "csi-attacher/"},
	"rds-csi-node":                         {User: nodePlugin, Agent: "rds-csi-plugin/"},
}

// unplayed are the roles of programs and duties that this stack does not run, and why
// their rights are not looked into here.
var unplayed = map[string]string{
	"rds-csi-operator-driver":      "the stack deploys nothing by an RDSDriver; test/install looks into it",
	"rds-csi-metrics-reader":       "it is for a Prometheus to be bound to",
	"rds-csi-controller-metrics":   "the stack's plugin serves its metrics on loopback, to all",
	"rds-csi-node-metrics":         "the same",
	"rds-csi-snapshotter":          "the lab has no csi-snapshotter",
	"rds-csi-provisioner":          "as csi-provisioner's own project grants them; only denials are looked for",
	"rds-csi-provisioner-capacity": "the same",
	"rds-csi-resizer":              "as csi-resizer's own project grants them; only denials are looked for",
}

// TestRights: every right that config grants was used by the program it is for, and
// nothing was denied to any of them but what a test took away. It plays what uses
// them, so that it can run alone.
func TestRights(t *testing.T) {
	ctx, s, ns := setUp(t)
	// A condition on a VMI, granted; then an annotation, not granted.
	vm := s.MustStartVM(ctx, t, ns, "granted", limitedTo(3*time.Second))
	vmim := migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	waitInstance(ctx, t, s, vm, "True/DualAttached", "")
	release(ctx, t, s, vm, vmim)
	waitCondition(ctx, t, s, vmim, dualattach.ConditionMigrated, "True", "Completed")
	vm = s.MustStartVM(ctx, t, ns, "not-granted", limitedTo(3*time.Second))
	revoke(ctx, t, s, vm)
	vmim = migrate(ctx, t, s, vm, handler.HoldingAt(handler.Switch))
	waitNote(ctx, t, s, vm, "True DualAttached (")
	release(ctx, t, s, vm, vmim)
	waitCondition(ctx, t, s, vmim, dualattach.ConditionMigrated, "True", "Completed")

	// The last node lets go: whether another has it is listed before the export goes off.
	claim := &corev1.PersistentVolumeClaim{}
	if err := s.Client.Get(ctx, client.ObjectKeyFromObject(vm), claim); err != nil {
		t.Fatal(err)
	}
	if err := s.Client.Delete(ctx, vm); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitAttached(ctx, claim.Spec.VolumeName); err != nil {
		t.Fatal(err)
	}

	// A volume that is out of order at first sight: a second PersistentVolume for one
	// that was given to a node past the cluster.
	y := yard{s, ns}
	pv := y.claim(ctx, t, "first", nil)
	y.publish(ctx, t, "node-a", pv)
	y.outlast(ctx, t, 0)
	if _, err := s.CreateVolume(ctx, lab.Volume{Namespace: ns, Claim: "second", Handle: pv.Spec.CSI.VolumeHandle}); err != nil {
		t.Fatal(err)
	}
	err := s.WaitFor(ctx, "the operator to read whether that was said before", func(context.Context) (bool, error) {
		read, err := s.Audit(audit.User(stack.OperatorUser), func(e audit.Event) bool { return e.Verb == "get" && e.Resource() == "events" })
		return len(read) > 0, err
	})
	if err != nil {
		t.Error(err)
	}

	nodeTells(ctx, t, s, pv.Spec.CSI.VolumeHandle, ns)

	asked, err := s.Audit()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range rights.Denied(asked, programs) {
		// The grant's absence is the one denial that tests bring about.
		if !strings.Contains(e.Response.Message, "impersonate") {
			t.Errorf("denied: %s (%s)", e, e.Agent)
		}
	}
	for role, why := range unplayed {
		t.Logf("NOT CHECKED: role %s: %s", role, why)
	}
	for _, r := range rights.Unused(grantedRights(ctx, t, s), asked) {
		t.Errorf("granted and not used by any of %d requests: %s", len(asked), r)
	}
}

// nodeTells plays the node plugin's part: no kernel with NVMe is here, but what it tells
// of a volume goes to the real API server under its account.
func nodeTells(ctx context.Context, t *testing.T, s *stack.Stack, handle, ns string) {
	t.Helper()
	config, err := s.ConfigFor(ctx, stack.Namespace, nodeAccount)
	if err != nil {
		t.Fatal(err)
	}
	config.UserAgent = "rds-csi-plugin/test"
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	events := kube.NewVolumeEvents(ctx, clients, lab.Driver, "node-a")
	for range 2 {
		if err := events.Warn(ctx, handle, "VolumeInaccessible", "its device is gone"); err != nil {
			t.Fatal(err)
		}
	}
	err = s.WaitFor(ctx, "the node's event to be counted twice", func(ctx context.Context) (bool, error) {
		var list corev1.EventList
		err := s.Client.List(ctx, &list, client.InNamespace(ns))
		return slices.ContainsFunc(list.Items, func(e corev1.Event) bool { return e.Reason == "VolumeInaccessible" && e.Count == 2 }), err
	})
	if err != nil {
		t.Error(err)
	}
}

// grantedRights are those of all roles in config.
func grantedRights(ctx context.Context, t *testing.T, s *stack.Stack) (all []rights.Right) {
	t.Helper()
	for _, dir := range []string{"rbac/operator", "rbac/csi", "components/vmi-condition"} {
		text, err := s.Kubectl(ctx, "kustomize", "../../config/"+dir)
		if err != nil {
			t.Fatal(err)
		}
		granted, err := rights.Of(text, programs, unplayed)
		if err != nil {
			t.Errorf("config/%s: %v", dir, err)
		}
		all = append(all, granted...)
	}
	if len(all) == 0 {
		t.Fatal("no rights found")
	}
	return all
}
