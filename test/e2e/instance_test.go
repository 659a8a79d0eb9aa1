package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"testing"

	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

var (
	stored    = map[string]string{"result": "stored"}
	forbidden = map[string]string{"result": "forbidden"}
)

func instanceCondition(vmi *lab.VMI) (kubevirtv1.VirtualMachineInstanceCondition, bool) {
	i := slices.IndexFunc(vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
		return c.Type == dualattach.ConditionInstanceTimedOut
	})
	if i < 0 {
		return kubevirtv1.VirtualMachineInstanceCondition{}, false
	}
	return vmi.Status.Conditions[i], true
}

// waitInstance waits until the VMI says so ("True/DualAttached"), in these words if
// any are given, and gives the VMI's version.
func waitInstance(ctx context.Context, t *testing.T, s *stack.Stack, vm *lab.VMI, want, message string) string {
	t.Helper()
	read := &lab.VMI{}
	err := s.WaitFor(ctx, "the VMI to say "+want, func(ctx context.Context) (bool, error) {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(vm), read)
		c, _ := instanceCondition(read)
		return string(c.Status)+"/"+c.Reason == want, err
	})
	if err != nil {
		t.Fatalf("%v; its conditions are %+v", err, read.Status.Conditions)
	}
	if c, _ := instanceCondition(read); message != "" && c.Message != message {
		t.Errorf("the VMI says %q, the VMIM %q", c.Message, message)
	}
	return read.ResourceVersion
}

// step is one operation of a JSON patch.
type step struct {
	Op, Path string
	Value    json.RawMessage
}

// guardsWithoutOurs reports a patch that tests the whole list of conditions, as
// virt-controller's does, against one that lacks ours.
func guardsWithoutOurs(e audit.Event) bool {
	var steps []step
	if e.Verb != "patch" || json.Unmarshal(e.RequestObject.Raw, &steps) != nil {
		return false
	}
	return slices.ContainsFunc(steps, func(s step) bool {
		return s.Op == "test" && s.Path == "/status/conditions" && !bytes.Contains(s.Value, []byte(vmicondition.StorageMigrationTimedOut.String()))
	})
}

// wantKeptByKubeVirt looks at every write of KubeVirt's own on the VMI since our
// condition was stored, at a version: it must be kept, and no write may fail for it.
func wantKeptByKubeVirt(t *testing.T, s *stack.Stack, mark lab.AuditMark, vm *lab.VMI, version string) {
	t.Helper()
	events, err := s.AuditSince(mark, audit.Writes(), audit.Resource("virtualmachineinstances"), audit.Named(vm.Namespace, vm.Name))
	if err != nil {
		t.Fatal(err)
	}
	kept, since := 0, false
	for _, e := range events {
		if e.Failed() {
			// KubeVirt's own writers get in each other's way, too; what counts is a
			// guard of virt-controller's that failed because of our condition.
			if since && guardsWithoutOurs(e) {
				t.Errorf("virt-controller's guard failed because of our condition: %s", e)
			}
			continue
		}
		var read lab.VMI
		if err := json.Unmarshal(e.ResponseObject.Raw, &read); err != nil {
			t.Fatalf("the answer to %s: %v", e, err)
		}
		since = since || read.ResourceVersion == version
		if !since || e.User.Name == stack.OperatorUser {
			continue
		}
		if _, ok := instanceCondition(&read); !ok {
			t.Errorf("the condition is gone after %s", e)
		}
		kept++
	}
	if kept == 0 {
		t.Error("KubeVirt did not write the VMI meanwhile: nothing is proven")
	}
	t.Logf("the condition survived %d writes of KubeVirt's", kept)
}
