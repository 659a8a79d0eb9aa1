package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// program is who a role is for: a service account may serve several.
type program struct{ user, agent string }

// programs are the roles of config/rbac and config/components, each with the one
// program that it is for.
var programs = map[string]program{
	"rds-csi-operator":                     {stack.OperatorUser, "operator/"},
	"rds-csi-operator-lease":               {stack.OperatorUser, "operator/"},
	"rds-csi-operator-kubevirt-controller": {stack.OperatorUser, "operator/"},
	"rds-csi-operator-vmi-condition":       {stack.OperatorUser, "operator/"},
	"rds-csi-controller":                   {stack.PluginUser, "rds-csi-plugin/"},
	"rds-csi-controller-lease":             {stack.PluginUser, "rds-csi-plugin/"},
	"rds-csi-attacher":                     {stack.PluginUser, "csi-attacher/"},
}

// unplayed are the roles of programs and duties that this stack does not run, and why
// their rights are not looked into here.
var unplayed = map[string]string{
	"rds-csi-operator-driver":      "the stack deploys nothing by an RDSDriver",
	"rds-csi-metrics-reader":       "it is for a Prometheus to be bound to",
	"rds-csi-controller-metrics":   "the stack's plugin serves its metrics on loopback, to all",
	"rds-csi-node-metrics":         "the same",
	"rds-csi-snapshotter":          "the lab has no csi-snapshotter",
	"rds-csi-node":                 "the lab's nodes run no plugin",
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

	asked, err := s.Audit(func(e audit.Event) bool { return e.User.Name == stack.OperatorUser || e.User.Name == stack.PluginUser })
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range asked {
		// The grant's absence is the one denial that tests bring about.
		if e.Response.Code == 403 && !strings.Contains(e.Response.Message, "impersonate") {
			t.Errorf("denied: %s (%s)", e, e.Agent)
		}
	}
	var unused []string
	for _, r := range grantedRights(ctx, t, s) {
		if !slices.ContainsFunc(asked, r.usedBy) {
			unused = append(unused, r.String())
		}
	}
	if len(unused) > 0 {
		agents := asked.CountBy(func(e audit.Event) string { return e.User.Name + " " + e.Agent })
		t.Errorf("granted and not used by any of %d requests:\n%s\nthe programs that asked: %q", len(asked), strings.Join(unused, "\n"), slices.Sorted(maps.Keys(agents)))
	}
}

// right is one verb on one resource that a role grants.
type right struct {
	role                        string
	program                     program
	verb, group, resource, name string
}

func (r right) String() string {
	return fmt.Sprintf("%s: %s %s.%s %s (%s)", r.role, r.verb, r.resource, r.group, r.name, r.program.agent)
}

// usedBy reports whether a request of the role's program took the right.
func (r right) usedBy(e audit.Event) bool {
	// What is not found was looked for with the right to.
	if e.User.Name != r.program.user || !strings.HasPrefix(e.Agent, r.program.agent) || (e.Failed() && e.Response.Code != http.StatusNotFound) {
		return false
	}
	if as, ok := strings.CutPrefix(r.verb, "impersonate:serviceaccount"); ok && as == "" {
		return e.Impersonated != nil && strings.HasSuffix(e.Impersonated.Name, ":"+r.name)
	}
	if verb, ok := strings.CutPrefix(r.verb, "impersonate-on:serviceaccount:"); ok {
		return e.Impersonated != nil && verb == e.Verb && e.Object.Group == r.group && e.Resource() == r.resource
	}
	if e.Impersonated != nil || e.Object.Group != r.group || e.Resource() != r.resource || (r.name != "" && e.Object.Name != r.name) {
		return false
	}
	// A watch that begins with all objects stands for the list that clients fall back to.
	return e.Verb == r.verb || (r.verb == "list" && e.List())
}

// grantedRights are those of all roles in config.
func grantedRights(ctx context.Context, t *testing.T, s *stack.Stack) []right {
	t.Helper()
	var all []right
	for _, dir := range []string{"rbac/operator", "rbac/csi", "components/vmi-condition"} {
		text, err := s.Kubectl(ctx, "kustomize", "../../config/"+dir)
		if err != nil {
			t.Fatal(err)
		}
		decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
		for {
			var role rbacv1.ClusterRole // a Role reads the same
			if err := decoder.Decode(&role); err != nil {
				break
			}
			if len(role.Rules) == 0 {
				continue
			}
			if why, ok := unplayed[role.Name]; ok {
				t.Logf("NOT CHECKED: role %s: %s", role.Name, why)
				continue
			}
			p, ok := programs[role.Name]
			if !ok {
				t.Errorf("role %s of config/%s is for none of the programs that this test knows", role.Name, dir)
			}
			for _, rule := range role.Rules {
				all = append(all, rightsOf(role.Name, p, rule)...)
			}
		}
	}
	if len(all) == 0 {
		t.Fatal("no rights found")
	}
	return all
}

func rightsOf(role string, p program, rule rbacv1.PolicyRule) []right {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	var all []right
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				for _, name := range names {
					all = append(all, right{role, p, verb, group, resource, name})
				}
			}
		}
	}
	return all
}
