package pods

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// sandbox is what the containers of one pod share.
type sandbox struct {
	pod    *corev1.Pod
	client client.Client // with the rights of the pod's node
	dir    string        // short, because sockets lie below
	host   string        // the node's folder
	ip     string
	hostIP string
	node   string
}

// file is one of a volume's.
type file struct {
	path    string
	content []byte
	mode    *int32
}

// volumes makes the pod's volumes and returns where they are, by name.
func (s *sandbox) volumes(ctx context.Context) (map[string]string, error) {
	paths := map[string]string{}
	for _, v := range s.pod.Spec.Volumes {
		paths[v.Name] = filepath.Join(s.dir, v.Name)
		if v.HostPath != nil {
			paths[v.Name] = filepath.Join(s.host, v.HostPath.Path)
		}
	}
	for i := range s.pod.Spec.Volumes {
		v := &s.pod.Spec.Volumes[i]
		if err := s.fill(ctx, v, paths); err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return paths, nil
}

func (s *sandbox) fill(ctx context.Context, v *corev1.Volume, paths map[string]string) error {
	files, err := s.files(ctx, &v.VolumeSource)
	if err != nil {
		return err
	}
	dir := paths[v.Name]
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	seen := s.firstMounts(v.Name, paths)
	for _, f := range files {
		path := filepath.Join(dir, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if f.mode != nil {
			mode = os.FileMode(*f.mode)
		}
		if err := os.WriteFile(path, seen.rewriteFile(f.content), mode); err != nil {
			return err
		}
	}
	return nil
}

// firstMounts are those of the first container that mounts the volume: files are
// rewritten as it sees them.
func (s *sandbox) firstMounts(volume string, paths map[string]string) mounts {
	for i := range s.pod.Spec.Containers {
		for _, m := range s.pod.Spec.Containers[i].VolumeMounts {
			if m.Name == volume {
				return newMounts(&s.pod.Spec.Containers[i], paths)
			}
		}
	}
	return nil
}

// files are what a volume has from its beginning.
func (s *sandbox) files(ctx context.Context, v *corev1.VolumeSource) ([]file, error) {
	switch {
	case v.EmptyDir != nil, v.HostPath != nil:
		return nil, nil
	case v.Secret != nil:
		return s.secret(ctx, v.Secret.SecretName, v.Secret.Items, v.Secret.Optional, v.Secret.DefaultMode)
	case v.ConfigMap != nil:
		return s.configMap(ctx, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional, v.ConfigMap.DefaultMode)
	case v.DownwardAPI != nil:
		return s.downward(v.DownwardAPI.Items, v.DownwardAPI.DefaultMode)
	case v.Projected != nil:
		var all []file
		for i := range v.Projected.Sources {
			files, err := s.projected(ctx, &v.Projected.Sources[i], v.Projected.DefaultMode)
			if err != nil {
				return nil, err
			}
			all = append(all, files...)
		}
		return all, nil
	}
	return nil, fmt.Errorf("a local process cannot have a volume of this kind")
}

func (s *sandbox) projected(ctx context.Context, p *corev1.VolumeProjection, mode *int32) ([]file, error) {
	switch {
	case p.Secret != nil:
		return s.secret(ctx, p.Secret.Name, p.Secret.Items, p.Secret.Optional, mode)
	case p.ConfigMap != nil:
		return s.configMap(ctx, p.ConfigMap.Name, p.ConfigMap.Items, p.ConfigMap.Optional, mode)
	case p.DownwardAPI != nil:
		return s.downward(p.DownwardAPI.Items, mode)
	case p.ServiceAccountToken != nil:
		token, err := s.token(ctx, p.ServiceAccountToken)
		return []file{{p.ServiceAccountToken.Path, []byte(token), mode}}, err
	}
	return nil, fmt.Errorf("a local process cannot have a projection of this kind")
}

func (s *sandbox) secret(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool, mode *int32) ([]file, error) {
	secret := &corev1.Secret{}
	if err := s.client.Get(ctx, s.key(name), secret); err != nil {
		return nil, absent(err, optional)
	}
	return pick("Secret "+name, secret.Data, items, optional, mode)
}

func (s *sandbox) configMap(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool, mode *int32) ([]file, error) {
	c := &corev1.ConfigMap{}
	if err := s.client.Get(ctx, s.key(name), c); err != nil {
		return nil, absent(err, optional)
	}
	data := map[string][]byte{}
	for key, text := range c.Data {
		data[key] = []byte(text)
	}
	for key, bytes := range c.BinaryData {
		data[key] = bytes
	}
	return pick("ConfigMap "+name, data, items, optional, mode)
}

func (s *sandbox) key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: s.pod.Namespace, Name: name}
}

// absent drops the error that something optional is not there.
func absent(err error, optional *bool) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// pick chooses the items of a Secret or ConfigMap, or all if none are named.
func pick(of string, data map[string][]byte, items []corev1.KeyToPath, optional *bool, mode *int32) ([]file, error) {
	var all []file
	if items == nil {
		for key, content := range data {
			all = append(all, file{key, content, mode})
		}
		return all, nil
	}
	for _, item := range items {
		content, ok := data[item.Key]
		if !ok && (optional == nil || !*optional) {
			return nil, fmt.Errorf("%s has no key %s", of, item.Key)
		}
		f := file{item.Path, content, mode}
		if item.Mode != nil {
			f.mode = item.Mode
		}
		if ok {
			all = append(all, f)
		}
	}
	return all, nil
}

func (s *sandbox) downward(items []corev1.DownwardAPIVolumeFile, mode *int32) ([]file, error) {
	var all []file
	for _, item := range items {
		value, err := s.field(item.FieldRef)
		if err != nil {
			return nil, err
		}
		all = append(all, file{item.Path, []byte(value), mode})
	}
	return all, nil
}

// token asks for the service account's, bound to the pod, as kubelet does.
func (s *sandbox) token(ctx context.Context, p *corev1.ServiceAccountTokenProjection) (string, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.pod.Namespace, Name: s.pod.Spec.ServiceAccountName}}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: p.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: s.pod.Name, UID: s.pod.UID},
	}}
	if p.Audience != "" {
		request.Spec.Audiences = []string{p.Audience}
	}
	if err := s.client.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("a token for service account %s: %w", account.Name, err)
	}
	return request.Status.Token, nil
}
