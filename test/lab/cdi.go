package lab

import (
	"context"
	"time"
)

// cdiNamespace is where CDI is installed; its programs look nowhere else when they
// do not run in a pod.
const cdiNamespace = "cdi"

// startCDI installs CDI's kinds and rights, and runs the controllers that decide what
// the claims of DataVolumes look like and that fill them. The importers that these
// start are pods like others: kubelets play them. Webhooks, uploads and clones are not
// here. It comes before KubeVirt, which looks for CDI's kinds at its start.
func (c *Cluster) startCDI(ctx context.Context) error {
	started := time.Now()
	objects, err := c.manifests(ctx, cdiNamespace, "cdi-manifests")
	if err != nil {
		return err
	}
	if err := c.apply(ctx, objects, c.createOne); err != nil {
		return err
	}
	// cdi-operator would see to the rest of what this asks for.
	if err := c.ApplyYAML(ctx, "{apiVersion: cdi.kubevirt.io/v1beta1, kind: CDI, metadata: {name: cdi}, spec: {}}"); err != nil {
		return err
	}
	kubeconfig, err := c.KubeconfigFor(ctx, cdiNamespace, "cdi-sa")
	if err != nil {
		return err
	}
	path, err := c.binary("cdi-controllers")
	if err != nil {
		return err
	}
	_, err = c.RunRestarting("cdi-controllers", path, []string{"--kubeconfig=" + kubeconfig})
	c.progress("CDI started after %s", since(started))
	return err
}
