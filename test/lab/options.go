package lab

import (
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/binaries"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pods"
)

// Options say what to start. The zero value is a whole cluster without nodes.
type Options struct {
	// WithoutKubeVirt leaves KubeVirt out; StartKubeVirt can add it later.
	WithoutKubeVirt bool
	// WithoutControllers leaves kube-controller-manager out, for tests that
	// need an API server only.
	WithoutControllers bool

	// WithProvisioner adds csi-provisioner and csi-resizer to what StartSidecar can
	// run.
	WithProvisioner bool

	// WithCDI adds CDI, as far as it decides what claims look like.
	WithCDI bool

	// Pods, if set, runs pods for real, as local processes, and adds the controllers of
	// Deployments, ReplicaSets and DaemonSets that make them.
	Pods *pods.Options

	// Nodes are the nodes to add.
	Nodes []string

	KubeVirt KubeVirtOptions

	// Dir keeps the lab's logs and files; by default a temporary folder
	// which Close removes.
	Dir string
	// Keep leaves the folder in place.
	Keep bool
	// Progress, if set, is told what happens, a line at a time.
	Progress func(format string, args ...any)
	// OnCrash, if set, is called when a process of the lab ends by itself.
	OnCrash func(error)

	// APIServerArgs and ControllerManagerArgs are added last, so they win.
	APIServerArgs         []string
	ControllerManagerArgs []string
}

// KubeVirtOptions configure KubeVirt.
type KubeVirtOptions struct {
	// ParallelMigrations and ParallelOutbound raise KubeVirt's limits of
	// migrations per cluster (5) and out of one node (2).
	ParallelMigrations uint32
	ParallelOutbound   uint32
	// FeatureGates are added to NodeRestriction.
	FeatureGates []string
	// ConfigurationYAML is laid over the KubeVirt CR's spec.configuration.
	ConfigurationYAML string
}

func (o Options) modules() []binaries.Module {
	modules := []binaries.Module{binaries.Etcd, binaries.Kubernetes}
	if !o.WithoutKubeVirt {
		modules = append(modules, binaries.KubeVirt)
	}
	if o.WithCDI {
		modules = append(modules, binaries.CDI)
	}
	if o.WithProvisioner {
		modules = append(modules, binaries.Provisioner)
	}
	return modules
}
