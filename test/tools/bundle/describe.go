package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/operator-framework/api/pkg/operators/v1alpha1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// describe completes what the CSV says of the CRD by what the CRD itself says: its
// kind and version, and the descriptions of the fields that have a descriptor. A
// descriptor of a field that does not exist is an error.
func describe(csv *v1alpha1.ClusterServiceVersion, p parts) error {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := convert(p.crd, crd); err != nil {
		return err
	}
	owned := csv.Spec.CustomResourceDefinitions.Owned
	if len(owned) != 1 || owned[0].Name != crd.Name || len(crd.Spec.Versions) != 1 {
		return fmt.Errorf("config/olm/csv.yaml does not describe %s, and it alone, in its one version", crd.Name)
	}
	version := crd.Spec.Versions[0]
	owned[0].Kind, owned[0].Version = crd.Spec.Names.Kind, version.Name
	schema := version.Schema.OpenAPIV3Schema
	var errs []error
	find := func(in, path string) string {
		text, err := fieldDescription(schema, in+"."+path)
		errs = append(errs, err)
		return text
	}
	for i := range owned[0].SpecDescriptors {
		d := &owned[0].SpecDescriptors[i]
		d.Description = find("spec", d.Path)
	}
	for i := range owned[0].StatusDescriptors {
		d := &owned[0].StatusDescriptors[i]
		d.Description = find("status", d.Path)
	}
	return errors.Join(errs...)
}

// fieldDescription is what the schema says of a field, such as spec.arrays[0].port.
func fieldDescription(schema *apiextensionsv1.JSONSchemaProps, path string) (string, error) {
	for name := range strings.SplitSeq(path, ".") {
		name, item := strings.CutSuffix(name, "[0]")
		field, ok := schema.Properties[name]
		if !ok {
			return "", fmt.Errorf("config/olm/csv.yaml describes %s, which the CRD does not have", path)
		}
		schema = &field
		if item {
			schema = field.Items.Schema
		}
	}
	return strings.Join(strings.Fields(schema.Description), " "), nil
}
