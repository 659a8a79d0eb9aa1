package lab

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/binaries"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
)

// KubeVirtNamespace is where KubeVirt is installed; its programs look nowhere
// else when they do not run in a pod.
const KubeVirtNamespace = "kubevirt"

// StartKubeVirt installs KubeVirt's kinds, rights, webhooks and configuration,
// runs virt-api and virt-controller, and plays virt-handler on all nodes.
func (c *Cluster) StartKubeVirt(ctx context.Context) error {
	started := time.Now()
	bins, err := binaries.Ensure(ctx, c.progress, binaries.KubeVirt)
	if err != nil {
		return err
	}
	c.addBinaries(bins)
	objects, err := c.kubeVirtObjects(ctx)
	if err != nil {
		return err
	}
	webhooks, rest := partition(objects, func(o *unstructured.Unstructured) bool {
		return strings.HasSuffix(o.GetKind(), "WebhookConfiguration")
	})
	if err := c.apply(ctx, rest, c.createOne); err != nil {
		return err
	}
	if err := c.applyKubeVirtConfiguration(ctx); err != nil {
		return err
	}
	c.progress("KubeVirt's kinds ready after %s", since(started))
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.startVirtController(groupCtx) })
	group.Go(func() error {
		if err := c.startVirtAPI(groupCtx, webhooks); err != nil {
			return err
		}
		return c.startHandlers(groupCtx)
	})
	err = group.Wait()
	c.progress("KubeVirt ready after %s", since(started))
	return err
}

// kubeVirtObjects is what virt-operator would install.
func (c *Cluster) kubeVirtObjects(ctx context.Context) ([]*unstructured.Unstructured, error) {
	return c.manifests(ctx, KubeVirtNamespace, "manifests", KubeVirtNamespace)
}

// manifests are the objects that a generator prints, and their namespace.
func (c *Cluster) manifests(ctx context.Context, in, generator string, args ...string) ([]*unstructured.Unstructured, error) {
	path, err := c.binary(generator)
	if err != nil {
		return nil, err
	}
	output, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("manifests of %s: %w", in, err)
	}
	objects, err := parseYAML(string(output))
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		unstructured.RemoveNestedField(o.Object, "status")
		unstructured.RemoveNestedField(o.Object, "metadata", "creationTimestamp")
		if o.GetKind() == "CustomResourceDefinition" {
			stripDescriptions(o.Object["spec"])
		}
	}
	namespace := &unstructured.Unstructured{}
	namespace.SetAPIVersion("v1")
	namespace.SetKind("Namespace")
	namespace.SetName(in)
	return append(objects, namespace), nil
}

// stripDescriptions removes the prose from a schema: three quarters of it, which
// only cost the API server seconds at every start of a lab.
func stripDescriptions(in any) {
	switch in := in.(type) {
	case map[string]any:
		for key, value := range in {
			if _, prose := value.(string); prose && key == "description" {
				delete(in, key)
				continue
			}
			stripDescriptions(value)
		}
	case []any:
		for _, value := range in {
			stripDescriptions(value)
		}
	}
}

func partition(objects []*unstructured.Unstructured, in func(*unstructured.Unstructured) bool) (yes, no []*unstructured.Unstructured) {
	for _, o := range objects {
		if in(o) {
			yes = append(yes, o)
		} else {
			no = append(no, o)
		}
	}
	return yes, no
}

// applyKubeVirtConfiguration creates the KubeVirt CR and the CA that virt-api
// trusts virt-handlers by.
func (c *Cluster) applyKubeVirtConfiguration(ctx context.Context) error {
	o := c.opts.KubeVirt
	kv := &kubevirtv1.KubeVirt{
		TypeMeta:   metav1.TypeMeta{APIVersion: kubevirtv1.GroupVersion.String(), Kind: "KubeVirt"},
		ObjectMeta: metav1.ObjectMeta{Namespace: KubeVirtNamespace, Name: "kubevirt"},
	}
	kv.Spec.Configuration.DeveloperConfiguration = &kubevirtv1.DeveloperConfiguration{
		UseEmulation: true,
		FeatureGates: append([]string{"NodeRestriction"}, o.FeatureGates...),
	}
	kv.Spec.Configuration.MigrationConfiguration = &kubevirtv1.MigrationConfiguration{}
	if o.ParallelMigrations > 0 {
		kv.Spec.Configuration.MigrationConfiguration.ParallelMigrationsPerCluster = &o.ParallelMigrations
	}
	if o.ParallelOutbound > 0 {
		kv.Spec.Configuration.MigrationConfiguration.ParallelOutboundMigrationsPerNode = &o.ParallelOutbound
	}
	if err := yaml.Unmarshal([]byte(o.ConfigurationYAML), &kv.Spec.Configuration); err != nil {
		return fmt.Errorf("KubeVirtOptions.ConfigurationYAML: %w", err)
	}
	if err := c.Client.Create(ctx, kv); err != nil {
		return err
	}
	// KubeVirt's programs take no notice of a configuration that virt-operator has
	// not begun to deploy. It writes the architecture of VMIs that name none, too.
	kv.Status.Phase, kv.Status.DefaultArchitecture = kubevirtv1.KubeVirtPhaseDeployed, runtime.GOARCH
	if err := c.Client.Status().Update(ctx, kv); err != nil {
		return err
	}
	ca := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: KubeVirtNamespace, Name: "kubevirt-ca"},
		Data:       map[string]string{"ca-bundle": string(c.ca.PEM)},
	}
	return client.IgnoreAlreadyExists(c.Client.Create(ctx, ca))
}

// startVirtAPI runs virt-api and, once it listens, points the webhooks at it.
func (c *Cluster) startVirtAPI(ctx context.Context, webhooks []*unstructured.Unstructured) error {
	started := time.Now()
	kubeconfig, err := c.KubeconfigFor(ctx, KubeVirtNamespace, "kubevirt-apiserver")
	if err != nil {
		return err
	}
	serving, err := c.ca.IssueFiles("virt-api", "virt-api", nil)
	if err != nil {
		return err
	}
	handlerClient, err := c.ca.IssueFiles("virt-handler-client", "kubevirt.io:system:client:virt-handler", nil)
	if err != nil {
		return err
	}
	secure, err := c.port()
	if err != nil {
		return err
	}
	console, err := c.port()
	if err != nil {
		return err
	}
	virtAPI, err := c.runBinary("virt-api",
		"--kubeconfig="+kubeconfig, "--listen=127.0.0.1", "--port="+secure.String(),
		"--console-server-port="+console.String(),
		"--tls-cert-file="+serving.CertFile, "--tls-key-file="+serving.KeyFile,
		"--handler-cert-file="+handlerClient.CertFile, "--handler-key-file="+handlerClient.KeyFile)
	if err != nil {
		return err
	}
	address := "https://127.0.0.1:" + secure.String()
	if err := c.waitHTTP(ctx, virtAPI, c.trusting(), address+"/metrics", ""); err != nil {
		return err
	}
	for _, w := range webhooks {
		if err := c.pointAt(w, address); err != nil {
			return err
		}
	}
	if err := c.apply(ctx, webhooks, c.applyOne); err != nil {
		return err
	}
	err = c.waitFor(ctx, virtAPI, c.webhooksAnswer)
	c.progress("virt-api and its webhooks ready after %s", since(started))
	return err
}

// trusting is a configuration for a server of the lab that asks for no identity.
func (c *Cluster) trusting() *rest.Config { return c.anonymous() }

// pointAt replaces a webhook configuration's references to a Service, which
// only a pod network could reach, by a URL.
func (c *Cluster) pointAt(configuration *unstructured.Unstructured, address string) error {
	hooks, _, err := unstructured.NestedSlice(configuration.Object, "webhooks")
	if err != nil {
		return err
	}
	for i := range hooks {
		hook := hooks[i].(map[string]any)
		path, _, err := unstructured.NestedString(hook, "clientConfig", "service", "path")
		if err != nil {
			return err
		}
		to, err := url.JoinPath(address, path)
		if err != nil {
			return err
		}
		hook["clientConfig"] = map[string]any{"url": to, "caBundle": base64.StdEncoding.EncodeToString(c.ca.PEM)}
	}
	return unstructured.SetNestedSlice(configuration.Object, hooks, "webhooks")
}

// webhooksAnswer tells whether the API server calls the webhooks already, by
// creating, dry, a VMI that virt-api's would complete.
func (c *Cluster) webhooksAnswer(ctx context.Context) (bool, error) {
	vmi := NewVMI(metav1.NamespaceDefault, "webhook-probe").Build()
	err := c.Client.Create(ctx, vmi, client.DryRunAll)
	if err != nil && strings.Contains(err.Error(), "admission webhook") {
		// The webhook that validates was seen before the one that fills in defaults.
		return false, nil
	}
	return len(vmi.Finalizers) > 0, err
}

func (c *Cluster) startVirtController(ctx context.Context) error {
	started := time.Now()
	kubeconfig, err := c.KubeconfigFor(ctx, KubeVirtNamespace, "kubevirt-controller")
	if err != nil {
		return err
	}
	pair, err := c.ca.IssueFiles("virt-controller", "virt-controller", nil)
	if err != nil {
		return err
	}
	secure, err := c.port()
	if err != nil {
		return err
	}
	controller, err := c.runBinary("virt-controller",
		"--kubeconfig="+kubeconfig, "--listen=127.0.0.1", "--port="+secure.String(),
		"--launcher-image=virt-launcher", "--exporter-image=virt-exportserver",
		"--prom-cert-file="+pair.CertFile, "--prom-key-file="+pair.KeyFile)
	if err != nil {
		return err
	}
	err = c.waitHTTP(ctx, controller, c.trusting(), "https://127.0.0.1:"+secure.String()+"/leader", `"true"`)
	c.progress("virt-controller leads after %s", since(started))
	return err
}

// startHandlers plays virt-handler, with its own service account's rights.
func (c *Cluster) startHandlers(ctx context.Context) error {
	config, err := c.ConfigFor(ctx, KubeVirtNamespace, "kubevirt-handler")
	if err != nil {
		return err
	}
	watching, err := c.clientFor(config)
	if err != nil {
		return err
	}
	handlers := handler.New(watching, c.playersLog)
	if err := c.play(handlers.Run); err != nil {
		return err
	}
	c.mu.Lock()
	c.handlers = handlers
	nodes := make([]*Node, 0, len(c.nodes))
	for _, n := range c.nodes {
		nodes = append(nodes, n)
	}
	c.mu.Unlock()
	for _, n := range nodes {
		if err := c.addHandler(ctx, n); err != nil {
			return err
		}
	}
	return nil
}
