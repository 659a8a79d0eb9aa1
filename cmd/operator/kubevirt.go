package main

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/clock"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/migration"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// kubevirtPoll is how often a cluster without KubeVirt is asked whether it has it by now.
const kubevirtPoll = 10 * time.Second

// observedMarker stands for "some array was observed"; the controller looks at
// its own table, not at the object.
var observedMarker = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "observed"}}

// kubevirtStarter starts KubeVirt's controllers when its kinds are served: at
// once, or whenever KubeVirt is installed.
type kubevirtStarter struct {
	mgr     manager.Manager
	options Options
	arrays  *observedArrays
	limits  func() dualattach.Limits
}

// NeedLeaderElection is false: waiting for KubeVirt needs no Lease, the
// controllers do and wait for it themselves.
func (k *kubevirtStarter) NeedLeaderElection() bool { return false }

// Start waits for KubeVirt and adds the controllers.
func (k *kubevirtStarter) Start(ctx context.Context) error {
	kinds, err := discovery.NewDiscoveryClientForConfig(k.mgr.GetConfig())
	if err != nil {
		return err
	}
	told := false
	err = wait.PollUntilContextCancel(ctx, kubevirtPoll, true, func(context.Context) (bool, error) {
		list, err := kinds.ServerResourcesForGroupVersion(kubevirtv1.GroupVersion.String())
		served := err == nil && slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool {
			return r.Kind == kubevirtv1.VirtualMachineInstanceMigrationGroupVersionKind.Kind
		})
		if !served && !told {
			told = true
			reason := "the kind VirtualMachineInstanceMigration is not served"
			if err != nil && !apierrors.IsNotFound(err) {
				reason = err.Error()
			}
			log.FromContext(ctx).Info("no KubeVirt yet; migrations are watched as soon as it is installed", "reason", reason)
		}
		return served, nil
	})
	if err != nil {
		return nil // ctx ended
	}
	return k.addControllers(ctx)
}

func (k *kubevirtStarter) addControllers(ctx context.Context) error {
	if err := gather.AddIndexes(ctx, k.mgr.GetFieldIndexer()); err != nil {
		return err
	}
	g := &gather.Gatherer{Client: k.mgr.GetClient(), Driver: k.options.DriverName, Views: k.arrays}
	// The first reconcile runs when this process leads.
	since := sync.OnceValue(time.Now)
	instances := newInstanceWriter(k.mgr.GetAPIReader(), func(namespace string) (conditionWriter, error) {
		return vmicondition.NewWriter(k.mgr.GetConfig(), namespace, clock.RealClock{})
	})
	r := migration.New(g, k.mgr.GetClient(), instances, k.limits, clock.RealClock{}, since)
	if err := r.SetupWithManager(k.mgr, k.arrays.observed); err != nil {
		return err
	}
	return metrics.Registry.Register(report.LeaderOnly(k.mgr.Elected(), r.Collector()))
}
