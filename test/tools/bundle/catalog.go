package main

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/operator-framework/api/pkg/operators/v1alpha1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// property is what a file-based catalog says of a bundle.
type property struct {
	Type  string `json:"type"`
	Value any    `json:"value"`
}

// catalog is a file-based catalog with this one version. Where the bundle has no
// image its objects are in it, so that nobody has to pull and unpack one.
func catalog(o Options, csv *v1alpha1.ClusterServiceVersion, beside []*unstructured.Unstructured) ([]byte, error) {
	entry := map[string]any{"name": csv.Name, "skipRange": csv.Annotations["olm.skipRange"]}
	if csv.Spec.Replaces != "" {
		entry["replaces"] = csv.Spec.Replaces
	}
	properties, err := bundleProperties(o, csv, beside)
	if err != nil {
		return nil, err
	}
	icon := csv.Spec.Icon[0]
	bundle := map[string]any{
		"schema": "olm.bundle", "package": packageName, "name": csv.Name, "properties": properties,
		"relatedImages": append([]v1alpha1.RelatedImage{}, csv.Spec.RelatedImages...),
	}
	if o.Image != "" {
		bundle["image"] = o.Image
	}
	text := bytes.NewBufferString(header) // and no separator: opm would take it for a document
	for i, blob := range []map[string]any{
		{
			"schema": "olm.package", "name": packageName, "defaultChannel": channel, "description": csv.Annotations["description"],
			"icon": map[string]string{"base64data": icon.Data, "mediatype": icon.MediaType},
		},
		{"schema": "olm.channel", "package": packageName, "name": channel, "entries": []any{entry}},
		bundle,
	} {
		one, err := yaml.Marshal(blob)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			text.WriteString("---\n")
		}
		text.Write(one)
	}
	return text.Bytes(), nil
}

func bundleProperties(o Options, csv *v1alpha1.ClusterServiceVersion, beside []*unstructured.Unstructured) ([]property, error) {
	all := []property{{"olm.package", map[string]string{"packageName": packageName, "version": o.Version}}}
	for _, crd := range csv.Spec.CustomResourceDefinitions.Owned {
		_, group, _ := strings.Cut(crd.Name, ".")
		all = append(all, property{"olm.gvk", map[string]string{"group": group, "kind": crd.Kind, "version": crd.Version}})
	}
	if o.Image != "" {
		return append(all, property{"olm.csv.metadata", metadata(csv)}), nil
	}
	objects := []any{csv}
	for _, object := range beside {
		objects = append(objects, object.Object)
	}
	for _, object := range objects {
		data, err := json.Marshal(object)
		if err != nil {
			return nil, err
		}
		all = append(all, property{"olm.bundle.object", map[string]any{"data": data}})
	}
	return all, nil
}

// metadata is what consoles show of a version that is not installed.
func metadata(csv *v1alpha1.ClusterServiceVersion) map[string]any {
	return map[string]any{
		"annotations": csv.Annotations, "crdDescriptions": csv.Spec.CustomResourceDefinitions,
		"description": csv.Spec.Description, "displayName": csv.Spec.DisplayName, "installModes": csv.Spec.InstallModes,
		"keywords": csv.Spec.Keywords, "labels": csv.Labels, "links": csv.Spec.Links, "maintainers": csv.Spec.Maintainers,
		"maturity": csv.Spec.Maturity, "minKubeVersion": csv.Spec.MinKubeVersion, "provider": csv.Spec.Provider,
	}
}
