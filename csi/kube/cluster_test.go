package kube_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube/kubetest"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

const (
	driver      = "rds.csi.srvlab.io"
	volumes     = "/api/v1/persistentvolumes"
	nodes       = "/apis/storage.k8s.io/v1/csinodes"
	attachments = "/apis/storage.k8s.io/v1/volumeattachments"
)

func pv(name, driver, handle string, modes ...corev1.PersistentVolumeAccessMode) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		AccessModes:            modes,
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle}},
	}}
}

func csiNode(name string, ids ...string) *storagev1.CSINode {
	n := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.Drivers = append(n.Spec.Drivers, storagev1.CSINodeDriver{Name: "other.example", NodeID: "other-" + name})
	for _, id := range ids {
		n.Spec.Drivers = append(n.Spec.Drivers, storagev1.CSINodeDriver{Name: driver, NodeID: id})
	}
	return n
}

func va(name, pvName, node string, attached bool) *storagev1.VolumeAttachment {
	return &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       storagev1.VolumeAttachmentSpec{Attacher: driver, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pvName}},
		Status:     storagev1.VolumeAttachmentStatus{Attached: attached},
	}
}

func derived(handle, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}

// start runs a Cluster on a server that has what prepare puts there.
func start(t *testing.T, prepare func(*kubetest.Server)) (*kube.Cluster, *kubetest.Server) {
	t.Helper()
	s := kubetest.New(t)
	if prepare != nil {
		prepare(s)
	}
	client, err := kubernetes.NewForConfig(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	c, err := kube.New(client, driver, rds.NodeKey)
	if err != nil {
		t.Fatal(err)
	}
	go c.Run(t.Context())
	if !cache.WaitForCacheSync(t.Context().Done(), c.Synced) {
		t.Fatal("never synced")
	}
	return c, s
}

func TestAttachedNodes(t *testing.T) {
	for name, test := range map[string]struct {
		put  func(*kubetest.Server)
		want []string
	}{
		"nobody":      {func(*kubetest.Server) {}, nil},
		"by its name": {func(s *kubetest.Server) { s.Put(attachments, va(derived("h", "n1"), "gone", "n1", true)) }, []string{"n1"}},
		"by its PV": {func(s *kubetest.Server) {
			s.Put(volumes, pv("pv1", driver, "h"))
			s.Put(attachments, va("x", "pv1", "n1", true))
		}, []string{"n1"}},
		"not attached": {func(s *kubetest.Server) { s.Put(attachments, va(derived("h", "n1"), "pv1", "n1", false)) }, nil},
		"another handle's": {func(s *kubetest.Server) {
			s.Put(volumes, pv("pv1", driver, "other"))
			s.Put(attachments, va(derived("other", "n1"), "pv1", "n1", true))
		}, nil},
		"another driver's PV": {func(s *kubetest.Server) {
			s.Put(volumes, pv("pv1", "other.example", "h"))
			s.Put(attachments, va("x", "pv1", "n1", true))
		}, nil},
		"another driver's": {func(s *kubetest.Server) {
			a := va("x", "pv1", "n1", true)
			a.Spec.Attacher = "other.example"
			s.Put(volumes, pv("pv1", driver, "h"))
			s.Put(attachments, a)
		}, nil},
		"being deleted": {func(s *kubetest.Server) {
			a := va(derived("h", "n1"), "pv1", "n1", true)
			now := metav1.Now()
			a.DeletionTimestamp = &now
			s.Put(attachments, a)
		}, []string{"n1"}},
		"two nodes": {func(s *kubetest.Server) {
			s.Put(attachments, va(derived("h", "n2"), "pv1", "n2", true))
			s.Put(attachments, va(derived("h", "n1"), "pv1", "n1", true))
		}, []string{"n1", "n2"}},
		"by the other spelling": {func(s *kubetest.Server) { s.Put(attachments, va(derived("h.main", "n1"), "pv1", "n1", true)) }, []string{"n1"}},
		"an inline volume": {func(s *kubetest.Server) {
			a := va("x", "", "n1", true)
			spec := pv("", driver, "h").Spec
			a.Spec.Source = storagev1.VolumeAttachmentSource{InlineVolumeSpec: &spec}
			s.Put(attachments, a)
		}, []string{"n1"}},
		"the node's id, from its CSINode": {func(s *kubetest.Server) {
			s.Put(nodes, csiNode("n1", "id-1"))
			s.Put(attachments, va(derived("h", "n1"), "pv1", "n1", true))
		}, []string{"id-1"}},
		"the node's id, when its CSINode is gone": {func(s *kubetest.Server) {
			a := va(derived("h", "n1"), "pv1", "n1", true)
			a.Annotations = map[string]string{"csi.alpha.kubernetes.io/node-id": "id-1"}
			s.Put(attachments, a)
		}, []string{"id-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := start(t, test.put)
			got, _, err := c.AttachedNodes(t.Context(), "h", "h.main")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error("(-want +got):\n" + diff)
			}
		})
	}
}

// Of whom there is an attachment at all is told as well.
func TestAttachedNodesNamesTheOthers(t *testing.T) {
	c, _ := start(t, func(s *kubetest.Server) {
		s.Put(nodes, csiNode("n2", "id-2"))
		s.Put(attachments, va(derived("h", "n1"), "pv1", "n1", true))
		s.Put(attachments, va(derived("h", "n2"), "pv1", "n2", false))
		s.Put(attachments, va(derived("other", "n3"), "pv2", "n3", false))
	})
	attached, others, err := c.AttachedNodes(t.Context(), "h")
	if err != nil || !slices.Equal(attached, []string{"n1"}) || !slices.Equal(others, []string{"id-2"}) {
		t.Errorf("%v, %v, %v", attached, others, err)
	}
}

// The answer is of now, not of what a watch has seen so far.
func TestAttachedNodesReadsLive(t *testing.T) {
	c, s := start(t, nil)
	for _, node := range []string{"n1", "n2", "n3"} {
		s.Put(attachments, va(derived("h", node), "pv1", node, true))
		got, _, err := c.AttachedNodes(t.Context(), "h")
		if err != nil || !slices.Contains(got, node) {
			t.Fatalf("%v, %v; %s is attached", got, err, node)
		}
	}
}

// A PersistentVolume that the watch has not seen is looked up.
func TestAttachedNodesLooksUpAnUnseenVolume(t *testing.T) {
	c, s := start(t, func(s *kubetest.Server) {
		s.Fail(func(r *http.Request) int {
			if r.URL.Query().Get("watch") != "" {
				return http.StatusServiceUnavailable
			}
			return 0
		})
	})
	s.Put(volumes, pv("late", driver, "h"))
	s.Put(attachments, va("odd-name", "late", "n1", true))
	got, _, err := c.AttachedNodes(t.Context(), "h")
	if err != nil || !slices.Equal(got, []string{"n1"}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestOutageIsAnError(t *testing.T) {
	c, s := start(t, func(s *kubetest.Server) { s.Put(nodes, csiNode("n1", "n1")) })
	s.Fail(func(*http.Request) int { return http.StatusForbidden })
	if got, _, err := c.AttachedNodes(t.Context(), "h"); err == nil {
		t.Errorf("attached %v", got)
	}
	if got, err := c.NodeExists(t.Context(), "n2"); err == nil {
		t.Errorf("exists %t", got)
	}
	if got, err := c.SingleNodePV(t.Context(), "h"); err == nil {
		t.Errorf("PV %q", got)
	}
	if got, err := c.NodeExists(t.Context(), "n1"); err != nil || !got {
		t.Errorf("a node that is known: %t, %v", got, err)
	}
}

func TestNodeExists(t *testing.T) {
	c, s := start(t, func(s *kubetest.Server) {
		s.Put(nodes, csiNode("n1", "id-1"))
		s.Put(nodes, csiNode("n2")) // this driver does not run there
	})
	before := len(s.Requests())
	if got, err := c.NodeExists(t.Context(), "id-1"); err != nil || !got {
		t.Errorf("id-1: %t, %v", got, err)
	}
	if made := s.Requests()[before:]; len(made) > 0 {
		t.Errorf("a known node cost %v", made)
	}
	for _, id := range []string{"n1", "n2", "other-n1", "other-n2"} {
		if got, err := c.NodeExists(t.Context(), id); err != nil || got {
			t.Errorf("%s: %t, %v", id, got, err)
		}
	}
	s.Put(nodes, csiNode("n3", "id-3"))
	if got, err := c.NodeExists(t.Context(), "id-3"); err != nil || !got {
		t.Errorf("a node that has just come: %t, %v", got, err)
	}
}

func TestSingleNodePV(t *testing.T) {
	c, s := start(t, func(s *kubetest.Server) {
		s.Put(volumes, pv("many", driver, "shared", corev1.ReadWriteMany))
		s.Put(volumes, pv("both", driver, "mixed", corev1.ReadWriteOnce, corev1.ReadWriteMany))
		s.Put(volumes, pv("once", driver, "single", corev1.ReadWriteOnce))
		s.Put(volumes, pv("theirs", "other.example", "shared", corev1.ReadWriteOnce))
	})
	for handle, want := range map[string]string{"shared": "", "mixed": "", "single": "once", "absent": ""} {
		if got, err := c.SingleNodePV(t.Context(), handle, handle+".main"); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", handle, got, err, want)
		}
	}
	s.Put(volumes, pv("new", driver, "fresh", corev1.ReadWriteOnce))
	if got, err := c.SingleNodePV(t.Context(), "fresh.main", "fresh"); err != nil || got != "new" {
		t.Errorf("a PV that has just come: %q, %v", got, err)
	}
}

func TestNodeIDs(t *testing.T) {
	long := strings.Repeat("worker", 20)
	c, _ := start(t, func(s *kubetest.Server) {
		s.Put(nodes, csiNode("n1", "n1"))
		s.Put(nodes, csiNode("n2", long))
	})
	got := c.NodeIDs([]string{"n1", rds.NodeKey(long), "gone"})
	if diff := cmp.Diff([]string{"n1", long, "gone"}, got); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
}

func TestAttachedNodesGivesUpWithItsCaller(t *testing.T) {
	c, s := start(t, nil)
	gate := make(chan struct{})
	defer close(gate)
	s.Fail(func(*http.Request) int { <-gate; return 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := c.AttachedNodes(ctx, "h"); err == nil {
		t.Error("no error")
	}
}
