package olm

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

const (
	older = "0.0.9"
	newer = "0.1.0"
)

// TestOLM goes through the life of an installation by OLM.
func TestOLM(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	s := open(ctx, t)
	step := func(name string, f func(context.Context, *testing.T)) {
		started := time.Now()
		ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
		defer cancel()
		if !t.Run(name, func(t *testing.T) { f(ctx, t) }) {
			t.FailNow()
		}
		t.Logf("%s: %s", name, time.Since(started).Round(time.Second))
	}
	must(t, s.ValidateCatalog(ctx, root+"/bundle/catalog"))
	first := s.bundle(ctx, t, older, "", "v"+older)
	step("install", func(ctx context.Context, t *testing.T) { s.install(ctx, t, first) })
	step("an RDSDriver", func(ctx context.Context, t *testing.T) { s.deploy(ctx, t, first) })
	step("rights", s.rights)
	step("the grant", s.grant)
	second := s.bundle(ctx, t, newer, older, "v"+newer)
	step("upgrade", func(ctx context.Context, t *testing.T) { s.upgrade(ctx, t, second) })
	step("uninstall", s.uninstall)
}

// install subscribes to the catalog, and OLM installs what is in it.
func (s *site) install(ctx context.Context, t *testing.T, bundle string) {
	address := s.serve(ctx, t, bundle)
	text, err := os.ReadFile(root + "/config/samples/subscription.yaml")
	must(t, err)
	const image = "image: git.srvlab.io/whiskey/rds-csi-operator-catalog:latest"
	if !strings.Contains(string(text), image) {
		t.Fatalf("config/samples/subscription.yaml does not say %q", image)
	}
	must(t, s.ApplyYAML(ctx, strings.Replace(string(text), image, "address: "+address, 1)))
	s.installed(ctx, t, older)
}

// serve serves the bundle's catalog in place of the one before.
func (s *site) serve(ctx context.Context, t *testing.T, bundle string) string {
	t.Helper()
	var address string
	var err error
	if s.opm != nil {
		must(t, s.opm.Stop(ctx))
	}
	s.opm, address, err = s.ServeCatalog(ctx, bundle+"/catalog")
	must(t, err)
	return address
}

// installed waits until OLM says that a version is, and sees that its operators run.
func (s *site) installed(ctx context.Context, t *testing.T, version string) {
	t.Helper()
	subscription := of("operators.coreos.com", "v1alpha1", "Subscription", namespace, operator)
	s.waitField(ctx, t, subscription, operator+".v"+version, "status", "currentCSV")
	s.waitField(ctx, t, csvOf(version), "Succeeded", "status", "phase")
	plan, _, _ := unstructured.NestedString(subscription.Object, "status", "installplan", "name")
	s.waitField(ctx, t, of("operators.coreos.com", "v1alpha1", "InstallPlan", namespace, plan), "Complete", "status", "phase")
	running := s.podsOf(ctx, t, operator)
	if len(running) != 2 || !strings.HasSuffix(running[0].Spec.Containers[0].Image, ":v"+version) {
		t.Errorf("%d operators run: %+v", len(running), running)
	}
}

// podsOf are the ready pods of an application.
func (s *site) podsOf(ctx context.Context, t *testing.T, name string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	must(t, s.Client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{"app.kubernetes.io/name": name}))
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || !lab.PodReady(&p)
	})
}

// deploy makes the RDSDriver of alm-examples, and a VM starts on a volume of it.
func (s *site) deploy(ctx context.Context, t *testing.T, bundle string) {
	must(t, s.Client.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "rds-main"}, Data: map[string][]byte{"ssh-privatekey": s.key},
	}))
	must(t, s.Client.Create(ctx, s.sample(t, bundle)))
	t.Log(s.condition(ctx, t, "Available", "True"))
	must(t, s.CreateNamespace(ctx, tenant))
	must(t, s.Client.Create(ctx, stack.NewClaim(tenant, "disk", "")))
	vm, err := s.CreateVMI(ctx, lab.NewVMI(tenant, "vm").WithDisk("disk").WithAnnotation(dualattach.TimeoutAnnotation, "3s"))
	must(t, err)
	must(t, s.WaitVMIRunning(ctx, vm))
}

// rights: what is the operator's in its own namespace is not in others.
func (s *site) rights(ctx context.Context, t *testing.T) {
	as := "--as=system:serviceaccount:" + namespace + ":" + operator
	for in, want := range map[string]string{namespace: "yes", tenant: "no"} {
		for _, what := range []string{"get secrets", "create deployments.apps", "create configmaps"} {
			out, err := s.Kubectl(ctx, append([]string{"auth", "can-i", "-n", in, as}, strings.Fields(what)...)...)
			if got := strings.TrimSpace(out); got != want {
				t.Errorf("the operator may %s in %s: %s, want %s (%v)", what, in, got, want, err)
			}
		}
	}
}

// vm reads the VM's instance.
func (s *site) vm(ctx context.Context, t *testing.T) *lab.VMI {
	t.Helper()
	vm := &lab.VMI{}
	must(t, s.Client.Get(ctx, client.ObjectKey{Namespace: tenant, Name: "vm"}, vm))
	return vm
}

// grant: a migration hangs, and the VMI says so in a condition once the two commands
// have been run that the RDSDriver's status names.
func (s *site) grant(ctx context.Context, t *testing.T) {
	message := s.condition(ctx, t, "VMIConditionsWritable", "False")
	_, commands, _ := strings.Cut(message, "the commands that grant it: ")
	vmim, err := s.Migrate(ctx, s.vm(ctx, t), lab.Following(handler.HoldingAt(handler.Switch)))
	must(t, err)
	s.waitMigration(ctx, t, vmim, dualattach.ConditionTimedOut, "True")
	if two := strings.Split(commands, "; "); len(two) != 2 {
		t.Fatalf("the RDSDriver names %d commands: %s", len(two), message)
	}
	for command := range strings.SplitSeq(commands, "; ") {
		s.run(ctx, t, command)
	}
	s.waitInstance(ctx, t, "True")
	s.condition(ctx, t, "VMIConditionsWritable", "True")
	must(t, s.WaitStep(ctx, vmim, handler.Switch))
	s.Release(s.vm(ctx, t))
	s.waitMigration(ctx, t, vmim, dualattach.ConditionMigrated, "True")
	s.waitInstance(ctx, t, "False")
}

func (s *site) waitMigration(ctx context.Context, t *testing.T, vmim *lab.VMIM, kind kubevirtv1.VirtualMachineInstanceMigrationConditionType, status corev1.ConditionStatus) {
	t.Helper()
	must(t, s.WaitFor(ctx, fmt.Sprintf("%s=%s on the migration", kind, status), func(ctx context.Context) (bool, error) {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(vmim), vmim)
		return slices.ContainsFunc(vmim.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceMigrationCondition) bool {
			return c.Type == kind && c.Status == status
		}), err
	}))
}

func (s *site) waitInstance(ctx context.Context, t *testing.T, status corev1.ConditionStatus) {
	t.Helper()
	must(t, s.WaitFor(ctx, fmt.Sprintf("%s=%s on the VMI", vmicondition.StorageMigrationTimedOut, status), func(ctx context.Context) (bool, error) {
		return slices.ContainsFunc(s.vm(ctx, t).Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
			return string(c.Type) == vmicondition.StorageMigrationTimedOut.String() && c.Status == status
		}), nil
	}))
}

// upgrade: a catalog with a newer version replaces the pods and nothing else.
func (s *site) upgrade(ctx context.Context, t *testing.T, bundle string) {
	before := s.attachments(ctx, t)
	address := s.serve(ctx, t, bundle)
	s.run(ctx, t, `kubectl -n rds-csi patch catalogsource rds-csi --type=merge -p {"spec":{"address":"`+address+`"}}`)
	s.installed(ctx, t, newer)
	must(t, s.WaitFor(ctx, "the older version to be gone", func(ctx context.Context) (bool, error) {
		csv := csvOf(older)
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(csv), csv)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}))
	must(t, s.WaitFor(ctx, "the newer plugin", func(ctx context.Context) (bool, error) {
		running := s.podsOf(ctx, t, "rds-csi-controller")
		return len(running) == 1 && strings.HasSuffix(running[0].Spec.Containers[0].Image, ":v"+newer), nil
	}))
	s.condition(ctx, t, "Available", "True")
	s.condition(ctx, t, "VMIConditionsWritable", "True")
	if after := s.attachments(ctx, t); !slices.Equal(before, after) || len(after) != 1 {
		t.Errorf("the attachments were %v and are %v", before, after)
	}
	if vm := s.vm(ctx, t); !vm.IsRunning() {
		t.Errorf("the VM is %s", vm.Status.Phase)
	}
	vmim, err := s.Migrate(ctx, s.vm(ctx, t), lab.Following(handler.Succeed())) // it follows the last one otherwise
	must(t, err)
	s.waitMigration(ctx, t, vmim, dualattach.ConditionMigrated, "True")
}

// attachments are the UIDs of all of them.
func (s *site) attachments(ctx context.Context, t *testing.T) []string {
	t.Helper()
	return strings.Fields(s.run(ctx, t, "kubectl get volumeattachment -o jsonpath={.items[*].metadata.uid}"))
}

// uninstall follows the README; what is left are data and what the commands name.
func (s *site) uninstall(ctx context.Context, t *testing.T) {
	vm := s.vm(ctx, t)
	must(t, s.Client.Delete(ctx, vm))
	must(t, s.WaitVMIGone(ctx, vm))
	s.run(ctx, t, "kubectl delete rdsdriver rds.csi.srvlab.io")
	s.waitLeft(ctx, t, "after the RDSDriver", "deployment,daemonset,csidriver,storageclass", "deployment.apps/rds-csi-operator")
	s.run(ctx, t, "kubectl -n rds-csi delete subscription rds-csi-operator")
	s.run(ctx, t, "kubectl -n rds-csi delete csv -l operators.coreos.com/rds-csi-operator.rds-csi")
	s.waitLeft(ctx, t, "after the CSV", everything,
		"clusterrole.rbac.authorization.k8s.io/rds-csi-metrics-reader",
		"clusterrole.rbac.authorization.k8s.io/rds-csi-operator-kubevirt-controller",
		"clusterrole.rbac.authorization.k8s.io/rds-csi-operator-vmi-condition",
		"clusterrolebinding.rbac.authorization.k8s.io/rds-csi-operator-vmi-condition",
		"customresourcedefinition.apiextensions.k8s.io/rdsdrivers.rds.srvlab.io",
		"lease.coordination.k8s.io/rds-csi-operator",
		"lease.coordination.k8s.io/rds-csi-srvlab-io-controller",
		"priorityclass.scheduling.k8s.io/rds-csi-operator",
		"secret/rds-main",
	)
	s.run(ctx, t, "kubectl delete clusterrole,priorityclass,crd -l app.kubernetes.io/part-of=rds-csi-operator")
	s.run(ctx, t, "kubectl delete clusterrolebinding rds-csi-operator-vmi-condition")
	s.run(ctx, t, "kubectl -n kubevirt delete rolebinding rds-csi-operator-vmi-condition")
	s.run(ctx, t, "kubectl delete namespace rds-csi")
	s.waitLeft(ctx, t, "in the end", everything)
	if volumes := strings.Fields(s.run(ctx, t, "kubectl get pv -o name")); len(volumes) != 1 {
		t.Errorf("the volumes are %v", volumes)
	}
	disks := slices.DeleteFunc(s.array.Disks(), func(d routeros.Disk) bool { return d.Type != "file" })
	if len(disks) != 1 {
		t.Errorf("on the array are the volumes %+v", disks)
	}
}

// everything are the kinds of what an installation may make.
const everything = "deployment,daemonset,replicaset,pod,service,serviceaccount,role,rolebinding,configmap,secret,lease," +
	"poddisruptionbudget,networkpolicy,clusterrole,clusterrolebinding,priorityclass,csidriver,storageclass,customresourcedefinition"

// waitLeft waits until of some kinds there is, in the operator's namespace and of
// that name in the cluster, what is wanted and no more. What OLM makes for the
// OperatorGroup and for people who use the kind goes with these, so it is looked at when
// nothing is wanted any more.
func (s *site) waitLeft(ctx context.Context, t *testing.T, when, kinds string, want ...string) {
	t.Helper()
	var left []string
	err := s.WaitFor(ctx, "the rest to go, "+when, func(ctx context.Context) (bool, error) {
		out, err := s.Kubectl(ctx, "-n", namespace, "get", kinds, "-o", "name")
		left = nil
		for _, name := range strings.Fields(out) {
			olm := strings.Contains(name, "/olm.og.rds-csi.") || strings.Contains(name, "/rdsdrivers.rds.srvlab.io-v1alpha1-")
			if strings.Contains(name, "rds") && (!olm || len(want) == 0) {
				left = append(left, name)
			}
		}
		slices.Sort(left)
		return slices.Equal(left, want), err
	})
	if err != nil {
		t.Fatalf("%v; there are %s", err, strings.Join(left, "\n"))
	}
}
