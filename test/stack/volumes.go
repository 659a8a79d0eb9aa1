package stack

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
)

// The classes of config/samples.
const (
	// ClassImmediate makes volumes as soon as they are claimed.
	ClassImmediate = "rds"
	// ClassWait makes them when a pod needs them.
	ClassWait = "rds-wait"
)

// CreateClass makes a StorageClass of the driver that provisions at once.
func (s *Stack) CreateClass(ctx context.Context, name string, parameters map[string]string) error {
	return s.Client.Create(ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: lab.Driver, Parameters: parameters,
	})
}

// NewClaim is a claim of a shared block volume of 1 GiB, unless change says otherwise. The
// class "" is for the cluster's default.
func NewClaim(namespace, name, class string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	block := corev1.PersistentVolumeBlock
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}, VolumeMode: &block,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	if class != "" {
		claim.Spec.StorageClassName = &class
	}
	for _, f := range change {
		f(claim)
	}
	return claim
}

// Sized sets what a claim asks for.
func Sized(size string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
	}
}

// WaitBound waits until a claim is bound, and reads it.
func (s *Stack) WaitBound(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	key := client.ObjectKeyFromObject(claim)
	return s.WaitFor(ctx, fmt.Sprintf("claim %s to be bound", key), func(ctx context.Context) (bool, error) {
		err := s.Client.Get(ctx, key, claim)
		return claim.Status.Phase == corev1.ClaimBound, err
	})
}

// CreateRWXClaim claims a shared block volume and waits until csi-provisioner has
// made it. parameters, if there are any, are those of a class of the claim's own.
func (s *Stack) CreateRWXClaim(ctx context.Context, namespace, name string, parameters map[string]string) (*corev1.PersistentVolumeClaim, error) {
	class := ClassImmediate
	if len(parameters) > 0 {
		class = namespace + "-" + name
		if err := s.CreateClass(ctx, class, parameters); err != nil {
			return nil, err
		}
	}
	claim := NewClaim(namespace, name, class)
	if err := s.Client.Create(ctx, claim); err != nil {
		return nil, err
	}
	return claim, s.WaitBound(ctx, claim)
}
