package driver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"git.srvlab.io/whiskey/rds-csi-operator/config"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
)

// monitoringObjects are the ServiceMonitors and alerts that the cluster has the
// kinds for.
func monitoringObjects(d *v1alpha1.RDSDriver, f Facts) ([]*unstructured.Unstructured, error) {
	if d.Spec.Monitoring.Disabled {
		return nil, nil
	}
	names, err := fs.Glob(config.Prometheus, "prometheus/*.yaml")
	if err != nil {
		return nil, err
	}
	var all []*unstructured.Unstructured
	for _, name := range names {
		data, err := config.Prometheus.ReadFile(name)
		if err != nil {
			return nil, err
		}
		objects, err := documents(data)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", name, err)
		}
		for _, object := range objects {
			if !f.Served[object.GroupVersionKind()] {
				continue // kustomization.yaml, too, is such a document
			}
			object.SetNamespace(f.Namespace)
			all = append(all, object)
		}
	}
	return all, nil
}

// documents are the objects of a YAML file.
func documents(data []byte) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	var all []*unstructured.Unstructured
	for {
		var raw runtime.RawExtension
		switch err := decoder.Decode(&raw); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		case len(raw.Raw) == 0:
			continue // nothing but comments
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(raw.Raw); err != nil {
			return nil, err
		}
		all = append(all, object)
	}
}
