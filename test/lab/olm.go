package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/binaries"
)

// olmNamespace is where OLM looks for catalogs of all namespaces.
const olmNamespace = "olm"

//go:embed manifests/olm.yaml
var olmManifests string

// StartOLM installs the kinds and rights of the Operator Lifecycle Manager and runs
// olm-operator and catalog-operator, without their metrics.
func (c *Cluster) StartOLM(ctx context.Context) error {
	started := time.Now()
	bins, err := binaries.Ensure(ctx, c.progress, binaries.OLM)
	if err != nil {
		return err
	}
	c.addBinaries(bins)
	kinds, err := c.olmKinds(ctx)
	if err != nil {
		return err
	}
	if err := c.apply(ctx, kinds, c.createOne); err != nil {
		return err
	}
	if err := c.ApplyYAML(ctx, olmManifests); err != nil {
		return err
	}
	kubeconfig, err := c.KubeconfigFor(ctx, olmNamespace, "olm-operator-serviceaccount")
	if err != nil {
		return err
	}
	if err := c.keepPort8080(); err != nil {
		return err
	}
	for name, args := range map[string][]string{
		"olm":     {"--namespace=" + olmNamespace},
		"catalog": {"--namespace=" + olmNamespace, "--kubeconfig=" + kubeconfig},
	} {
		env := []string{"KUBECONFIG=" + kubeconfig, "OPERATOR_NAMESPACE=" + olmNamespace, "OPERATOR_NAME=" + name + "-operator"}
		if _, err := c.RunProcess(name+"-operator", bins[name], args, env...); err != nil {
			return err
		}
	}
	c.progress("OLM started after %s", since(started))
	return nil
}

// keepPort8080 takes the port where OLM would serve its metrics, on all addresses of
// this machine, which no flag changes and which pods could then not use on theirs. OLM
// logs it and goes without.
func (c *Cluster) keepPort8080() error {
	hold, err := net.Listen("tcp", "127.0.0.1:8080")
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil // another lab's
	}
	if err != nil {
		return err
	}
	context.AfterFunc(c.life, func() { _ = hold.Close() })
	return nil
}

func (c *Cluster) olmKinds(ctx context.Context) ([]*unstructured.Unstructured, error) {
	path, err := c.binary("olm-crds")
	if err != nil {
		return nil, err
	}
	output, err := exec.CommandContext(ctx, path).Output()
	if err != nil {
		return nil, fmt.Errorf("OLM's kinds: %w", err)
	}
	objects, err := parseYAML(string(output))
	for _, o := range objects {
		unstructured.RemoveNestedField(o.Object, "status")
		unstructured.RemoveNestedField(o.Object, "metadata", "creationTimestamp")
		stripDescriptions(o.Object["spec"])
	}
	return objects, err
}

// ServeCatalog serves a file-based catalog at an address that a CatalogSource can
// name, and returns when it does. OLM must have been started.
func (c *Cluster) ServeCatalog(ctx context.Context, dir string) (*Process, string, error) {
	port, err := c.FreePort()
	if err != nil {
		return nil, "", err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	name := fmt.Sprintf("opm-%d", port)
	process, err := c.runNamed(name, "opm", "serve", dir, fmt.Sprintf("--port=%d", port),
		"--pprof-addr=", "--termination-log="+filepath.Join(c.Dir, "logs", name+".termination"))
	if err != nil {
		return nil, "", err
	}
	return process, address, c.waitFor(ctx, process, func(ctx context.Context) (bool, error) {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return false, nil // not listening yet
		}
		return true, connection.Close()
	})
}

// ValidateCatalog lets opm judge a file-based catalog.
func (c *Cluster) ValidateCatalog(ctx context.Context, dir string) error {
	path, err := c.binary("opm")
	if err != nil {
		return err
	}
	if output, err := exec.CommandContext(ctx, path, "validate", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("opm validate %s: %w\n%s", dir, err, output)
	}
	return nil
}
