package lab

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
)

func TestLabIdentitiesAndAudit(t *testing.T) {
	ctx, c, ns := setUp(t)
	must(t, c.ApplyYAML(ctx, `
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: `+ns+`}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: `+ns+`}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: `+ns+`}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: `+ns+`}]
`))
	kubeconfig, err := c.KubeconfigFor(ctx, ns, "reader")
	must(t, err)
	mark, err := c.MarkAudit()
	must(t, err)
	if _, err := c.KubectlAs(ctx, kubeconfig, "get", "configmaps", "-n", ns); err != nil {
		t.Error(err)
	}
	if _, err := c.KubectlAs(ctx, kubeconfig, "create", "configmap", "mine", "-n", ns); err == nil {
		t.Error("an identity that may only read has written")
	}
	events, err := c.AuditSince(mark, audit.User("system:serviceaccount:"+ns+":reader"), audit.Resource("configmaps"))
	must(t, err)
	if n := len(events.Where(audit.Lists())); n != 1 {
		t.Errorf("%d lists:\n%s", n, events)
	}
	if n := len(events.Where(audit.Writes(), audit.Failures())); n != 1 {
		t.Errorf("%d refused writes:\n%s", n, events)
	}
	if _, err := c.KubeconfigFor(ctx, ns, "nobody"); !apierrors.IsNotFound(err) {
		t.Errorf("a kubeconfig for an account that is not there: %v", err)
	}
}

// A lab of its own: small, and meant to be broken.
func TestLabWithoutKubeVirtCrashesAndCleansUp(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane: run without -short")
	}
	ctx := t.Context()
	c, err := Start(ctx, Options{WithoutKubeVirt: true, WithoutControllers: true})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.CreateNamespace(ctx, "somewhere"))
	must(t, c.Client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "somewhere", Name: "c"}}))
	p, err := c.RunProcess("doomed", "/bin/sh", []string{"-c", "echo alas; exit 7"})
	must(t, err)
	<-p.Failed()
	<-c.Context().Done()
	waited := c.WaitFor(ctx, "nothing", func(context.Context) (bool, error) { return false, nil })
	for _, err := range []error{c.Err(), waited, c.Close()} {
		if err == nil || !strings.Contains(err.Error(), "doomed") || !strings.Contains(err.Error(), "alas") {
			t.Errorf("the crash is not told: %v", err)
		}
	}
	if _, err := os.Stat(c.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lab's folder is still there: %v", err)
	}
	for _, p := range c.processes {
		if p.Running() {
			t.Errorf("%s still runs", p.Name())
		}
	}
}
