package kube

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

func ownedPod(name, apiVersion, kind, owner, uid string, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{}}}
	if kind != "" {
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: owner, UID: types.UID(uid), Controller: ptr.To(true)}}
	}
	for _, f := range change {
		f(pod)
	}
	return pod
}

// vmPod is a launcher of the first life of a VMI.
func vmPod(name, vmi string, change ...func(*corev1.Pod)) *corev1.Pod {
	return ownedPod(name, "kubevirt.io/v1", "VirtualMachineInstance", vmi, "uid-"+vmi, change...)
}

func hpPod(launcher string, change ...func(*corev1.Pod)) *corev1.Pod {
	return ownedPod("hp-volume-"+launcher, "v1", "Pod", launcher, "uid-"+launcher, change...)
}

func migrating(uid string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Labels[kubevirtv1.MigrationJobLabel] = uid }
}

func deleting(pod *corev1.Pod) { pod.DeletionTimestamp = ptr.To(metav1.Now()) }

func secondLife(pod *corev1.Pod) { pod.OwnerReferences[0].UID = "uid-second-life" }

func failed(pod *corev1.Pod) { pod.Status.Phase = corev1.PodFailed }

func elsewhere(pod *corev1.Pod) { pod.Spec.NodeName = "node-c" }

func migrationOf(vmi string, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) *kubevirtv1.VirtualMachineInstanceMigration {
	return &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "move", UID: "m"},
		Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: vmi},
		Status:     kubevirtv1.VirtualMachineInstanceMigrationStatus{Phase: phase},
	}
}

// node-b asks for a volume that node-a holds.
func TestDecide(t *testing.T) {
	type pods = []*corev1.Pod
	running := migrationOf("web", kubevirtv1.MigrationScheduling)
	abroad := migrationOf("web", kubevirtv1.MigrationScheduling)
	abroad.Namespace = "other"
	source, target := vmPod("old", "web"), vmPod("new", "web", migrating("m"))
	const inUse = "in use by pod shop/old on node node-a"
	for name, test := range map[string]struct {
		there, here, others pods
		migration           *kubevirtv1.VirtualMachineInstanceMigration
		unserved            bool
		want                []string // that the refusal mentions; none: granted
	}{
		"target launcher":                       {there: pods{source}, here: pods{target}, migration: running},
		"before the migration has a phase":      {there: pods{source}, here: pods{target}, migration: migrationOf("web", "")},
		"target's hotplug pod":                  {there: pods{hpPod("old")}, here: pods{hpPod("new")}, others: pods{source, target}, migration: running},
		"source was itself once a target":       {there: pods{vmPod("old", "web", migrating("earlier"))}, here: pods{target}, migration: running},
		"disk of the pod and hotplugged":        {there: pods{source, hpPod("old")}, here: pods{target, hpPod("new")}, migration: running},
		"source is going":                       {there: pods{vmPod("old", "web", deleting)}, here: pods{target}, migration: running},
		"label without a migration":             {there: pods{source}, here: pods{target}, want: []string{inUse, "pod shop/new on node node-b names", "does not exist"}},
		"label of another namespace's":          {there: pods{source}, here: pods{target}, migration: abroad, want: []string{inUse, "does not exist"}},
		"label on a pod of nobody's":            {there: pods{source}, here: pods{ownedPod("new", "", "", "", "", migrating("m"))}, migration: running, want: []string{inUse, "no virtual machine's"}},
		"label on a Job's pod":                  {there: pods{source}, here: pods{ownedPod("new", "batch/v1", "Job", "web", "uid-web", migrating("m"))}, migration: running, want: []string{inUse, "no virtual machine's"}},
		"owner of the right kind, wrong group":  {there: pods{source}, here: pods{ownedPod("new", "example.org/v1", "VirtualMachineInstance", "web", "uid-web", migrating("m"))}, migration: running, want: []string{inUse, "no virtual machine's"}},
		"label on a hotplug pod, launcher gone": {there: pods{source}, here: pods{hpPod("new", migrating("m"))}, migration: running, want: []string{inUse, "no virtual machine's"}},
		"label on the hotplug pod only":         {there: pods{source}, here: pods{hpPod("new", migrating("m"))}, others: pods{vmPod("new", "web")}, migration: running, want: []string{inUse, "not the target"}},
		"hotplug pod, launcher on another node": {there: pods{source}, here: pods{hpPod("new")}, others: pods{vmPod("new", "web", migrating("m"), elsewhere)}, migration: running, want: []string{inUse, "no virtual machine's"}},
		"hotplug pod by owner, not by name":     {there: pods{source}, here: pods{ownedPod("mine", "v1", "Pod", "new", "uid-new")}, others: pods{target}, migration: running, want: []string{inUse, "no virtual machine's"}},
		"no label":                              {there: pods{source}, here: pods{vmPod("new", "web")}, migration: running, want: []string{inUse, "not the target"}},
		"migration succeeded":                   {there: pods{source}, here: pods{target}, migration: migrationOf("web", kubevirtv1.MigrationSucceeded), want: []string{inUse, "move", "has ended (Succeeded)"}},
		"migration failed":                      {there: pods{source}, here: pods{target}, migration: migrationOf("web", kubevirtv1.MigrationFailed), want: []string{inUse, "has ended (Failed)"}},
		"migration of another VMI":              {there: pods{source}, here: pods{target}, migration: migrationOf("mail", kubevirtv1.MigrationRunning), want: []string{inUse, "another virtual machine (mail)"}},
		"target is being deleted":               {there: pods{source}, here: pods{vmPod("new", "web", migrating("m"), deleting)}, migration: running, want: []string{inUse, "pod shop/new on node node-b is being deleted"}},
		"target launcher has ended":             {there: pods{source}, here: pods{hpPod("new")}, others: pods{vmPod("new", "web", migrating("m"), failed)}, migration: running, want: []string{inUse, "is being deleted"}},
		"holder is of a different VM":           {there: pods{vmPod("old", "mail")}, here: pods{target}, migration: running, want: []string{inUse, "not a pod of the migrating VirtualMachineInstance shop/web"}},
		"holder is of an earlier life":          {there: pods{vmPod("old", "web", secondLife)}, here: pods{target}, migration: running, want: []string{inUse, "not a pod of the migrating"}},
		"holder is a hotplug pod of another VM": {there: pods{hpPod("old")}, here: pods{target}, others: pods{vmPod("old", "mail")}, migration: running, want: []string{"shop/hp-volume-old on node node-a", "not a pod of the migrating"}},
		"a stranger beside the source":          {there: pods{source, ownedPod("x", "", "", "", "")}, here: pods{target}, migration: running, want: []string{"in use by pod shop/x on node node-a"}},
		"a stranger beside the target":          {there: pods{source}, here: pods{ownedPod("x", "", "", "", ""), target}, migration: running, want: []string{inUse, "pod shop/x on node node-b"}},
		"holder's pod is gone":                  {here: pods{vmPod("new", "web")}, want: []string{"node-a is still releasing it (its pod is gone)", "node-b gets it"}},
		"holder's pod is gone, migrating":       {here: pods{target}, migration: running, want: []string{"still releasing"}},
		"holder's pod is going":                 {there: pods{vmPod("old", "web", deleting)}, here: pods{vmPod("new", "web", secondLife)}, want: []string{inUse + " (being deleted)"}},
		"clone pods on two nodes":               {there: pods{ownedPod("clone-1", "cdi.kubevirt.io/v1beta1", "DataVolume", "a", "uid-a")}, here: pods{ownedPod("clone-2", "cdi.kubevirt.io/v1beta1", "DataVolume", "b", "uid-b")}, want: []string{"in use by pod shop/clone-1 on node node-a", "wait until that pod has ended"}},
		"nobody asks":                           {there: pods{source}, migration: running, want: []string{inUse, "no pod on node node-b uses it"}},
		"migrations are not served":             {there: pods{source}, here: pods{target}, unserved: true, want: []string{inUse, "serves no VirtualMachineInstanceMigration"}},
		"not served, holder's pod is gone":      {here: pods{target}, unserved: true, want: []string{"still releasing"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sharing{node: "node-b", holder: "node-a", here: test.here, there: test.there, unserved: test.unserved,
				pods: map[types.UID]*corev1.Pod{}, migrations: map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration{}}
			for _, some := range []pods{test.here, test.there, test.others} {
				for _, pod := range some {
					s.pods[pod.UID] = pod
				}
			}
			if test.migration != nil {
				s.migrations[test.migration.UID] = test.migration
			}
			err := s.decide()
			if (err == nil) != (test.want == nil) || err != nil && !errors.Is(err, rds.ErrInUse) {
				t.Fatalf("%v, want %q", err, test.want)
			}
			for _, text := range test.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not mention %q", err, text)
				}
			}
		})
	}
}

func TestUses(t *testing.T) {
	pod := ownedPod("p", "", "", "", "", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{
			{Name: "none", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "disk", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
			{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
		}
	})
	for claim, want := range map[types.NamespacedName]bool{
		{Namespace: "shop", Name: "claim"}: true, {Namespace: "shop", Name: "p-scratch"}: true,
		{Namespace: "other", Name: "claim"}: false, {Namespace: "shop", Name: "disk"}: false, {Namespace: "shop"}: false,
	} {
		if got := uses(pod, map[types.NamespacedName]bool{claim: true}); got != want {
			t.Errorf("%s: %t", claim, got)
		}
	}
}
