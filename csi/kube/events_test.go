package kube

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/kube/kubetest"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Events are on the claim, whichever plugin made its volume; on the node only
// where there is no telling whose the volume is; and nowhere while nobody can be asked.
func TestVolumeEvents(t *testing.T) {
	const driver, foreign = "rds.csi.srvlab.io", "pvc-7d1f8c52-9a0e-4b57-8c39-1f2e3d4c5b6a"
	ours := "pvc-3c4e8a2e-0000-4000-8000-000000000001"
	api := kubetest.New(t)
	volume := func(name, driver, handle string) {
		api.Put("/api/v1/persistentvolumes", &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PersistentVolumeSpec{
				ClaimRef:               &corev1.ObjectReference{Namespace: "vms", Name: "claim-of-" + name, UID: "1"},
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle}},
			},
		})
	}
	volume(ours, driver, rds.SlotFor(ours)+".east")
	volume(foreign, driver, foreign)
	volume("taken", "another.driver", "taken")
	client, err := kubernetes.NewForConfig(api.Config())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := NewVolumeEvents(ctx, client, driver, "node-a")
	for _, handle := range []string{rds.SlotFor(ours) + ".east", foreign, "taken", "static"} {
		if err := events.Warn(ctx, handle, "VolumeInaccessible", "its device is gone"); err != nil {
			t.Error(err)
		}
	}
	want := map[string]string{"claim-of-" + ours: "vms", "claim-of-" + foreign: "vms", "node-a": "default"}
	deadline := time.After(10 * time.Second)
	var found []*corev1.Event
	for len(found) < 4 {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for events; there are %v", found)
		case <-time.After(10 * time.Millisecond):
		}
		found = nil
		for _, namespace := range []string{"vms", "default"} {
			for _, o := range api.Objects("/api/v1/namespaces/" + namespace + "/events") {
				found = append(found, o.(*corev1.Event))
			}
		}
	}
	for _, e := range found {
		if want[e.InvolvedObject.Name] != e.Namespace || e.Type != corev1.EventTypeWarning || e.Source.Host != "node-a" || !strings.Contains(e.Message, "its device is gone") {
			t.Errorf("event %+v", e)
		}
	}
	api.Fail(func(*http.Request) int { return http.StatusServiceUnavailable })
	if events.Note(ctx, foreign, "VolumeHealthy", "it is well again") == nil {
		t.Error("recorded, and nobody could be asked whose volume it is")
	}
}
