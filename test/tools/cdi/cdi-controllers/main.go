// Command cdi-controllers runs those of CDI's controllers that decide what claims of a
// storage class look like and that import: CDIConfig, StorageProfile, DataVolume,
// the import populator and the importer's pods. They are CDI's own. CDI's own main is
// not, because it reads keys at paths that only its pod has, for uploads and
// clones; those controllers are left out.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v6/apis/volumesnapshot/v1"
	ocpconfigv1 "github.com/openshift/api/config/v1"
	routev1 "github.com/openshift/api/route/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	extv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	cdiv1 "kubevirt.io/containerized-data-importer-api/pkg/apis/core/v1beta1"
	forklift "kubevirt.io/containerized-data-importer-api/pkg/apis/forklift/v1beta1"
	"kubevirt.io/containerized-data-importer/pkg/common"
	"kubevirt.io/containerized-data-importer/pkg/controller"
	"kubevirt.io/containerized-data-importer/pkg/controller/datavolume"
	"kubevirt.io/containerized-data-importer/pkg/controller/populators"
	metrics "kubevirt.io/containerized-data-importer/pkg/monitoring/metrics/cdi-controller"
	"kubevirt.io/containerized-data-importer/pkg/util"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, "cdi-controllers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig string) error {
	logf.SetLogger(zap.New())
	if err := metrics.SetupMetrics(); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, cdiv1.AddToScheme, extv1.AddToScheme, snapshotv1.AddToScheme,
		forklift.AddToScheme, ocpconfigv1.Install, routev1.Install,
	} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 100, 200
	mgr, err := manager.New(config, manager.Options{Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Cache: cache.Options{ByObject: ownNamespace()}})
	if err != nil {
		return err
	}
	if err := addControllers(ctx, mgr); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// ownNamespace is where CDI may look for these kinds, and nowhere else.
func ownNamespace() map[client.Object]cache.ByObject {
	kinds := map[client.Object]cache.ByObject{}
	for _, kind := range []client.Object{&networkingv1.Ingress{}, &batchv1.CronJob{}, &batchv1.Job{}, &corev1.ConfigMap{}, &corev1.Secret{}} {
		kinds[kind] = cache.ByObject{Namespaces: map[string]cache.Config{util.GetNamespace(): {}}}
	}
	return kinds
}

func addControllers(ctx context.Context, mgr manager.Manager) error {
	const image, pull = "cdi-importer", common.DefaultPullPolicy
	log, labels := logf.Log, map[string]string{}
	if err := datavolume.CreateCommonIndexes(mgr); err != nil {
		return err
	}
	if err := populators.CreateCommonPopulatorIndexes(mgr); err != nil {
		return err
	}
	if _, err := controller.NewConfigController(mgr, log, "cdi-uploadproxy", common.ConfigName, labels); err != nil {
		return err
	}
	if _, err := controller.NewStorageProfileController(mgr, log, labels); err != nil {
		return err
	}
	if _, err := datavolume.NewImportController(ctx, mgr, log, labels); err != nil {
		return err
	}
	if _, err := controller.NewImportController(mgr, log, image, pull, "1", labels); err != nil {
		return err
	}
	_, err := populators.NewImportPopulator(ctx, mgr, log, labels)
	return err
}
