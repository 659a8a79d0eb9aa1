package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/utils/ptr"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube/kubetest"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

const (
	csiNodes    = "/apis/storage.k8s.io/v1/csinodes"
	attachments = "/apis/storage.k8s.io/v1/volumeattachments"
)

func simulator(t *testing.T) *routeros.Server {
	t.Helper()
	s, err := routeros.New(routeros.Options{
		HostKeyType: routeros.Ed25519,
		Users:       []routeros.User{{Name: "csi", AnyKey: true, Policies: []string{"ssh", "read", "write", "test"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	err = errors.Join(s.AddPool(routeros.Pool{Name: "raid10", Size: 10 << 40}), s.AddDirectory("raid10/k8s"), s.Start(""))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A volume's life through the real process, and the permissions that it takes:
// exactly those of config/rbac/csi.
func TestLifeOfAVolume(t *testing.T) {
	t.Parallel()
	api, array := kubetest.New(t), simulator(t)
	for _, node := range []string{"node-a", "node-b"} {
		api.Put(csiNodes, &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: storagev1.CSINodeSpec{
			Drivers: []storagev1.CSINodeDriver{{Name: "rds.csi.srvlab.io", NodeID: node}},
		}})
	}
	p := start(t, api.Kubeconfig(t), writeArrays(t, array.Addr()))
	eventually(t, "it serves", p.serves)
	conn, err := grpc.NewClient("unix://"+p.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	live(t, spec.NewControllerClient(conn), api, array)
	p.signal(t, syscall.SIGTERM)
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	checkPermissions(t, api.Requests())
}

// live creates, publishes, unpublishes and deletes a volume.
func live(t *testing.T, c spec.ControllerClient, api *kubetest.Server, array *routeros.Server) {
	t.Helper()
	block := &spec.VolumeCapability{
		AccessType: &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}},
		AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
	}
	created, err := c.CreateVolume(t.Context(), &spec.CreateVolumeRequest{Name: "pvc-3fd2c1a4-5b6e-4f70-8a91-b2c3d4e5f607", VolumeCapabilities: []*spec.VolumeCapability{block}})
	if err != nil {
		t.Fatal(err)
	}
	v := created.GetVolume()
	publish := func(node string) error {
		_, err := c.ControllerPublishVolume(t.Context(), &spec.ControllerPublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: node, VolumeCapability: block, VolumeContext: v.GetVolumeContext()})
		return err
	}
	unpublish := func(node string) error {
		_, err := c.ControllerUnpublishVolume(t.Context(), &spec.ControllerUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: node})
		return err
	}
	if err := publish("node-a"); err != nil {
		t.Fatal(err)
	}
	if asked := strings.Join(api.Requests(), "\n"); strings.Contains(asked, "pods") || strings.Contains(asked, "migrations") {
		t.Errorf("a first node cost %s", asked)
	}
	migrate(t, publish, api, v)
	if err := unpublish("node-a"); err != nil {
		t.Fatal(err)
	}
	if err := publish("node-z"); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown node: %v", err)
	}
	if d, _ := array.Disk(v.GetVolumeId()); !d.Exported || !strings.Contains(d.Comment, "node-b=") || strings.Contains(d.Comment, "node-a=") {
		t.Errorf("the array has %+v", d)
	}
	// An attachment of a volume that nobody has seen yet.
	volume := "absent"
	api.Put(attachments, &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: "odd"},
		Spec:       storagev1.VolumeAttachmentSpec{Attacher: "rds.csi.srvlab.io", NodeName: "node-a", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume}},
		Status:     storagev1.VolumeAttachmentStatus{Attached: true},
	})
	if err := unpublish("node-b"); err != nil {
		t.Fatal(err)
	}
	if d, _ := array.Disk(v.GetVolumeId()); d.Exported {
		t.Errorf("exported to nobody: %+v", d)
	}
	if _, err := c.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()}); err != nil {
		t.Fatal(err)
	}
	if _, exists := array.Disk(v.GetVolumeId()); exists {
		t.Error("the disk is still there")
	}
	if files := slices.DeleteFunc(array.Files(), func(f routeros.File) bool { return !strings.HasSuffix(f.Name, ".img") }); len(files) > 0 {
		t.Errorf("images are left: %v", files)
	}
}

// migrate lets node-b join node-a, as soon as a migration says why.
func migrate(t *testing.T, publish func(string) error, api *kubetest.Server, v *spec.Volume) {
	t.Helper()
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "disk"}, Spec: corev1.PersistentVolumeSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}, ClaimRef: &corev1.ObjectReference{Namespace: "shop", Name: "disk"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "rds.csi.srvlab.io", VolumeHandle: v.GetVolumeId()}},
	}}
	api.Put("/api/v1/persistentvolumes", pv)
	for _, node := range []string{"node-a", "node-b"} {
		api.Put("/api/v1/namespaces/shop/pods", &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "launcher-" + node, UID: types.UID(node), Labels: map[string]string{kubevirtv1.MigrationJobLabel: "move-to-" + node},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstance", Name: "web", UID: "web", Controller: ptr.To(true)}}},
			Spec: corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}}}},
		})
	}
	err := publish("node-b")
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(status.Convert(err).Message(), "in use by pod shop/launcher-node-a on node node-a") {
		t.Errorf("without a migration: %v", err)
	}
	api.Put("/apis/kubevirt.io/v1/namespaces/shop/virtualmachineinstancemigrations", &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "move", UID: "move-to-node-b"},
		Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: "web"},
	})
	api.Fail(func(r *http.Request) int {
		if strings.Contains(r.URL.Path, "migrations") {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	if err := publish("node-b"); status.Code(err) != codes.Unavailable {
		t.Errorf("while migrations cannot be read: %v", err)
	}
	api.Fail(nil)
	if err := publish("node-b"); err != nil {
		t.Fatal(err)
	}
}

// checkPermissions compares what the process asked with what it may.
func checkPermissions(t *testing.T, requests []string) {
	t.Helper()
	used := map[string]bool{}
	for _, r := range requests {
		used[permission(t, r)] = true
	}
	granted := map[string]bool{}
	for _, file := range []string{"controller.yaml", "controller_lease.yaml"} {
		for _, rule := range rules(t, filepath.Join("..", "..", "config", "rbac", "csi", file)) {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					granted[verb+" "+resource+"."+rule.APIGroups[0]] = true
				}
			}
		}
	}
	for p := range used {
		if !granted[p] {
			t.Errorf("used and not granted: %s", p)
		}
	}
	for p := range granted {
		if !used[p] {
			t.Errorf("granted and not used: %s", p)
		}
	}
}

// permission is what a request needs: verb resource.group.
func permission(t *testing.T, request string) string {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	path, watch := strings.CutSuffix(path, "?watch")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	group := ""
	if parts[0] == "apis" {
		group, parts = parts[1], parts[1:]
	}
	parts = parts[2:]
	if parts[0] == "namespaces" {
		parts = parts[2:]
	}
	verb := map[string]string{"GET": "get", "POST": "create", "PUT": "update"}[method]
	switch {
	case watch:
		verb = "watch"
	case verb == "get" && len(parts) == 1:
		verb = "list"
	}
	return verb + " " + parts[0] + "." + group
}

func rules(t *testing.T, file string) []rbacv1.PolicyRule {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []rbacv1.PolicyRule
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 1024)
	for {
		var role rbacv1.ClusterRole // a Role reads the same
		if err := decoder.Decode(&role); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, role.Rules...)
	}
}
