package driver

import (
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
)

const defaultClassAnnotation = "storageclass.kubernetes.io/is-default-class"

func storageClass(c *v1alpha1.StorageClass, driver string) *storagev1.StorageClass {
	parameters := maps.Clone(c.Parameters)
	if parameters == nil {
		parameters = map[string]string{}
	}
	set := func(key, value string) {
		if value != "" {
			parameters[key] = value
		}
	}
	set("array", c.Array)
	set("dualAttach", c.DualAttach)
	set("csi.storage.k8s.io/fstype", c.FSType)
	if c.MigrationTimeoutSeconds != nil {
		set("migrationTimeoutSeconds", strconv.Itoa(int(*c.MigrationTimeoutSeconds)))
	}
	return &storagev1.StorageClass{
		TypeMeta: metav1.TypeMeta{APIVersion: storagev1.SchemeGroupVersion.String(), Kind: "StorageClass"},
		ObjectMeta: metav1.ObjectMeta{Name: c.Name, Annotations: map[string]string{
			defaultClassAnnotation: strconv.FormatBool(c.IsDefault),
		}},
		Provisioner:          driver,
		Parameters:           parameters,
		ReclaimPolicy:        ptr.To(c.ReclaimPolicy),
		VolumeBindingMode:    ptr.To(c.VolumeBindingMode),
		AllowVolumeExpansion: ptr.To(true),
	}
}

// foreignStorage is what others' storage kinds should say, where they are served.
func foreignStorage(d *v1alpha1.RDSDriver, f Facts) []*unstructured.Unstructured {
	var all []*unstructured.Unstructured
	if snapshots(d, f) {
		class := newObject(kindSnapshotClass, "", *d.Spec.SnapshotClass)
		class.Object["driver"] = d.Name
		class.Object["deletionPolicy"] = "Delete"
		all = append(all, class)
	}
	if !f.Served[kindStorageProfile] {
		return all
	}
	for _, c := range d.Spec.StorageClasses {
		profile := newObject(kindStorageProfile, "", c.Name)
		profile.Object["spec"] = map[string]any{"claimPropertySets": claimProperties()}
		all = append(all, profile)
	}
	return all
}

// claimProperties tell CDI, and KubeVirt for its own claims, what claims of our
// classes can be, the best for a VM first. Without them CDI gives an unknown
// provisioner's claims no access modes at all.
func claimProperties() []any {
	set := func(mode corev1.PersistentVolumeAccessMode, volume corev1.PersistentVolumeMode) any {
		return map[string]any{"accessModes": []any{string(mode)}, "volumeMode": string(volume)}
	}
	return []any{
		set(corev1.ReadWriteMany, corev1.PersistentVolumeBlock),
		set(corev1.ReadWriteOnce, corev1.PersistentVolumeBlock),
		set(corev1.ReadWriteOnce, corev1.PersistentVolumeFilesystem),
	}
}

func newObject(kind schema.GroupVersionKind, namespace, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(kind)
	u.SetNamespace(namespace)
	u.SetName(name)
	return u
}
