package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/cmd/internal/rdsdriver"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
)

// cluster is the API server, read through a cache with the operator's own indexes, so
// that the operator's decisions can be made here on the same view.
type cluster struct {
	gather    *gather.Gatherer
	cache     cache.Cache
	live      client.Reader
	namespace string              // empty: all
	kubevirt  bool                // KubeVirt is installed
	driver    *v1alpha1.RDSDriver // nil: none
	limits    dualattach.Limits   // the RDSDriver's, or the operator's defaults
}

// connect begins to read the namespace that the flags name. The context that it returns
// ends with the first read that fails, for the reason that reason tells.
func (o *options) connect(ctx context.Context) (context.Context, *cluster, error) {
	namespace, err := o.namespace()
	if err != nil {
		return ctx, nil, err
	}
	config, err := o.kube.ToRESTConfig()
	if err != nil {
		return ctx, nil, err
	}
	config.QPS, config.Burst = 50, 100 // what kubectl allows itself
	mapper, err := o.kube.ToRESTMapper()
	if err != nil {
		return ctx, nil, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, kubevirtv1.AddToScheme, v1alpha1.AddToScheme} {
		utilruntime.Must(add(scheme))
	}
	live, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return ctx, nil, err
	}
	c := &cluster{live: live, namespace: namespace, limits: dualattach.DefaultLimits()}
	if err := c.readDriver(ctx); err != nil {
		return ctx, nil, err
	}
	if c.kubevirt, err = served(mapper, &kubevirtv1.VirtualMachineInstanceMigration{}, scheme); err != nil {
		return ctx, nil, err
	}
	ctx, fail := context.WithCancelCause(ctx)
	settings := cache.Options{Scheme: scheme, Mapper: mapper, DefaultTransform: gather.Slim, DefaultWatchErrorHandler: failures(fail)}
	if namespace != "" {
		settings.DefaultNamespaces = map[string]cache.Config{namespace: {}}
	}
	if c.cache, err = cache.New(config, settings); err != nil {
		return ctx, nil, err
	}
	c.gather = &gather.Gatherer{Client: c.cache, Driver: o.driverName, Views: gather.Arrays{}}
	return ctx, c, c.start(ctx, fail)
}

// start begins to fill the cache and waits until it can be asked.
func (c *cluster) start(ctx context.Context, fail context.CancelCauseFunc) error {
	if err := gather.AddIndexes(ctx, c.cache); err != nil {
		return reason(ctx, err)
	}
	if c.kubevirt {
		if err := gather.AddMigrationIndexes(ctx, c.cache); err != nil {
			return reason(ctx, err)
		}
	}
	go func() {
		if err := c.cache.Start(ctx); err != nil {
			fail(err)
		}
	}()
	if !c.cache.WaitForCacheSync(ctx) {
		return reason(ctx, errors.New("the cluster could not be read"))
	}
	return nil
}

// failures ends everything when something cannot be read. A watch that has merely
// ended is taken up again.
func failures(fail context.CancelCauseFunc) toolscache.WatchErrorHandlerWithContext {
	return func(_ context.Context, _ *toolscache.Reflector, err error) {
		if errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return
		}
		fail(err)
	}
}

// reason is why the context has ended, if it has: the error that came of it says less.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// readDriver reads the RDSDriver, which says which arrays there are and what may take
// how long. Without one the operator's defaults are taken.
func (c *cluster) readDriver(ctx context.Context) error {
	var list v1alpha1.RDSDriverList
	switch err := c.live.List(ctx, &list); {
	case meta.IsNoMatchError(err):
		return nil
	case err != nil:
		return fmt.Errorf("read the RDSDriver: %w", err)
	}
	if len(list.Items) > 0 {
		c.driver = &list.Items[0]
		c.limits = rdsdriver.Limits(c.limits, c.driver.Spec.Deadlines)
	}
	return nil
}

// served reports whether the API server knows an object's kind.
func served(mapper meta.RESTMapper, object client.Object, scheme *runtime.Scheme) (bool, error) {
	kinds, _, err := scheme.ObjectKinds(object)
	if err != nil {
		return false, err
	}
	_, err = mapper.RESTMapping(kinds[0].GroupKind(), kinds[0].Version)
	if meta.IsNoMatchError(err) {
		return false, nil
	}
	return err == nil, err
}

// requireKubeVirt is an error without KubeVirt.
func (c *cluster) requireKubeVirt() error {
	if !c.kubevirt {
		return errors.New("KubeVirt is not installed in this cluster: it has no kind VirtualMachineInstanceMigration")
	}
	return nil
}

// unexplainedLimits are those for attachments.
func (c *cluster) unexplainedLimits() unexplained.Limits {
	return unexplained.Limits{Settle: unexplained.DefaultSettle, Release: c.limits.Release, ReleaseNotReady: c.limits.ReleaseNotReady}
}

// changes tells of everything that is watched and may change what is printed about
// migrations; several changes may be told at once.
func (c *cluster) changes(ctx context.Context) (<-chan struct{}, error) {
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	for _, kind := range []client.Object{&kubevirtv1.VirtualMachineInstanceMigration{}, &kubevirtv1.VirtualMachineInstance{},
		&corev1.Pod{}, &storagev1.VolumeAttachment{}} {
		informer, err := c.cache.GetInformer(ctx, kind)
		if err != nil {
			return nil, reason(ctx, err)
		}
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { tell() }, UpdateFunc: func(any, any) { tell() }, DeleteFunc: func(any) { tell() },
		}); err != nil {
			return nil, err
		}
	}
	return changed, nil
}
