package install

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// tenant is whose VMs run here.
const tenant = "shop"

// migration: a claim is bound, a VM starts on it, grows it and moves, and all that is
// said of it is there.
func (s *site) migration(ctx context.Context, t *testing.T) {
	must(t, s.CreateNamespace(ctx, tenant))
	s.newClaim(ctx, t, "disk")
	vm, err := s.CreateVMI(ctx, lab.NewVMI(tenant, "vm").WithDisk("disk"))
	must(t, err)
	must(t, s.WaitVMIRunning(ctx, vm))
	s.grow(ctx, t)
	s.migrate(ctx, t, vm)
	must(t, s.WaitFor(ctx, "the events on the claim", func(ctx context.Context) (bool, error) {
		var events corev1.EventList
		err := s.Client.List(ctx, &events, client.InNamespace(tenant), client.MatchingFields{"involvedObject.name": "disk", "involvedObject.kind": "PersistentVolumeClaim"})
		said := func(reason string) bool {
			return slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return e.Reason == reason && strings.Contains(e.Message, "node-") })
		}
		return said("MigrationStarted") && said("MigrationCompleted"), err
	}))
}

// newClaim makes a claim for a VM, of the default class, and waits until it is bound.
func (s *site) newClaim(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	must(t, s.Client.Create(ctx, stack.NewClaim(tenant, name, "")))
	must(t, s.WaitFor(ctx, "the claim to be bound", func(ctx context.Context) (bool, error) {
		return s.claim(ctx, t, name).Status.Phase == corev1.ClaimBound, nil
	}))
}

// migrate moves a VM and waits until the operator has seen the end of it.
func (s *site) migrate(ctx context.Context, t *testing.T, vm *lab.VMI) {
	t.Helper()
	vmim, err := s.Migrate(ctx, vm)
	must(t, err)
	must(t, s.WaitMigration(ctx, vmim, kubevirtv1.MigrationSucceeded))
	must(t, s.WaitFor(ctx, "the condition on the migration", func(ctx context.Context) (bool, error) {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(vmim), vmim)
		return slices.ContainsFunc(vmim.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceMigrationCondition) bool {
			return c.Type == dualattach.ConditionMigrated && c.Status == corev1.ConditionTrue && c.Reason == "Completed"
		}), err
	}))
}

// grow has csi-resizer make the volume larger while the VM runs.
func (s *site) grow(ctx context.Context, t *testing.T) {
	t.Helper()
	_, err := s.Kubectl(ctx, "-n", tenant, "patch", "pvc", "disk", "-p", `{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`)
	must(t, err)
	want := resource.MustParse("2Gi")
	must(t, s.WaitFor(ctx, "the volume to grow", func(ctx context.Context) (bool, error) {
		var pv corev1.PersistentVolume
		err := s.Client.Get(ctx, client.ObjectKey{Name: s.claim(ctx, t, "disk").Spec.VolumeName}, &pv)
		return pv.Spec.Capacity.Storage().Cmp(want) == 0, err
	}))
}

func (s *site) claim(ctx context.Context, t *testing.T, name string) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{}
	must(t, s.Client.Get(ctx, client.ObjectKey{Namespace: tenant, Name: name}, claim))
	return claim
}

// metrics are at the ports of the Services, over HTTPS, and only for whom RBAC allows to
// get them.
func (s *site) metrics(ctx context.Context, t *testing.T) {
	s.scrapers(ctx, t)
	var operators string
	if err := s.WaitFor(ctx, "both migrations counted", func(ctx context.Context) (bool, error) { // after their conditions are written
		operators = s.scrape(ctx, t, "rds-csi-operator", 2)
		return strings.Contains(operators, "\n"+`rds_csi_migration_migrations_total{result="success"} 2`), nil
	}); err != nil {
		t.Fatalf("%v; the operators' metrics:\n%s", err, operators)
	}
	if !strings.Contains(operators, "\n"+`rds_csi_array_up{array="main"} 1`) {
		t.Errorf("the operators' metrics do not tell of the array:\n%s", operators)
	}
	if got := s.scrape(ctx, t, "rds-csi-controller", 1); !strings.Contains(got, `method="ControllerPublishVolume"`) {
		t.Errorf("the controller's metrics:\n%s", got)
	}
	if got := s.scrapeAt(ctx, t, s.nodePlugin(ctx, t)+":9808"); !strings.Contains(got, "\nrds_csi_node_staged_volumes 0") {
		t.Errorf("the node plugin's metrics:\n%s", got)
	}
	s.judgeRights(ctx, t, "rbac/csi")
}

// scrapers makes an account that may get metrics and one that may not.
func (s *site) scrapers(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, name := range []string{"prometheus", "stranger"} {
		must(t, s.Client.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name}}))
	}
	must(t, s.Client.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "rds-csi-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: tenant, Name: "prometheus"}},
	}))
}

// scrape is what the pods behind a Service tell whoever may ask.
func (s *site) scrape(ctx context.Context, t *testing.T, service string, n int) string {
	t.Helper()
	var at []string
	must(t, s.WaitFor(ctx, "the addresses of "+service, func(ctx context.Context) (bool, error) {
		var err error
		at, err = s.ServiceAddresses(ctx, namespace, service, "metrics")
		return len(at) == n, err
	}))
	var all strings.Builder
	for _, address := range at {
		all.WriteString(s.scrapeAt(ctx, t, address))
	}
	return all.String()
}

func (s *site) scrapeAt(ctx context.Context, t *testing.T, address string) string {
	t.Helper()
	for account, want := range map[string]int{"": http.StatusUnauthorized, "stranger": http.StatusForbidden} {
		if got, _ := s.get(ctx, t, address, account); got != want {
			t.Errorf("%s answers %d to account %q, want %d", address, got, account, want)
		}
	}
	status, body := s.get(ctx, t, address, "prometheus")
	if status != http.StatusOK {
		t.Fatalf("%s answers %d: %s", address, status, body)
	}
	return body
}

// get asks for metrics with the token of an account, if one is named.
func (s *site) get(ctx context.Context, t *testing.T, address, account string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/metrics", nil)
	must(t, err)
	if account != "" {
		config, err := s.ConfigFor(ctx, tenant, account)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+config.BearerToken)
	}
	response, err := (&http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // as the ServiceMonitors say
	}}).Do(request)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return response.StatusCode, string(body)
}

// nodePlugin starts the plugin's container of the node DaemonSet by itself and returns
// its address.
func (s *site) nodePlugin(ctx context.Context, t *testing.T) string {
	t.Helper()
	var set appsv1.DaemonSet
	must(t, s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "rds-csi-node"}, &set))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "node-plugin"}, Spec: set.Spec.Template.Spec}
	pod.Spec.NodeName = "node-a"
	pod.Spec.Containers = slices.DeleteFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name != "csi-plugin" })
	pod.Spec.Containers[0].LivenessProbe = nil // a sidecar's
	pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
		Path: "/readyz", Port: intstr.FromString("metrics"), Scheme: corev1.URISchemeHTTPS,
	}}}
	must(t, s.Client.Create(ctx, pod))
	t.Cleanup(func() { must(t, s.Client.Delete(context.WithoutCancel(ctx), pod)) })
	must(t, s.WaitPod(ctx, pod, corev1.PodRunning))
	return pod.Status.PodIP
}
