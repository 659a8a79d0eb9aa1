package install

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pods"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/process"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

const (
	root       = "../.."
	namespace  = "rds-csi"
	driverName = "rds.csi.srvlab.io"
)

// site is a cluster with config/default, and an array beside it.
type site struct {
	*lab.Cluster
	client client.Client // knows the RDSDriver
	array  *routeros.Server
	key    []byte // of the array's user
	plugin string // kubectl's, kubectl-rds
}

// TestInstall goes through the life of an installation.
func TestInstall(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute) // a cold build
	defer cancel()
	s := open(ctx, t)
	ctx, cancel = context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	t.Run("two operators", func(t *testing.T) { s.operators(ctx, t) })
	t.Run("refusals", func(t *testing.T) { s.refusals(ctx, t) })

	d := s.driver()
	if err := s.client.Create(ctx, d); err != nil {
		t.Fatal(err)
	}
	c := s.waitCondition(ctx, t, v1alpha1.ConditionDegraded, metav1.ConditionTrue)
	for _, part := range []string{"Secret rds-csi/rds-main does not exist", "kubectl -n rds-csi create secret generic rds-main --from-file=ssh-privatekey="} {
		if !strings.Contains(c.Message, part) {
			t.Errorf("without the Secret, Degraded does not tell %q: %s", part, c.Message)
		}
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "rds-main"}, Data: map[string][]byte{"ssh-privatekey": s.key}}
	if err := s.client.Create(ctx, secret); err != nil {
		t.Fatal(err)
	}
	s.waitCondition(ctx, t, v1alpha1.ConditionDegraded, metav1.ConditionFalse)
	s.waitCondition(ctx, t, v1alpha1.ConditionAvailable, metav1.ConditionTrue)
	t.Run("deployed", func(t *testing.T) { s.deployed(ctx, t) })
	t.Run("a migration", func(t *testing.T) { s.migration(ctx, t) })
	t.Run("kubectl rds", func(t *testing.T) { s.kubectlRDS(ctx, t) })
	t.Run("metrics", func(t *testing.T) { s.metrics(ctx, t) })
	t.Run("drift", func(t *testing.T) { s.drift(ctx, t) })
	t.Run("changes", func(t *testing.T) { s.changes(ctx, t) })
	t.Run("array away", func(t *testing.T) { s.arrayAway(ctx, t) })
	t.Run("a persistent TPM", func(t *testing.T) { s.persistentTPM(ctx, t) })
	t.Run("a DataVolume without access modes", func(t *testing.T) { s.withoutAccessModes(ctx, t) })
	t.Run("deletion", func(t *testing.T) { s.deletion(ctx, t) })
}

// open makes an empty cluster with KubeVirt and applies config/default.
func open(ctx context.Context, t *testing.T) *site {
	t.Helper()
	return openFor(ctx, t, lab.Options{
		Nodes:    []string{"node-a", "node-b"},
		WithCDI:  true,
		KubeVirt: lab.KubeVirtOptions{ConfigurationYAML: "vmStateStorageClass: rds"},
		Pods:     &pods.Options{Play: stack.Played},
	})
}

// openFor makes a lab and applies the files given, then config/default.
func openFor(ctx context.Context, t *testing.T, options lab.Options, files ...string) *site {
	t.Helper()
	c, err := lab.Start(ctx, options)
	must(t, err)
	s := &site{Cluster: c}
	t.Cleanup(func() {
		if t.Failed() {
			s.tellLogs(t)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	s.array, s.key = stack.MustStartSimulator(t)
	s.addPrograms(ctx, t)
	must(t, c.ApplyFile(ctx, files...))
	if options.WithoutKubeVirt {
		must(t, c.CreateNamespace(ctx, lab.KubeVirtNamespace)) // config/default binds the grant there
	}
	_, err = c.Kubectl(ctx, "apply", "-k", filepath.Join(root, "config/default"))
	must(t, err)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, storagev1.AddToScheme, coordinationv1.AddToScheme, v1alpha1.AddToScheme} {
		must(t, add(scheme))
	}
	s.client, err = client.New(c.Config(), client.Options{Scheme: scheme, Log: logr.FromSlogHandler(slog.DiscardHandler)})
	must(t, err)
	return s
}

// addPrograms says what stands for the images that config/default names.
func (s *site) addPrograms(ctx context.Context, t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	programs := stack.MustBuildPrograms(ctx, t, dir)
	s.plugin = filepath.Join(dir, "kubectl-rds")
	text, err := s.Kubectl(ctx, "kustomize", filepath.Join(root, "config/default"))
	must(t, err)
	images := map[string]string{}
	for _, m := range regexp.MustCompile(`RELATED_IMAGE_([A-Z_]+)\n\s+value: (\S+)`).FindAllStringSubmatch(text, -1) {
		images[strings.ReplaceAll(strings.ToLower(m[1]), "_", "-")] = m[2]
	}
	images["operator"] = regexp.MustCompile(`image: (\S+)`).FindStringSubmatch(text)[1]
	programs.MustStandFor(t, images, s.Pods())
}

// tellLogs shows how the programs' logs end.
func (s *site) tellLogs(t *testing.T) {
	logs, err := filepath.Glob(filepath.Join(s.Dir, "logs", namespace+"_*.log"))
	must(t, err)
	for _, log := range append(logs, filepath.Join(s.Dir, "logs", "players.log"), filepath.Join(s.Dir, "logs", "cdi-controllers.log")) {
		t.Logf("the end of %s:\n%s", filepath.Base(log), process.Tail(log, 25))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// operators: both run, on two nodes, and one of them leads.
func (s *site) operators(ctx context.Context, t *testing.T) {
	must(t, s.WaitFor(ctx, "two ready operators", func(ctx context.Context) (bool, error) {
		var deployment appsv1.Deployment
		err := s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "rds-csi-operator"}, &deployment)
		return deployment.Status.ReadyReplicas == 2 && deployment.Status.AvailableReplicas == 2, err
	}))
	lease := &coordinationv1.Lease{}
	must(t, s.WaitFor(ctx, "a leader", func(ctx context.Context) (bool, error) {
		err := s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "rds-csi-operator"}, lease)
		return err == nil && lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != "", client.IgnoreNotFound(err)
	}))
}

func (s *site) driver() *v1alpha1.RDSDriver {
	host, port, _ := net.SplitHostPort(s.array.Addr())
	var number int32
	_, _ = fmt.Sscan(port, &number)
	return &v1alpha1.RDSDriver{
		ObjectMeta: metav1.ObjectMeta{Name: driverName},
		Spec: v1alpha1.RDSDriverSpec{
			Arrays: []v1alpha1.Array{{
				Name: "main", Address: host, Port: number, User: "csi", KeySecret: v1alpha1.SecretKey{Name: "rds-main"}, BasePath: "raid10/k8s",
				HostKeys: []string{s.array.HostKeyLine()},
				NVMe:     v1alpha1.NVMe{Addresses: []string{host}},
			}},
			StorageClasses: []v1alpha1.StorageClass{{Name: "rds", IsDefault: true}, {Name: "rds-late", VolumeBindingMode: storagev1.VolumeBindingWaitForFirstConsumer}},
		},
	}
}

// refusals: what cannot work is refused by the schema, in words for people.
func (s *site) refusals(ctx context.Context, t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*v1alpha1.RDSDriver)
		want   string
	}{
		"another name":  {func(d *v1alpha1.RDSDriver) { d.Name = "mine" }, "there is one RDSDriver per cluster"},
		"no arrays":     {func(d *v1alpha1.RDSDriver) { d.Spec.Arrays = []v1alpha1.Array{} }, "spec.arrays"},
		"no host key":   {func(d *v1alpha1.RDSDriver) { d.Spec.Arrays[0].HostKeys = []string{} }, "hostKeys"},
		"any host key":  {func(d *v1alpha1.RDSDriver) { d.Spec.Arrays[0].HostKeys = []string{"any"} }, "a host key is a fingerprint like SHA256:"},
		"ecdsa":         {func(d *v1alpha1.RDSDriver) { d.Spec.Arrays[0].HostKeys = []string{"ecdsa-sha2-nistp256 AAAA"} }, "a host key is"},
		"a path up":     {func(d *v1alpha1.RDSDriver) { d.Spec.Arrays[0].BasePath = "raid10/../x" }, "basePath is a directory like raid10/k8s"},
		"address:port":  {func(d *v1alpha1.RDSDriver) { d.Spec.Arrays[0].Address = "[::1]:22" }, "the port has a field of its own"},
		"two arrays":    {func(d *v1alpha1.RDSDriver) { d.Spec.Arrays = append(d.Spec.Arrays, other(d)) }, "defaultArray names the one"},
		"wrong default": {func(d *v1alpha1.RDSDriver) { d.Spec.DefaultArray = "none" }, "defaultArray names none of the arrays"},
		"wrong array":   {func(d *v1alpha1.RDSDriver) { d.Spec.StorageClasses[0].Array = "none" }, "a storage class names an array that is not listed"},
		"two defaults":  {func(d *v1alpha1.RDSDriver) { d.Spec.StorageClasses[1].IsDefault = true }, "at most one storage class is the cluster's default"},
		"own parameter": {func(d *v1alpha1.RDSDriver) { d.Spec.StorageClasses[0].Parameters = map[string]string{"array": "x"} }, "have fields of their own"},
		"no time":       {func(d *v1alpha1.RDSDriver) { d.Spec.Deadlines.Release = &metav1.Duration{} }, "deadlines.release is a positive duration"},
	} {
		t.Run(name, func(t *testing.T) {
			d := s.driver()
			tt.change(d)
			if err := s.client.Create(ctx, d); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func other(d *v1alpha1.RDSDriver) v1alpha1.Array {
	a := *d.Spec.Arrays[0].DeepCopy()
	a.Name = "far"
	return a
}

// deployed: everything is there, and the status tells of the array.
func (s *site) deployed(ctx context.Context, t *testing.T) {
	var d v1alpha1.RDSDriver
	must(t, s.client.Get(ctx, client.ObjectKey{Name: driverName}, &d))
	if len(d.Status.Arrays) != 1 || !d.Status.Arrays[0].Reachable || d.Status.Arrays[0].Version == "" || d.Status.Arrays[0].Size.Value() != 4<<40 || d.Status.ArraysReachable != "1/1" {
		t.Errorf("status of the array: %+v, %q", d.Status.Arrays, d.Status.ArraysReachable)
	}
	if c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionVMIWritable); c == nil || c.Status != metav1.ConditionTrue {
		t.Errorf("config/default grants the conditions of VMIs, and the status says %+v", c)
	}
	var node appsv1.DaemonSet
	must(t, s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "rds-csi-node"}, &node))
	if node.Status.NumberReady != 2 {
		t.Errorf("of the node pods %d are ready", node.Status.NumberReady)
	}
	for name, object := range map[string]client.Object{
		"rds-csi-controller": &appsv1.Deployment{}, "rds-csi-node": &appsv1.DaemonSet{}, "rds-csi-arrays": &corev1.ConfigMap{},
	} {
		must(t, s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object))
		if c, ok := object.(*corev1.ConfigMap); ok && (strings.Contains(c.Data["arrays.yaml"], "PRIVATE") || !strings.Contains(c.Data["arrays.yaml"], "keyFile: /etc/rds-csi/keys/main")) {
			t.Errorf("arrays.yaml:\n%s", c.Data["arrays.yaml"])
		}
	}
	for name, object := range map[string]client.Object{driverName: &storagev1.CSIDriver{}, "rds": &storagev1.StorageClass{}, "rds-late": &storagev1.StorageClass{}} {
		must(t, s.client.Get(ctx, client.ObjectKey{Name: name}, object))
	}
	resting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s.atRest(resting, t)
}

// atRest: once all has settled the operators ask and write nothing while nothing
// changes, over three looks of each at the array.
func (s *site) atRest(ctx context.Context, t *testing.T) {
	t.Helper()
	var did []string
	err := s.WaitFor(ctx, "the operators at rest", func(ctx context.Context) (bool, error) {
		did = nil
		mark, err := s.MarkAudit()
		if err != nil {
			return false, err
		}
		before := s.array.Stats().Commands
		err = s.WaitFor(ctx, "looks at the array", func(context.Context) (bool, error) { return s.array.Stats().Commands >= before+6, nil })
		if err != nil {
			return false, err
		}
		events, err := s.AuditSince(mark)
		for _, e := range events {
			if e.User.Name == stack.OperatorUser && e.Object.Resource != "leases" {
				did = append(did, e.Verb+" "+e.Object.Resource+" "+e.Object.Name)
			}
		}
		return len(did) == 0, err
	})
	if err != nil {
		t.Errorf("%v; they did %q", err, did)
	}
}

// drift: what somebody changes or deletes comes back.
func (s *site) drift(ctx context.Context, t *testing.T) {
	var deployment appsv1.Deployment
	key := client.ObjectKey{Namespace: namespace, Name: "rds-csi-controller"}
	_, err := s.Kubectl(ctx, "-n", namespace, "scale", "deployment", key.Name, "--replicas=0")
	must(t, err)
	must(t, s.WaitFor(ctx, "the replica to be back", func(ctx context.Context) (bool, error) {
		err := s.client.Get(ctx, key, &deployment)
		return *deployment.Spec.Replicas == 1, err
	}))
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "rds"}}
	must(t, s.client.Delete(ctx, class))
	must(t, s.WaitFor(ctx, "the class to be back", func(ctx context.Context) (bool, error) {
		err := s.client.Get(ctx, client.ObjectKey{Name: "rds"}, class)
		return err == nil, client.IgnoreNotFound(err)
	}))
}

// changes of the resource arrive, those that a StorageClass does not allow, too.
func (s *site) changes(ctx context.Context, t *testing.T) {
	s.update(ctx, t, func(d *v1alpha1.RDSDriver) {
		d.Spec.StorageClasses = d.Spec.StorageClasses[:1]
		d.Spec.StorageClasses[0].DualAttach = "Any"
		d.Spec.LogLevel = 1
	})
	class := &storagev1.StorageClass{}
	must(t, s.WaitFor(ctx, "the class to say dualAttach=Any", func(ctx context.Context) (bool, error) {
		err := s.client.Get(ctx, client.ObjectKey{Name: "rds"}, class)
		return err == nil && class.Parameters["dualAttach"] == "Any", client.IgnoreNotFound(err)
	}))
	must(t, s.WaitFor(ctx, "the other class to go", func(ctx context.Context) (bool, error) {
		err := s.client.Get(ctx, client.ObjectKey{Name: "rds-late"}, class)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}))
	must(t, s.WaitFor(ctx, "the log level to arrive", func(ctx context.Context) (bool, error) {
		var deployment appsv1.Deployment
		err := s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "rds-csi-controller"}, &deployment)
		return strings.Contains(fmt.Sprint(deployment.Spec.Template.Spec.Containers[0].Args), "--log-level=1"), err
	}))

	must(t, s.client.Delete(ctx, s.profile(ctx, t, "rds")))
	s.foreignClass(ctx, t)
	must(t, s.WaitFor(ctx, "the profile to be back and filled in", func(ctx context.Context) (bool, error) {
		profile := s.profile(ctx, t, "rds")
		sets, _, err := unstructured.NestedSlice(profile.Object, "spec", "claimPropertySets")
		return len(sets) == 3, err
	}))
}

// foreignClass: a class of somebody else's is left alone with its StorageProfile, and
// named; once it is deleted, ours is made.
func (s *site) foreignClass(ctx context.Context, t *testing.T) {
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Provisioner: "example.com/other"}
	must(t, s.client.Create(ctx, class))
	choice := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"claimPropertySets":[{"accessModes":["ReadWriteOnce"],"volumeMode":"Filesystem"}]}}`))
	chosen := s.profile(ctx, t, class.Name)
	must(t, s.Client.Patch(ctx, chosen, choice))
	s.update(ctx, t, func(d *v1alpha1.RDSDriver) {
		d.Spec.StorageClasses = append(d.Spec.StorageClasses, v1alpha1.StorageClass{Name: class.Name})
	})
	c := s.waitCondition(ctx, t, v1alpha1.ConditionDegraded, metav1.ConditionTrue)
	if !strings.Contains(c.Message, "StorageClass fast exists and was not made by this operator") {
		t.Errorf("Degraded: %s", c.Message)
	}
	must(t, s.client.Get(ctx, client.ObjectKeyFromObject(class), class))
	if class.Provisioner != "example.com/other" {
		t.Errorf("the other class was changed: %+v", class)
	}
	if diff := cmp.Diff(chosen.Object["spec"], s.profile(ctx, t, class.Name).Object["spec"]); diff != "" {
		t.Errorf("the profile of the other class was changed (-was +is):\n%s", diff)
	}
	soon, cancel := context.WithTimeout(ctx, 20*time.Second) // no timer of the operator's is as short
	defer cancel()
	must(t, s.client.Delete(ctx, class))
	s.waitCondition(soon, t, v1alpha1.ConditionDegraded, metav1.ConditionFalse)
	must(t, s.client.Get(ctx, client.ObjectKeyFromObject(class), class))
	if class.Provisioner != driverName {
		t.Errorf("the class is %s's", class.Provisioner)
	}
	s.update(ctx, t, func(d *v1alpha1.RDSDriver) { d.Spec.StorageClasses = d.Spec.StorageClasses[:1] })
	must(t, s.WaitFor(ctx, "our class to go", func(ctx context.Context) (bool, error) {
		err := s.client.Get(ctx, client.ObjectKeyFromObject(class), class)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}))
}

// profile is what CDI makes for a class, once it has.
func (s *site) profile(ctx context.Context, t *testing.T, class string) *unstructured.Unstructured {
	t.Helper()
	profile := &unstructured.Unstructured{}
	profile.SetAPIVersion("cdi.kubevirt.io/v1beta1")
	profile.SetKind("StorageProfile")
	must(t, s.WaitFor(ctx, "the StorageProfile of class "+class, func(ctx context.Context) (bool, error) {
		err := s.Client.Get(ctx, client.ObjectKey{Name: class}, profile)
		return err == nil, client.IgnoreNotFound(err)
	}))
	return profile
}

// arrayAway: the status says so, in words that help, and when it is back.
func (s *site) arrayAway(ctx context.Context, t *testing.T) {
	must(t, s.array.Down())
	c := s.waitCondition(ctx, t, v1alpha1.ConditionDegraded, metav1.ConditionTrue)
	if c.Reason != "ArrayUnreachable" || !strings.Contains(c.Message, "array main does not answer: ") {
		t.Errorf("Degraded: %s, %s", c.Reason, c.Message)
	}
	s.kubectlRDSWithoutArray(ctx, t)
	must(t, s.array.Up())
	s.waitCondition(ctx, t, v1alpha1.ConditionDegraded, metav1.ConditionFalse)
}

// deletion waits while a volume is attached, then removes all that was made.
func (s *site) deletion(ctx context.Context, t *testing.T) {
	d := &v1alpha1.RDSDriver{ObjectMeta: metav1.ObjectMeta{Name: driverName}}
	must(t, s.client.Delete(ctx, d))
	c := s.waitCondition(ctx, t, v1alpha1.ConditionDegraded, metav1.ConditionTrue)
	claim := s.claim(ctx, t, "disk")
	if c.Reason != "VolumesAttached" || !strings.Contains(c.Message, claim.Spec.VolumeName+" on node-") {
		t.Errorf("Degraded: %s, %s", c.Reason, c.Message)
	}
	must(t, s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "rds-csi-controller"}, &appsv1.Deployment{}))
	must(t, s.Client.Delete(ctx, &lab.VMI{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "vm"}}))
	must(t, s.WaitFor(ctx, "the RDSDriver to go", func(ctx context.Context) (bool, error) {
		err := s.client.Get(ctx, client.ObjectKeyFromObject(d), d)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}))
	for name, object := range map[string]client.Object{
		"rds-csi/rds-csi-controller": &appsv1.Deployment{}, "rds-csi/rds-csi-node": &appsv1.DaemonSet{}, "rds-csi/rds-csi-arrays": &corev1.ConfigMap{},
		"/" + driverName: &storagev1.CSIDriver{}, "/rds": &storagev1.StorageClass{},
	} {
		in, of, _ := strings.Cut(name, "/")
		err := s.client.Get(ctx, client.ObjectKey{Namespace: in, Name: of}, object)
		if err == nil && object.GetDeletionTimestamp() != nil || apierrors.IsNotFound(err) {
			continue
		}
		t.Errorf("%T %s is still there: %v", object, name, err)
	}
	if claim := s.claim(ctx, t, "disk"); claim.Status.Phase != corev1.ClaimBound || len(s.array.Disks()) < 2 {
		t.Errorf("the volume went with the driver: %s, %+v", claim.Status.Phase, s.array.Disks())
	}
	must(t, s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "rds-main"}, &corev1.Secret{}))
	must(t, s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "rds-csi-operator"}, &appsv1.Deployment{}))
}

func (s *site) update(ctx context.Context, t *testing.T, change func(*v1alpha1.RDSDriver)) {
	t.Helper()
	must(t, s.WaitFor(ctx, "the RDSDriver to be updated", func(ctx context.Context) (bool, error) {
		d := &v1alpha1.RDSDriver{}
		if err := s.client.Get(ctx, client.ObjectKey{Name: driverName}, d); err != nil {
			return false, err
		}
		change(d)
		err := s.client.Update(ctx, d)
		if apierrors.IsConflict(err) {
			return false, nil
		}
		return err == nil, err
	}))
}

func (s *site) waitCondition(ctx context.Context, t *testing.T, kind string, want metav1.ConditionStatus) metav1.Condition {
	t.Helper()
	d := &v1alpha1.RDSDriver{}
	var c metav1.Condition
	err := s.WaitFor(ctx, fmt.Sprintf("%s=%s", kind, want), func(ctx context.Context) (bool, error) {
		if err := s.client.Get(ctx, client.ObjectKey{Name: driverName}, d); err != nil {
			return false, err
		}
		if found := meta.FindStatusCondition(d.Status.Conditions, kind); found != nil {
			c = *found
		}
		return c.Status == want && c.ObservedGeneration == d.Generation, nil
	})
	if err != nil {
		t.Fatalf("%v; the conditions are %+v", err, d.Status.Conditions)
	}
	return c
}
