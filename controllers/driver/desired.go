package driver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"git.srvlab.io/whiskey/rds-csi-operator/config"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
)

const (
	// ManagedBy marks what is the operator's.
	ManagedBy      = "app.kubernetes.io/managed-by"
	managedByValue = "rds-csi-operator"
	// configHash on the pods rolls them out when the arrays or their keys change.
	configHash = "rds.csi.srvlab.io/config-hash"

	arraysName  = "rds-csi-arrays" // of the ConfigMap and of the pod's volume
	arraysMount = "/etc/rds-csi"
	arraysFile  = "arrays.yaml"
	pluginName  = "csi-plugin" // of the container, in both pods
	linuxLabel  = corev1.LabelOSStable
)

var kindStorageClass = storagev1.SchemeGroupVersion.WithKind("StorageClass")

// Kinds of others, which a cluster may or may not have.
var (
	kindSnapshotClass  = schema.GroupVersionKind{Group: "snapshot.storage.k8s.io", Version: "v1", Kind: "VolumeSnapshotClass"}
	kindStorageProfile = schema.GroupVersionKind{Group: "cdi.kubevirt.io", Version: "v1beta1", Kind: "StorageProfile"}
	kindServiceMonitor = schema.GroupVersionKind{Group: "monitoring.coreos.com", Version: "v1", Kind: "ServiceMonitor"}
	kindPrometheusRule = schema.GroupVersionKind{Group: "monitoring.coreos.com", Version: "v1", Kind: "PrometheusRule"}
)

// Optional are the kinds that are used where they are served.
var Optional = []schema.GroupVersionKind{kindSnapshotClass, kindStorageProfile, kindServiceMonitor, kindPrometheusRule}

// Facts are what Desired must know beside the resource.
type Facts struct {
	Namespace string          // the operator's own
	Images    v1alpha1.Images // those the operator was released with
	// Arrays is the plugin's arrays.yaml; the keys are at KeyPath. Secrets is what the
	// keys' contents hash to.
	Arrays, Secrets []byte
	Served          map[schema.GroupVersionKind]bool // of Optional
}

// KeyPath is where the plugin finds the key of an array.
func KeyPath(array string) string { return path.Join(arraysMount, "keys", array) }

// Desired is all that there should be for a driver, in the order in which it is made.
func Desired(d *v1alpha1.RDSDriver, f Facts) ([]*unstructured.Unstructured, error) {
	controller, err := controllerPods(d, f)
	if err != nil {
		return nil, err
	}
	node, err := nodePods(d, f)
	if err != nil {
		return nil, err
	}
	csiDriver := &storagev1.CSIDriver{}
	if err := manifest("csidriver.yaml", csiDriver); err != nil {
		return nil, err
	}
	typed := []runtime.Object{csiDriver, arraysConfig(f), controller, node}
	for i := range d.Spec.StorageClasses {
		typed = append(typed, storageClass(&d.Spec.StorageClasses[i], d.Name))
	}
	var all []*unstructured.Unstructured
	for _, object := range typed {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err != nil {
			return nil, fmt.Errorf("convert a %T: %w", object, err)
		}
		delete(content, "status")
		all = append(all, &unstructured.Unstructured{Object: content})
	}
	monitoring, err := monitoringObjects(d, f)
	if err != nil {
		return nil, err
	}
	all = slices.Concat(all, foreignStorage(d, f), monitoring)
	for _, object := range all {
		unstructured.RemoveNestedField(object.Object, "metadata", "creationTimestamp")
		if object.GroupVersionKind() == kindStorageProfile {
			continue // CDI's own object; we set one field of it
		}
		labels := object.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[ManagedBy] = managedByValue
		object.SetLabels(labels)
	}
	return all, nil
}

// manifest reads one of the plugin's manifests into object.
func manifest(name string, object any) error {
	data, err := config.CSI.ReadFile("csi/" + name)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(data, object); err != nil {
		return fmt.Errorf("manifest %s: %w", name, err)
	}
	return nil
}

func arraysConfig(f Facts) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: arraysName, Namespace: f.Namespace},
		Data:       map[string]string{arraysFile: string(f.Arrays)},
	}
}

func controllerPods(d *v1alpha1.RDSDriver, f Facts) (*appsv1.Deployment, error) {
	w := &appsv1.Deployment{}
	if err := manifest("controller.yaml", w); err != nil {
		return nil, err
	}
	if snapshots(d, f) {
		if err := addSnapshotter(w); err != nil {
			return nil, err
		}
	}
	w.Namespace = f.Namespace
	finishPods(&w.Spec.Template, d, f, d.Spec.Controller)
	w.Spec.Template.Annotations[configHash] = hash(f.Arrays, f.Secrets)
	return w, replaceArrays(&w.Spec.Template.Spec, d)
}

// snapshots reports whether the cluster has snapshots and the driver is to offer them.
func snapshots(d *v1alpha1.RDSDriver, f Facts) bool {
	return ptr.Deref(d.Spec.SnapshotClass, "") != "" && f.Served[kindSnapshotClass]
}

// addSnapshotter patches csi-snapshotter in, which does not start where its kinds are
// not served.
func addSnapshotter(w *appsv1.Deployment) error {
	before, err := json.Marshal(w)
	if err != nil {
		return err
	}
	patch, err := yaml.YAMLToJSON(config.Snapshotter)
	if err != nil {
		return fmt.Errorf("patch with csi-snapshotter: %w", err)
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, appsv1.Deployment{})
	if err != nil {
		return fmt.Errorf("patch with csi-snapshotter: %w", err)
	}
	*w = appsv1.Deployment{}
	return json.Unmarshal(after, w)
}

func nodePods(d *v1alpha1.RDSDriver, f Facts) (*appsv1.DaemonSet, error) {
	w := &appsv1.DaemonSet{}
	if err := manifest("node.yaml", w); err != nil {
		return nil, err
	}
	w.Namespace = f.Namespace
	finishPods(&w.Spec.Template, d, f, d.Spec.Node)
	return w, nil
}

// finishPods puts in what differs from one driver to the next.
func finishPods(t *corev1.PodTemplateSpec, d *v1alpha1.RDSDriver, f Facts, at v1alpha1.Placement) {
	images := chosenImages(d.Spec.Images, f.Images)
	for i := range t.Spec.Containers {
		c := &t.Spec.Containers[i]
		c.Image = images[c.Name]
		if c.Name == pluginName && d.Spec.LogLevel > 0 {
			c.Args = append(c.Args, fmt.Sprintf("--log-level=%d", d.Spec.LogLevel))
		}
	}
	selector := map[string]string{linuxLabel: "linux"}
	maps.Copy(selector, at.NodeSelector)
	t.Spec.NodeSelector = selector
	if at.Tolerations != nil {
		t.Spec.Tolerations = at.Tolerations
	}
}

// chosenImages are by the container's name.
func chosenImages(wanted, released v1alpha1.Images) map[string]string {
	or := func(wanted, released string) string {
		if wanted != "" {
			return wanted
		}
		return released
	}
	return map[string]string{
		pluginName:              or(wanted.Plugin, released.Plugin),
		"csi-attacher":          or(wanted.Attacher, released.Attacher),
		"csi-provisioner":       or(wanted.Provisioner, released.Provisioner),
		"csi-resizer":           or(wanted.Resizer, released.Resizer),
		"csi-snapshotter":       or(wanted.Snapshotter, released.Snapshotter),
		"node-driver-registrar": or(wanted.NodeDriverRegistrar, released.NodeDriverRegistrar),
		"livenessprobe":         or(wanted.LivenessProbe, released.LivenessProbe),
	}
}

// replaceArrays takes the arrays from the ConfigMap and the keys from their Secrets,
// instead of everything from one Secret.
func replaceArrays(spec *corev1.PodSpec, d *v1alpha1.RDSDriver) error {
	sources := []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: arraysName},
	}}}
	for _, a := range d.Spec.Arrays {
		sources = append(sources, corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: a.KeySecret.Name},
			Items:                []corev1.KeyToPath{{Key: a.KeySecret.Key, Path: path.Join("keys", a.Name)}},
		}})
	}
	at := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == "arrays" })
	if at < 0 {
		return fmt.Errorf("the manifest of the controller has no volume named arrays")
	}
	spec.Volumes[at].VolumeSource = corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: sources, DefaultMode: ptr.To[int32](0o440),
	}}
	return nil
}

// hash is short, and tells nothing of what went into it.
func hash(parts ...[]byte) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
