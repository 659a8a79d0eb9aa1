package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/gate"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

const (
	// Namespace is the product's own.
	Namespace = "rds-csi"
	// OperatorUser is who the API server sees when the operator asks.
	OperatorUser = "system:serviceaccount:" + Namespace + ":" + operatorAccount
	// PluginUser is who it sees when the plugin or a sidecar asks.
	PluginUser = "system:serviceaccount:" + Namespace + ":" + pluginAccount

	operatorAccount = "rds-csi-operator"
	pluginAccount   = "rds-csi-controller"

	// vmiConditionBinding is what the two bindings of config/components/vmi-condition
	// are called.
	vmiConditionBinding = "rds-csi-operator-vmi-condition"
)

// Options say what to run. The zero value is one array, one plugin, one operator.
type Options struct {
	Lab lab.Options
	// Race builds the product with the race detector.
	Race bool
	// Replicas is how many operators run; by default one.
	Replicas int
	// OperatorArgs and PluginArgs are added last, so they win.
	OperatorArgs, PluginArgs []string
	// WithoutVMICondition leaves config/components/vmi-condition out, as does a lab without
	// KubeVirt; GrantVMICondition can add it later.
	WithoutVMICondition bool
}

// Stack is the product at work on a lab.
type Stack struct {
	*lab.Cluster
	Array  *routeros.Server
	Plugin *lab.Process
	// PluginMetrics is the address of its metrics.
	PluginMetrics string
	// Sidecars are csi-attacher, csi-provisioner and csi-resizer, by name.
	Sidecars map[string]*lab.Process
	// Operators are the running replicas; any of them may lead.
	Operators []*Operator

	opts   Options
	root   string // of the checkout
	socket string

	operators int // ever started
}

// Operator is one replica.
type Operator struct {
	*lab.Process
	// Metrics and Health are the addresses of its endpoints.
	Metrics, Health string
}

// Start brings everything up and waits until the operator is ready.
func Start(ctx context.Context, opts Options) (*Stack, error) {
	if opts.Lab.Progress == nil {
		opts.Lab.Progress = func(string, ...any) {}
	}
	opts.Lab.WithProvisioner = true
	s := &Stack{opts: opts}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends everything.
func (s *Stack) Close() error {
	var errs []error
	if s.Cluster != nil {
		errs = append(errs, s.Cluster.Close())
	}
	if s.Array != nil {
		errs = append(errs, s.Array.Close())
	}
	return errors.Join(errs...)
}

func (s *Stack) start(ctx context.Context) error {
	root, err := checkout(ctx)
	if err != nil {
		return err
	}
	s.root = root
	if s.Cluster, err = lab.Start(ctx, s.opts.Lab); err != nil {
		return err
	}
	if err := s.CreateNamespace(ctx, Namespace); err != nil {
		return err
	}
	parts, partsCtx := errgroup.WithContext(ctx)
	parts.Go(func() error { return build(partsCtx, root, filepath.Join(s.Dir, "bin"), s.opts.Race) })
	parts.Go(func() error { return s.startArray() })
	parts.Go(func() error { return s.ApplyKustomize(partsCtx, filepath.Join(root, "config/rbac/operator")) })
	parts.Go(func() error { return s.ApplyKustomize(partsCtx, filepath.Join(root, "config/rbac/csi")) })
	if !s.opts.WithoutVMICondition && !s.opts.Lab.WithoutKubeVirt {
		parts.Go(func() error { return s.GrantVMICondition(partsCtx) })
	}
	parts.Go(func() error { return s.ApplyFile(partsCtx, filepath.Join(root, "config/csi/csidriver.yaml")) })
	parts.Go(func() error { return s.ApplyFile(partsCtx, filepath.Join(root, "config/samples/storageclasses.yaml")) })
	if err := parts.Wait(); err != nil {
		return err
	}
	if err := s.startPlugin(ctx); err != nil {
		return err
	}
	for range max(1, s.opts.Replicas) {
		if _, err := s.StartOperator(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Program is the path of one of the product's commands, as it was built for this stack.
func (s *Stack) Program(name string) string { return filepath.Join(s.Dir, "bin", name) }

// GrantVMICondition allows the operator to write conditions on VMIs.
func (s *Stack) GrantVMICondition(ctx context.Context) error {
	return s.ApplyKustomize(ctx, filepath.Join(s.root, "config/components/vmi-condition"))
}

// RevokeVMICondition takes that grant back.
func (s *Stack) RevokeVMICondition(ctx context.Context) error {
	name := metav1.ObjectMeta{Name: vmiConditionBinding}
	onWhat := &rbacv1.ClusterRoleBinding{ObjectMeta: name}
	name.Namespace = lab.KubeVirtNamespace
	asWhom := &rbacv1.RoleBinding{ObjectMeta: name}
	return errors.Join(client.IgnoreNotFound(s.Client.Delete(ctx, onWhat)), client.IgnoreNotFound(s.Client.Delete(ctx, asWhom)))
}

// startPlugin runs the CSI plugin's controller and the sidecars beside it, as the pod
// of config/csi would.
func (s *Stack) startPlugin(ctx context.Context) error {
	kubeconfig, err := s.KubeconfigFor(ctx, Namespace, pluginAccount)
	if err != nil {
		return err
	}
	metrics, err := s.FreePort()
	if err != nil {
		return err
	}
	s.PluginMetrics = fmt.Sprintf("127.0.0.1:%d", metrics)
	s.socket = filepath.Join(s.Dir, "csi.sock")
	args := []string{
		"--mode=controller", "--endpoint=unix://" + s.socket, "--kubeconfig=" + kubeconfig,
		"--arrays-file=" + s.arraysFile(csiUser), "--metrics-address=" + s.PluginMetrics, "--log-format=console",
	}
	s.Plugin, err = s.RunProcess("csi-plugin", s.Program("csi-plugin"), append(args, s.opts.PluginArgs...))
	if err != nil {
		return err
	}
	if err := s.startSidecars(ctx); err != nil {
		return err
	}
	s.opts.Lab.Progress("CSI plugin and its sidecars started")
	return nil
}

// OperatorOptions say how one operator runs. The zero value is as users run it.
type OperatorOptions struct {
	// Gate, if set, is where it finds the API server.
	Gate *gate.Gate
	// Restart starts it again when it ends unasked, as a kubelet would.
	Restart bool
	// Args are added last, so they win.
	Args []string
}

// StartOperator runs one more operator and waits until it is ready.
func (s *Stack) StartOperator(ctx context.Context, options ...OperatorOptions) (*Operator, error) {
	var o OperatorOptions
	if len(options) > 0 {
		o = options[0]
	}
	operator, err := s.newOperator(ctx, o)
	if err != nil {
		return nil, err
	}
	s.Operators = append(s.Operators, operator)
	return operator, s.WaitOperator(ctx, operator)
}

func (s *Stack) newOperator(ctx context.Context, options OperatorOptions) (*Operator, error) {
	kubeconfig, err := s.KubeconfigFor(ctx, Namespace, operatorAccount)
	if options.Gate != nil {
		kubeconfig, err = s.KubeconfigThrough(ctx, options.Gate, Namespace, operatorAccount)
	}
	if err != nil {
		return nil, err
	}
	o := &Operator{}
	for _, address := range []*string{&o.Metrics, &o.Health} {
		port, err := s.FreePort()
		if err != nil {
			return nil, err
		}
		*address = fmt.Sprintf("127.0.0.1:%d", port)
	}
	args := []string{
		"--kubeconfig=" + kubeconfig, "--arrays-file=" + s.arraysFile(watchUser), "--poll-interval=1s", "--lease-namespace=" + Namespace,
		"--metrics-bind-address=" + o.Metrics, "--health-probe-bind-address=" + o.Health, "--log-format=console", "--log-level=1",
	}
	args = append(append(args, s.opts.OperatorArgs...), options.Args...)
	run := s.RunProcess
	if options.Restart {
		run = s.RunRestarting
	}
	s.operators++
	o.Process, err = run(fmt.Sprintf("operator-%d", s.operators), s.Program("operator"), args)
	return o, err
}

// WaitOperator waits until an operator is ready.
func (s *Stack) WaitOperator(ctx context.Context, o *Operator) error {
	started := time.Now()
	err := s.WaitFor(ctx, "the operator to be ready", func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+o.Health+"/readyz", nil)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, nil // not listening yet
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK, nil
	})
	s.opts.Lab.Progress("operator ready after %s", time.Since(started).Round(100*time.Millisecond))
	return err
}

// Scrape reads the operator's metrics page.
func (o *Operator) Scrape(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+o.Metrics+"/metrics", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}
