package lab

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// tokenSeconds outlasts any test or demo.
const tokenSeconds = 7 * 24 * 3600

// Config is the tests' own, with all rights.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.admin) }

// ConfigForUser is a configuration for a user with a client certificate, e.g.
// "system:node:node-a" in "system:nodes". It is not throttled.
func (c *Cluster) ConfigForUser(user string, groups ...string) (*rest.Config, error) {
	pair, err := c.ca.Issue(user, groups)
	if err != nil {
		return nil, err
	}
	config := c.anonymous()
	config.CertData, config.KeyData = pair.Cert, pair.Key
	return config, nil
}

// ConfigFor is a configuration with a service account's own token and rights.
// onNode, if given, binds the token to that node, as a pod's there would be.
func (c *Cluster) ConfigFor(ctx context.Context, namespace, name string, onNode ...string) (*rest.Config, error) {
	config := c.anonymous()
	var err error
	config.BearerToken, err = c.token(ctx, namespace, name, onNode)
	return config, err
}

func (c *Cluster) anonymous() *rest.Config {
	return &rest.Config{
		Host:            c.server,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.PEM},
		QPS:             -1, // the lab's clients play many machines at once
		UserAgent:       "lab",
		WarningHandler:  rest.NoWarnings{},
	}
}

func (c *Cluster) token(ctx context.Context, namespace, name string, onNode []string) (string, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	seconds := int64(tokenSeconds)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	if len(onNode) > 0 {
		node := &corev1.Node{}
		if err := c.Client.Get(ctx, client.ObjectKey{Name: onNode[0]}, node); err != nil {
			return "", err
		}
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID,
		}
	}
	if err := c.Client.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("a token for service account %s/%s (apply its manifests first): %w", namespace, name, err)
	}
	return request.Status.Token, nil
}

// KubeconfigFor writes a kubeconfig with a service account's own token and
// rights and returns its path.
func (c *Cluster) KubeconfigFor(ctx context.Context, namespace, name string, onNode ...string) (string, error) {
	config, err := c.ConfigFor(ctx, namespace, name, onNode...)
	if err != nil {
		return "", err
	}
	return c.WriteKubeconfig(strings.Join(append([]string{namespace, name}, onNode...), "-"), config)
}

// AdminKubeconfig is the path of a kubeconfig with all rights.
func (c *Cluster) AdminKubeconfig() (string, error) { return c.WriteKubeconfig("admin", c.admin) }

func (c *Cluster) kubeconfigForUser(user string, groups ...string) (string, error) {
	config, err := c.ConfigForUser(user, groups...)
	if err != nil {
		return "", err
	}
	return c.WriteKubeconfig(strings.ReplaceAll(user, ":", "-"), config)
}

// WriteKubeconfig writes a configuration to a kubeconfig in the lab's folder.
func (c *Cluster) WriteKubeconfig(name string, config *rest.Config) (string, error) {
	user := "token: " + config.BearerToken
	if config.BearerToken == "" {
		user = "client-certificate-data: " + base64.StdEncoding.EncodeToString(config.CertData) +
			"\n    client-key-data: " + base64.StdEncoding.EncodeToString(config.KeyData)
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: lab
contexts:
- name: lab
  context: {cluster: lab, user: %[1]s}
clusters:
- name: lab
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[1]s
  user:
    %[4]s
`, name, config.Host, base64.StdEncoding.EncodeToString(config.CAData), user)
	path := filepath.Join(c.Dir, "kubeconfigs", name+".yaml")
	// Renamed into place: another goroutine may write the same one.
	tmp, err := os.CreateTemp(filepath.Dir(path), name+"-*")
	if err != nil {
		return "", err
	}
	if _, err := tmp.WriteString(text); err != nil {
		return "", errors.Join(err, tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return "", err
	}
	return path, os.Rename(tmp.Name(), path)
}
