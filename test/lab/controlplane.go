package lab

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/pki"
)

// Controllers are those that kube-controller-manager runs: what attaches and
// binds volumes, and what every namespace and every deletion relies on.
var Controllers = []string{
	"persistentvolume-attach-detach-controller",
	"persistentvolume-binder-controller",
	"persistentvolume-protection-controller",
	"persistentvolumeclaim-protection-controller",
	"serviceaccount-controller",
	"namespace-controller",
	"garbage-collector-controller",
}

// WorkloadControllers are added where pods are run: what makes them, and what gives
// each namespace the certificate that their tokens are used with.
var WorkloadControllers = []string{
	"deployment-controller",
	"replicaset-controller",
	"daemonset-controller",
	"root-ca-certificate-publisher-controller",
}

// startAPIServer starts etcd and kube-apiserver and waits until it is ready.
func (c *Cluster) startAPIServer(ctx context.Context) error {
	var err error
	if c.ca, err = pki.NewCA(filepath.Join(c.Dir, "pki"), "lab-ca"); err != nil {
		return err
	}
	etcd, err := c.startEtcd()
	if err != nil {
		return err
	}
	secure, err := c.port()
	if err != nil {
		return err
	}
	c.server = "https://127.0.0.1:" + secure.String()
	args, err := c.apiServerArgs(etcd, secure)
	if err != nil {
		return err
	}
	apiserver, err := c.runBinary("kube-apiserver", append(args, c.opts.APIServerArgs...)...)
	if err != nil {
		return err
	}
	if err := c.connect(); err != nil {
		return err
	}
	return c.waitHTTP(ctx, apiserver, c.admin, c.server+"/readyz", "ok")
}

func (c *Cluster) startEtcd() (string, error) {
	clients, err := c.port()
	if err != nil {
		return "", err
	}
	peers, err := c.port()
	if err != nil {
		return "", err
	}
	url, peer := "http://127.0.0.1:"+clients.String(), "http://127.0.0.1:"+peers.String()
	_, err = c.runBinary("etcd",
		"--name=lab", "--data-dir="+filepath.Join(c.Dir, "etcd"),
		"--listen-client-urls="+url, "--advertise-client-urls="+url,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=lab="+peer,
		"--unsafe-no-fsync", "--log-level=warn")
	return url, err
}

func (c *Cluster) apiServerArgs(etcd string, secure port) ([]string, error) {
	serving, err := c.ca.IssueFiles("kube-apiserver", "kube-apiserver", nil, "kubernetes", "kubernetes.default.svc")
	if err != nil {
		return nil, err
	}
	proxy, err := c.ca.IssueFiles("front-proxy", "front-proxy-client", nil)
	if err != nil {
		return nil, err
	}
	tokens, err := c.tokenKey()
	if err != nil {
		return nil, err
	}
	policy := filepath.Join(c.Dir, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(audit.Policy), 0o600); err != nil {
		return nil, err
	}
	return []string{
		"--etcd-servers=" + etcd,
		"--bind-address=127.0.0.1", "--secure-port=" + secure.String(),
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--cert-dir=" + filepath.Join(c.Dir, "pki"),
		"--tls-cert-file=" + serving.CertFile, "--tls-private-key-file=" + serving.KeyFile,
		"--client-ca-file=" + c.ca.File,
		"--requestheader-client-ca-file=" + c.ca.File, "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + proxy.CertFile, "--proxy-client-key-file=" + proxy.KeyFile,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + tokens, "--service-account-signing-key-file=" + tokens,
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--audit-policy-file=" + policy, "--audit-log-path=" + c.auditLog(),
		"--audit-log-maxsize=100000", // MB: a rotated log would lose counts
	}, nil
}

func (c *Cluster) auditLog() string { return filepath.Join(c.Dir, "audit.log") }

// tokenKey makes the key that signs the service accounts' tokens.
func (c *Cluster) tokenKey() (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	file := filepath.Join(c.Dir, "pki", "service-accounts.key")
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return file, os.WriteFile(file, pem.EncodeToMemory(block), 0o600)
}

// connect makes the tests' own client.
func (c *Cluster) connect() error {
	admin, err := c.ConfigForUser("lab-admin", "system:masters")
	if err != nil {
		return err
	}
	c.admin = admin
	c.scheme = runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, kubevirtv1.AddToScheme,
	} {
		if err := add(c.scheme); err != nil {
			return err
		}
	}
	httpClient, err := rest.HTTPClientFor(admin)
	if err != nil {
		return err
	}
	// Shared by all clients of the lab, so that only one does discovery.
	if c.mapper, err = apiutil.NewDynamicRESTMapper(admin, httpClient); err != nil {
		return err
	}
	c.Client, err = c.clientFor(admin)
	return err
}

func (c *Cluster) clientFor(config *rest.Config) (client.WithWatch, error) {
	return client.NewWithWatch(config, client.Options{
		Scheme: c.scheme, Mapper: c.mapper, Log: logr.FromSlogHandler(slog.DiscardHandler),
	})
}

func (c *Cluster) startControllerManager(ctx context.Context) error {
	started := time.Now()
	kubeconfig, err := c.kubeconfigForUser("system:kube-controller-manager")
	if err != nil {
		return err
	}
	secure, err := c.port()
	if err != nil {
		return err
	}
	controllers := Controllers
	if c.opts.Pods != nil {
		controllers = slices.Concat(Controllers, WorkloadControllers)
	}
	manager, err := c.runBinary("kube-controller-manager", append([]string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1", "--secure-port=" + secure.String(),
		"--cert-dir=" + filepath.Join(c.Dir, "pki"),
		"--leader-elect=false", "--use-service-account-credentials=true",
		"--kube-api-qps=1000", "--kube-api-burst=2000",
		"--root-ca-file=" + c.ca.File,
		"--controllers=" + strings.Join(controllers, ","),
	}, c.opts.ControllerManagerArgs...)...)
	if err != nil {
		return err
	}
	err = c.waitFor(ctx, manager, func(ctx context.Context) (bool, error) {
		// The first thing that shows it works.
		key := client.ObjectKey{Namespace: corev1.NamespaceDefault, Name: "default"}
		return found(c.Client.Get(ctx, key, &corev1.ServiceAccount{}))
	})
	c.progress("kube-controller-manager ready after %s", since(started))
	return err
}

// waitHTTP waits until a server answers with a text that contains want.
func (c *Cluster) waitHTTP(ctx context.Context, p *Process, as *rest.Config, url, want string) error {
	httpClient, err := rest.HTTPClientFor(as)
	if err != nil {
		return err
	}
	httpClient.Timeout = 5 * time.Second
	defer httpClient.CloseIdleConnections()
	err = c.waitFor(ctx, p, func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		response, err := httpClient.Do(request)
		if err != nil {
			return false, nil // not up yet
		}
		defer response.Body.Close()
		body := make([]byte, 4096)
		n, _ := response.Body.Read(body)
		return response.StatusCode == http.StatusOK && strings.Contains(string(body[:n]), want), nil
	})
	if err != nil {
		return fmt.Errorf("%s does not answer %q at %s: %w", p.Name(), want, url, err)
	}
	return nil
}
