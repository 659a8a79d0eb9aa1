package kube_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/csi"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube/kubetest"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

var _ csi.Guard = (*kube.Cluster)(nil)

const (
	pods       = "/api/v1/namespaces/shop/pods"
	migrations = "/apis/kubevirt.io/v1/namespaces/shop/virtualmachineinstancemigrations"
)

func claimed(name, handle, claim string) *corev1.PersistentVolume {
	v := pv(name, driver, handle, corev1.ReadWriteMany)
	v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "shop", Name: claim}
	return v
}

// launcher is a pod of VMI web that uses claim disk.
func launcher(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{kubevirtv1.MigrationJobLabel: "uid-move"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstance", Name: "web", UID: "uid-web", Controller: ptr.To(true)}}},
		Spec: corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}}}},
	}
}

func move() *kubevirtv1.VirtualMachineInstanceMigration {
	return &kubevirtv1.VirtualMachineInstanceMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "move", UID: "uid-move"},
		Spec: kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: "web"}}
}

// A migration of web from n1 to n2, and what differs from it.
func TestMayShare(t *testing.T) {
	long := strings.Repeat("worker", 20)
	for name, test := range map[string]struct {
		change       func(*kubetest.Server)
		node, holder string
		want         string // that the refusal mentions; empty: granted
	}{
		"migrating":                     {node: "n2", holder: "n1"},
		"the wrong node":                {node: "n3", holder: "n1", want: "no pod on node n3 uses it"},
		"no migration":                  {change: func(s *kubetest.Server) { s.Remove(migrations, "move") }, node: "n2", holder: "n1", want: "in use by pod shop/old on node n1"},
		"migrations are not served":     {change: func(s *kubetest.Server) { s.Unserve("virtualmachineinstancemigrations") }, node: "n2", holder: "n1", want: "serves no VirtualMachineInstanceMigration"},
		"the holder's pod is gone":      {change: func(s *kubetest.Server) { s.Remove(pods, "old") }, node: "n2", holder: "n1", want: "node n1 is still releasing it"},
		"no claim":                      {change: func(s *kubetest.Server) { s.Put(volumes, pv("disk", driver, "h", corev1.ReadWriteMany)) }, node: "n2", holder: "n1", want: "no PersistentVolume of it is bound"},
		"no volume":                     {change: func(s *kubetest.Server) { s.Remove(volumes, "disk") }, node: "n2", holder: "n1", want: "no PersistentVolume of it is bound"},
		"another claim now":             {change: func(s *kubetest.Server) { s.Put(volumes, claimed("disk", "h", "other")) }, node: "n2", holder: "n1", want: "still releasing"},
		"by the handle's other form":    {change: func(s *kubetest.Server) { s.Put(volumes, claimed("disk", "h.main", "disk")) }, node: "n2", holder: "n1"},
		"another volume's":              {change: func(s *kubetest.Server) { s.Put(volumes, claimed("disk", "g", "disk")) }, node: "n2", holder: "n1", want: "no PersistentVolume"},
		"a volume that has just come":   {change: func(s *kubetest.Server) { s.Remove(volumes, "disk"); s.Put(volumes, claimed("new", "h", "disk")) }, node: "n2", holder: "n1"},
		"ids that are not nodes' names": {change: func(s *kubetest.Server) { s.Put(nodes, csiNode("n1", "id-1")); s.Put(nodes, csiNode("n2", "id-2")) }, node: "id-2", holder: "id-1"},
		"holder's CSINode is gone":      {change: func(s *kubetest.Server) { s.Put(pods, launcher("old", long)) }, node: "n2", holder: rds.NodeKey(long)},
		"holder's pod has ended": {change: func(s *kubetest.Server) {
			old := launcher("old", "n1")
			old.Status.Phase = corev1.PodSucceeded
			s.Put(pods, old)
		}, node: "n2", holder: "n1", want: "still releasing"},
		"the migration has ended": {change: func(s *kubetest.Server) {
			m := move()
			m.Status.Phase = kubevirtv1.MigrationFailed
			s.Put(migrations, m)
		}, node: "n2", holder: "n1", want: "has ended (Failed)"},
		"waiting for a node does not count": {change: func(s *kubetest.Server) { s.Put(pods, launcher("waiting", "")) }, node: "n2", holder: "n1"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := start(t, func(s *kubetest.Server) {
				s.Put(volumes, claimed("disk", "h", "disk"))
				s.Put(pods, launcher("old", "n1"))
				s.Put(pods, launcher("new", "n2"))
				s.Put(migrations, move())
				if test.change != nil {
					test.change(s)
				}
			})
			err := c.MayShare(t.Context(), test.node, test.holder, "h", "h.main")
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && !errors.Is(err, rds.ErrInUse):
				t.Errorf("%v, want a refusal", err)
			case test.want != "" && !strings.Contains(err.Error(), test.want):
				t.Errorf("%q does not mention %q", err, test.want)
			}
		})
	}
}

// What is read is of now, whatever the watches have seen; and as little as will do.
func TestMayShareReadsLive(t *testing.T) {
	c, s := start(t, func(s *kubetest.Server) { s.Put(volumes, claimed("disk", "h", "disk")) })
	s.Put(pods, launcher("old", "n1"))
	if err := c.MayShare(t.Context(), "n2", "n1", "h"); !errors.Is(err, rds.ErrInUse) {
		t.Fatal(err)
	}
	s.Put(pods, launcher("new", "n2"))
	s.Put(migrations, move())
	before := len(s.Requests())
	if err := c.MayShare(t.Context(), "n2", "n1", "h"); err != nil {
		t.Fatal(err)
	}
	if made := s.Requests()[before:]; !slices.Equal(made, []string{"GET " + volumes + "/disk", "GET " + pods, "GET " + migrations}) {
		t.Errorf("it cost %q", made)
	}
}

// An API that cannot be asked has not said no.
func TestMayShareOutage(t *testing.T) {
	for _, path := range []string{volumes + "/disk", pods, migrations} {
		for _, code := range []int{http.StatusForbidden, http.StatusServiceUnavailable, http.StatusInternalServerError} {
			c, s := start(t, func(s *kubetest.Server) {
				s.Put(volumes, claimed("disk", "h", "disk"))
				s.Put(pods, launcher("old", "n1"))
				s.Put(pods, launcher("new", "n2"))
				s.Put(migrations, move())
			})
			s.Fail(func(r *http.Request) int {
				if r.URL.Path == path {
					return code
				}
				return 0
			})
			if err := c.MayShare(t.Context(), "n2", "n1", "h"); err == nil || errors.Is(err, rds.ErrInUse) {
				t.Errorf("%s answers %d: %v", path, code, err)
			}
		}
	}
}
