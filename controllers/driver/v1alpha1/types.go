package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RDSDriver deploys the CSI plugin for ROSE Data Servers, and tells the operator
// which arrays there are. There is one per cluster, named after the CSI driver.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=rdsdrivers,singular=rdsdriver,shortName=rds,categories={storage}
// +kubebuilder:printcolumn:name="Available",type=string,JSONPath=`.status.conditions[?(@.type=="Available")].status`
// +kubebuilder:printcolumn:name="Degraded",type=string,JSONPath=`.status.conditions[?(@.type=="Degraded")].status`
// +kubebuilder:printcolumn:name="Arrays",type=string,JSONPath=`.status.arraysReachable`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Degraded")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'rds.csi.srvlab.io'",message="there is one RDSDriver per cluster, and its name is that of the CSI driver: rds.csi.srvlab.io"
type RDSDriver struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says which arrays there are and what to make of them.
	Spec RDSDriverSpec `json:"spec"`
	// status says what the operator found and did.
	// +optional
	Status RDSDriverStatus `json:"status,omitempty"`
}

// RDSDriverList is what a list request answers.
//
// +kubebuilder:object:root=true
type RDSDriverList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RDSDriver `json:"items"`
}

// RDSDriverSpec is what an administrator wants.
//
// +kubebuilder:validation:XValidation:rule="size(self.arrays) == 1 || has(self.defaultArray)",message="with several arrays, defaultArray names the one that volumes without an array in their handle are on"
// +kubebuilder:validation:XValidation:rule="!has(self.defaultArray) || self.arrays.exists(a, a.name == self.defaultArray)",message="defaultArray names none of the arrays"
// +kubebuilder:validation:XValidation:rule="(has(self.defaultArray) ? self.defaultArray : self.arrays[0].name) == (has(oldSelf.defaultArray) ? oldSelf.defaultArray : oldSelf.arrays[0].name)",message="the default array cannot be another one: volumes whose handle names no array are on it; choose an array for new volumes in a storage class"
// +kubebuilder:validation:XValidation:rule="!has(self.storageClasses) || self.storageClasses.all(c, !has(c.array) || self.arrays.exists(a, a.name == c.array))",message="a storage class names an array that is not listed in arrays"
type RDSDriverSpec struct {
	// arrays are the ROSE Data Servers. Removing one makes its volumes unreachable to
	// the plugin; their data stays.
	//
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Arrays []Array `json:"arrays"`

	// defaultArray is the array of volumes whose handle names none. It may be left out
	// if there is one array only, and it never changes.
	//
	// +optional
	DefaultArray string `json:"defaultArray,omitempty"`

	// storageClasses are made and kept by the operator.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.filter(c, has(c.isDefault) && c.isDefault).size() <= 1",message="at most one storage class is the cluster's default"
	StorageClasses []StorageClass `json:"storageClasses,omitempty"`

	// snapshotClass is the name of the VolumeSnapshotClass to make, where the cluster
	// has the kind. Empty: none.
	//
	// +optional
	// +kubebuilder:default="rds"
	// +kubebuilder:validation:MaxLength=253
	SnapshotClass *string `json:"snapshotClass,omitempty"`

	// deadlines bound what migrations may take where neither the VMI nor the storage
	// class nor KubeVirt says so.
	//
	// +optional
	Deadlines Deadlines `json:"deadlines,omitzero"`

	// images replace those that the operator was released with.
	//
	// +optional
	Images Images `json:"images,omitzero"`

	// monitoring makes a ServiceMonitor and alerts, where the cluster has the
	// Prometheus operator's kinds.
	//
	// +optional
	Monitoring Monitoring `json:"monitoring,omitzero"`

	// controller says where the plugin's controller runs.
	//
	// +optional
	Controller Placement `json:"controller,omitzero"`

	// node says on which nodes volumes can be used. By default all Linux nodes, taints
	// tolerated.
	//
	// +optional
	Node Placement `json:"node,omitzero"`

	// logLevel of the plugin: 0 says what changed, 1 why as well.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	LogLevel int32 `json:"logLevel,omitempty"`
}

// Array is one ROSE Data Server (RouterOS 7.21 or later).
type Array struct {
	// name is part of the handles of the array's volumes and never changes.
	//
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="an array's name is of lower-case letters, digits and dashes"
	Name string `json:"name"`

	// address is the host name or IP address of the SSH service.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9A-Za-z.:-]+$')",message="an array's address is a host name or an IP address, without brackets; the port has a field of its own"
	Address string `json:"address"`

	// port of the SSH service.
	//
	// +optional
	// +kubebuilder:default=22
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// user who logs in; its group on the array has the policies ssh, read, write, test.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	User string `json:"user"`

	// keySecret is the Secret, in the operator's namespace, with the user's private key
	// (RSA or ed25519; RouterOS knows no ECDSA).
	KeySecret SecretKey `json:"keySecret"`

	// hostKeys pin the array: authorized_keys lines or SHA256:… fingerprints.
	//
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^(SHA256:[A-Za-z0-9+/]{43}|(ssh-rsa|ssh-ed25519) [A-Za-z0-9+/]+=*( .*)?)$'))",message="a host key is a fingerprint like SHA256:… or a line like \"ssh-ed25519 AAAA…\", as ssh-keyscan prints behind the address"
	HostKeys []string `json:"hostKeys"`

	// basePath is the directory of the images, such as raid10/k8s; its first part is the
	// pool's mount point.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^/?[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$')",message="basePath is a directory like raid10/k8s, of letters, digits, dot, dash and underscore"
	BasePath string `json:"basePath"`

	// nvme says where nodes connect to.
	NVMe NVMe `json:"nvme"`

	// reserve is what stays free on the pool.
	//
	// +optional
	Reserve *resource.Quantity `json:"reserve,omitempty"`
}

// SecretKey is one key of a Secret.
type SecretKey struct {
	// name of the Secret.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// key in the Secret.
	//
	// +optional
	// +kubebuilder:default=ssh-privatekey
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// NVMe says where an array's volumes are exported.
type NVMe struct {
	// addresses that nodes connect to; with several, a node connects to each of them.
	//
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.all(a, a.matches('^[0-9A-Za-z.:-]+$'))",message="an NVMe address is a host name or an IP address, without brackets and port"
	Addresses []string `json:"addresses"`
	// port of NVMe/TCP.
	//
	// +optional
	// +kubebuilder:default=4420
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
	// nqnPrefix of new exports' names.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^nqn\\\\.[0-9]{4}-[0-9]{2}\\\\.[A-Za-z0-9.-]+(:[A-Za-z0-9.:-]+)?$')",message="an NQN prefix is like nqn.2000-02.com.mikrotik"
	NQNPrefix string `json:"nqnPrefix,omitempty"`
}

// StorageClass is one class of volumes. What Kubernetes does not allow to change on a
// storage class makes the operator replace it; volumes are not touched by that.
type StorageClass struct {
	// name of the StorageClass.
	//
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')",message="a storage class's name is of lower-case letters, digits, dots and dashes"
	Name string `json:"name"`
	// array by name; empty: the default array.
	//
	// +optional
	Array string `json:"array,omitempty"`
	// isDefault makes it the cluster's default class.
	//
	// +optional
	IsDefault bool `json:"isDefault,omitempty"`
	// dualAttach says when a second node may hold a ReadWriteMany block volume: during a
	// live migration only, or always, for software that coordinates its writers itself.
	//
	// +optional
	// +kubebuilder:default=LiveMigration
	// +kubebuilder:validation:Enum=LiveMigration;Any
	DualAttach string `json:"dualAttach,omitempty"`
	// migrationTimeoutSeconds is how long a live migration may keep a volume on two
	// nodes. Without it KubeVirt's own budget counts.
	//
	// +optional
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=3600
	MigrationTimeoutSeconds *int32 `json:"migrationTimeoutSeconds,omitempty"`
	// fsType of volumes with a filesystem.
	//
	// +optional
	// +kubebuilder:default=ext4
	// +kubebuilder:validation:Enum=ext4;xfs
	FSType string `json:"fsType,omitempty"`
	// reclaimPolicy says what becomes of a volume when its claim is deleted.
	//
	// +optional
	// +kubebuilder:default=Delete
	// +kubebuilder:validation:Enum=Delete;Retain
	ReclaimPolicy corev1.PersistentVolumeReclaimPolicy `json:"reclaimPolicy,omitempty"`
	// volumeBindingMode says whether a volume is made at once or when a pod needs it.
	//
	// +optional
	// +kubebuilder:default=Immediate
	// +kubebuilder:validation:Enum=Immediate;WaitForFirstConsumer
	VolumeBindingMode storagev1.VolumeBindingMode `json:"volumeBindingMode,omitempty"`
	// parameters are added to the StorageClass as they are; see the README.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="!self.exists(k, k in ['array', 'dualAttach', 'migrationTimeoutSeconds', 'csi.storage.k8s.io/fstype'])",message="array, dualAttach, migrationTimeoutSeconds and fsType have fields of their own"
	Parameters map[string]string `json:"parameters,omitempty"`
}

// Deadlines of migrations; see the README on how they are found.
type Deadlines struct {
	// unbounded is how long a migration may take where KubeVirt sets no limit.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="deadlines.unbounded is a positive duration like 1h"
	Unbounded *metav1.Duration `json:"unbounded,omitempty"`
	// release is how long a Ready node may take to release a volume.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="deadlines.release is a positive duration like 3m"
	Release *metav1.Duration `json:"release,omitempty"`
	// releaseNotReady is the same for a node that is not Ready.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="deadlines.releaseNotReady is a positive duration like 7m"
	ReleaseNotReady *metav1.Duration `json:"releaseNotReady,omitempty"`
}

// Images of the plugin's pods; an empty one is the operator's own choice.
type Images struct {
	// +optional
	Plugin string `json:"plugin,omitempty"`
	// +optional
	Attacher string `json:"attacher,omitempty"`
	// +optional
	Provisioner string `json:"provisioner,omitempty"`
	// +optional
	Resizer string `json:"resizer,omitempty"`
	// +optional
	Snapshotter string `json:"snapshotter,omitempty"`
	// +optional
	NodeDriverRegistrar string `json:"nodeDriverRegistrar,omitempty"`
	// +optional
	LivenessProbe string `json:"livenessProbe,omitempty"`
}

// Monitoring of the operator and the plugin.
type Monitoring struct {
	// disabled leaves ServiceMonitors and alerts out.
	//
	// +optional
	Disabled bool `json:"disabled,omitempty"`
}

// Placement says where pods run.
type Placement struct {
	// nodeSelector is added to kubernetes.io/os=linux.
	//
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// tolerations replace the default ones.
	//
	// +optional
	// +listType=atomic
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
}

// The types of an RDSDriver's conditions.
const (
	// ConditionAvailable: volumes can be made, attached and used.
	ConditionAvailable = "Available"
	// ConditionProgressing: pods are being rolled out.
	ConditionProgressing = "Progressing"
	// ConditionDegraded: something needs an administrator.
	ConditionDegraded = "Degraded"
	// ConditionVMIWritable: timeouts show as conditions of VMIs.
	ConditionVMIWritable = "VMIConditionsWritable"
)

// RDSDriverStatus is what the operator found and did.
type RDSDriverStatus struct {
	// observedGeneration is the spec that this status is about.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Available, Progressing, Degraded, VMIConditionsWritable.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// arraysReachable is for reading: "1/2".
	//
	// +optional
	ArraysReachable string `json:"arraysReachable,omitempty"`
	// arrays as the operator last saw them.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	Arrays []ArrayStatus `json:"arrays,omitempty"`
}

// ArrayStatus is how an array was last seen.
type ArrayStatus struct {
	Name string `json:"name"`
	// reachable: the array answered the last poll.
	Reachable bool `json:"reachable"`
	// version of RouterOS.
	//
	// +optional
	Version string `json:"version,omitempty"`
	// size of the pool.
	//
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`
	// free space of the pool, rounded down to a hundredth of its size.
	//
	// +optional
	Free *resource.Quantity `json:"free,omitempty"`
	// message says what is wrong, in the array's own words.
	//
	// +optional
	Message string `json:"message,omitempty"`
}
