package lab

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestLabTwoPodsOnTwoNodes(t *testing.T) {
	ctx, c, ns := setUp(t)
	claim, err := c.CreateVolume(ctx, Volume{Namespace: ns, Claim: "shared"})
	if err != nil {
		t.Fatal(err)
	}
	pv := claim.Spec.VolumeName
	a, b := NewPod(ns, "a", "node-a", "shared"), NewPod(ns, "b", "node-b", "shared")
	for _, pod := range []*corev1.Pod{a, b} {
		if err := c.Client.Create(ctx, pod); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitPod(ctx, pod, corev1.PodRunning); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WaitAttached(ctx, pv, "node-a", "node-b"); err != nil {
		t.Fatal(err)
	}

	// One pod completes, the other is deleted.
	c.Node("node-a").Kubelet.Exit(a.UID, false)
	if err := c.WaitAttached(ctx, pv, "node-b"); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitPod(ctx, a, corev1.PodSucceeded); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Delete(ctx, b, client.GracePeriodSeconds(1)); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitAttached(ctx, pv); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitPod(ctx, b, ""); err != nil {
		t.Fatal(err)
	}
}
