package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/process"
)

// accountMount is where programs look for their service account.
const accountMount = "/var/run/secrets/kubernetes.io/serviceaccount"

// spec is the process that a container becomes.
func (s *sandbox) spec(ctx context.Context, c *corev1.Container, program Program, server *rest.Config, volumes map[string]string) (process.Spec, error) {
	if len(c.EnvFrom) > 0 {
		return process.Spec{}, errors.New("envFrom is not supported here")
	}
	mounted := newMounts(c, volumes)
	local := func(text string) string { return listenAt(mounted.rewrite(text), s.ip) }
	kubeconfig, err := s.kubeconfig(c.Name, mounted, server)
	if err != nil {
		return process.Spec{}, err
	}
	variables := map[string]string{}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + s.dir, "HOSTNAME=" + s.pod.Name, "TMPDIR=" + s.tmp(c, mounted)}
	if kubeconfig != "" {
		variables["KUBECONFIG"] = kubeconfig
		env = append(env, "KUBECONFIG="+kubeconfig)
	}
	for i := range c.Env {
		value, err := s.value(ctx, &c.Env[i], variables)
		if err != nil {
			return process.Spec{}, fmt.Errorf("variable %s: %w", c.Env[i].Name, err)
		}
		variables[c.Env[i].Name] = value
		env = append(env, c.Env[i].Name+"="+local(value))
	}
	var args []string
	if len(c.Command) > 0 {
		args = append(args, c.Command[1:]...)
	}
	args = append(args, c.Args...)
	for i := range args {
		args[i] = local(expand(args[i], variables))
	}
	variables["LAB_POD_IP"] = s.ip
	for _, arg := range program.Args {
		args = append(args, expand(arg, variables))
	}
	return process.Spec{Name: s.pod.Name + "/" + c.Name, Path: program.Path, Args: args, Env: env, OnlyEnv: true}, nil
}

// tmp is the container's /tmp: a volume, or, where the root file system is
// read-only, nothing that can be written to.
func (s *sandbox) tmp(c *corev1.Container, mounted mounts) string {
	if source := mounted.source("/tmp"); source != "" {
		return source
	}
	if sc := c.SecurityContext; sc != nil && sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem {
		return filepath.Join(s.dir, "read-only")
	}
	return s.dir
}

// kubeconfig writes what takes the place of the in-cluster configuration; there is
// none where no token is mounted.
func (s *sandbox) kubeconfig(container string, mounted mounts, server *rest.Config) (string, error) {
	account := mounted.source(accountMount)
	if account == "" {
		return "", nil
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["lab"] = &clientcmdapi.Cluster{Server: server.Host, CertificateAuthority: filepath.Join(account, "ca.crt")}
	config.AuthInfos["pod"] = &clientcmdapi.AuthInfo{TokenFile: filepath.Join(account, "token")}
	config.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: "pod", Namespace: s.pod.Namespace}
	config.CurrentContext = "lab"
	path := filepath.Join(s.dir, container+".kubeconfig")
	return path, clientcmd.WriteToFile(*config, path)
}

// value is what a variable says, before paths are rewritten.
func (s *sandbox) value(ctx context.Context, e *corev1.EnvVar, variables map[string]string) (string, error) {
	from := e.ValueFrom
	switch {
	case from == nil:
		return expand(e.Value, variables), nil
	case from.FieldRef != nil:
		return s.field(from.FieldRef)
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		return only(s.secret(ctx, r.Name, []corev1.KeyToPath{{Key: r.Key, Path: r.Key}}, r.Optional, nil))
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		return only(s.configMap(ctx, r.Name, []corev1.KeyToPath{{Key: r.Key, Path: r.Key}}, r.Optional, nil))
	}
	return "", errors.New("this source is not supported here")
}

func only(files []file, err error) (string, error) {
	if err != nil || len(files) == 0 {
		return "", err
	}
	return string(files[0].content), nil
}

// field is a field of the pod that the downward API offers.
func (s *sandbox) field(ref *corev1.ObjectFieldSelector) (string, error) {
	if ref == nil {
		return "", errors.New("resources are not supported here")
	}
	pod := s.pod
	for prefix, values := range map[string]map[string]string{"metadata.labels['": pod.Labels, "metadata.annotations['": pod.Annotations} {
		if key, ok := strings.CutPrefix(ref.FieldPath, prefix); ok {
			return values[strings.TrimSuffix(key, "']")], nil
		}
	}
	fields := map[string]string{
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "metadata.uid": string(pod.UID),
		"spec.nodeName": s.node, "spec.serviceAccountName": pod.Spec.ServiceAccountName,
		"status.hostIP": s.hostIP, "status.hostIPs": s.hostIP, "status.podIP": s.ip, "status.podIPs": s.ip,
		"metadata.labels": lines(pod.Labels), "metadata.annotations": lines(pod.Annotations),
	}
	value, ok := fields[ref.FieldPath]
	if !ok {
		return "", fmt.Errorf("there is no field %s", ref.FieldPath)
	}
	return value, nil
}

func lines(values map[string]string) string {
	var text strings.Builder
	for key, value := range values {
		fmt.Fprintf(&text, "%s=%q\n", key, value)
	}
	return text.String()
}

// makeDir makes the sandbox's own folder.
func (s *sandbox) makeDir() error { return os.MkdirAll(s.dir, 0o755) }
