package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/clock"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/attachment"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/migration"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmireport"
)

// kubevirtPoll is how often a cluster without KubeVirt is asked whether it has it by now.
const kubevirtPoll = 10 * time.Second

// observedMarker stands for "some array was observed"; the controller looks at
// its own table, not at the object.
var observedMarker = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "observed"}}

// kubevirtStarter starts KubeVirt's controllers when its kinds are served: at
// once, or whenever KubeVirt is installed.
type kubevirtStarter struct {
	mgr      manager.Manager
	options  Options
	gather   *gather.Gatherer
	observed <-chan event.GenericEvent
	settings *settings
	lastRun  func() time.Time
	// attachments is the other reconciler, part of which takes KubeVirt.
	attachments *attachment.Reconciler
	// migrations is set once there is KubeVirt.
	migrations atomic.Pointer[migration.Reconciler]
}

// Migrating lists the nodes of the migrations under way that share a volume; none
// without KubeVirt.
func (k *kubevirtStarter) Migrating(volume string) []string {
	if r := k.migrations.Load(); r != nil {
		return r.Migrating(volume)
	}
	return nil
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
		missing, err := missingKinds(kinds)
		if missing != "" && !told {
			told = true
			reason := missing + " is not served"
			if err != nil {
				reason = err.Error()
			}
			log.FromContext(ctx).Info("no KubeVirt yet; migrations are watched as soon as it is installed", "reason", reason)
		}
		return missing == "", nil
	})
	if err != nil {
		return nil // ctx ended
	}
	log.FromContext(ctx).Info("KubeVirt is served; migrations are watched by the leader")
	return k.addControllers(ctx, kinds)
}

// leading is a Runnable that notes when this process begins to lead. Controllers
// begin at the same time and may note it first.
type leading func() time.Time

func (l leading) Start(context.Context) error { l(); return nil }

// missingKinds names the first of KubeVirt's kinds that are watched and not served,
// and why that is not known.
func missingKinds(kinds discovery.ServerResourcesInterface) (string, error) {
	list, err := kinds.ServerResourcesForGroupVersion(kubevirtv1.GroupVersion.String())
	if err != nil && !apierrors.IsNotFound(err) {
		return kubevirtv1.GroupVersion.String(), err
	}
	for _, kind := range []string{kubevirtv1.VirtualMachineInstanceGroupVersionKind.Kind, kubevirtv1.VirtualMachineInstanceMigrationGroupVersionKind.Kind} {
		if list == nil || !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == kind }) {
			return "the kind " + kind, nil
		}
	}
	return "", nil
}

func (k *kubevirtStarter) addControllers(ctx context.Context, kinds *discovery.DiscoveryClient) error {
	if err := gather.AddMigrationIndexes(ctx, k.mgr.GetFieldIndexer()); err != nil {
		return err
	}
	since := sync.OnceValue(time.Now)
	if err := k.mgr.Add(leading(since)); err != nil {
		return err
	}
	grant := vmireport.NewGrant(k.mgr.GetAPIReader(), k.mgr.GetClient(), kinds, k.options.PlainImpersonation, clock.RealClock{})
	speaker := vmireport.NewSpeaker(vmireport.NewWriter(grant, k.mgr.GetClient(), clock.RealClock{}, func(kubevirt string) (vmireport.ConditionWriter, error) {
		return vmicondition.NewWriter(k.mgr.GetConfig(), kubevirt, clock.RealClock{})
	}), clock.RealClock{})
	r := migration.New(k.gather, k.mgr.GetClient(), speaker, k.settings.limits, clock.RealClock{}, since, k.lastRun)
	k.migrations.Store(r)
	// The manager runs already, so a controller may ask for the grant once it is set up:
	// all who want to know of it say so before.
	forMigrations, forInstances := grant.Granted(), grant.Granted()
	grant.Observe(k.settings.setGrant)
	if err := r.SetupWithManager(k.mgr, k.observed, forMigrations); err != nil {
		return err
	}
	if err := k.attachments.Instances(speaker).SetupWithManager(k.mgr, forInstances); err != nil {
		return err
	}
	if err := k.mgr.Add(grant); err != nil {
		return err
	}
	return errors.Join(metrics.Registry.Register(report.LeaderOnly(k.mgr.Elected(), r.Collector())),
		metrics.Registry.Register(report.LeaderOnly(k.mgr.Elected(), speaker.Collector())))
}
