package main

import (
	"errors"
	"fmt"

	"github.com/operator-framework/api/pkg/operators/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// parts are the manifests, by how OLM brings them to a cluster.
type parts struct {
	deployment  *appsv1.Deployment
	permissions []v1alpha1.StrategyDeploymentPermissions // in the whole cluster
	namespace   *unstructured.Unstructured
	crd         *unstructured.Unstructured
	beside      []*unstructured.Unstructured // the CSV, crd among them
}

// split sorts the objects into parts. owner is the CSV's name.
func split(objects []*unstructured.Unstructured, owner string) (parts, error) {
	var p parts
	var accounts []string
	roles := map[string]*rbacv1.ClusterRole{}
	bound := map[string]bool{}
	for _, object := range objects {
		var err error
		switch object.GetKind() {
		case "Namespace":
			p.namespace = object
		case "Deployment":
			p.deployment = &appsv1.Deployment{}
			err = convert(object, p.deployment)
		case "ServiceAccount":
			accounts = append(accounts, object.GetName())
		case "ClusterRole":
			roles[object.GetName()] = &rbacv1.ClusterRole{}
			err = convert(object, roles[object.GetName()])
		}
		if err != nil {
			return p, err
		}
	}
	for _, object := range objects {
		if object.GetKind() != "ClusterRoleBinding" {
			continue
		}
		binding := &rbacv1.ClusterRoleBinding{}
		if err := convert(object, binding); err != nil {
			return p, err
		}
		role := roles[binding.RoleRef.Name]
		if role == nil || len(binding.Subjects) != 1 {
			return p, fmt.Errorf("ClusterRoleBinding %s does not bind one of our roles to one account", binding.Name)
		}
		bound[role.Name] = true
		p.permissions = append(p.permissions, v1alpha1.StrategyDeploymentPermissions{
			ServiceAccountName: binding.Subjects[0].Name, Rules: role.Rules,
		})
	}
	for _, object := range objects {
		switch object.GetKind() {
		case "Namespace", "Deployment", "ServiceAccount", "ClusterRoleBinding":
			continue
		case "ClusterRole":
			if bound[object.GetName()] {
				continue
			}
			mark(object)
		case "Role", "RoleBinding":
			own(object, owner)
		case "CustomResourceDefinition":
			p.crd = object
			mark(object)
		case "PriorityClass":
			mark(object)
		case "Service", "PodDisruptionBudget", "NetworkPolicy":
		default:
			return p, fmt.Errorf("%s %s: it is not known how OLM would bring this kind to a cluster", object.GetKind(), object.GetName())
		}
		loosen(object)
		p.beside = append(p.beside, object)
	}
	return p, p.check(accounts)
}

// check sees that nothing is missing that OLM takes from the CSV.
func (p parts) check(accounts []string) error {
	var errs []error
	if p.deployment == nil || p.namespace == nil || p.crd == nil {
		errs = append(errs, errors.New("config/olm has no Deployment, Namespace or CustomResourceDefinition"))
	}
	made := map[string]bool{} // by OLM, as they are in the CSV
	for _, permission := range p.permissions {
		made[permission.ServiceAccountName] = true
	}
	for _, account := range accounts {
		if !made[account] {
			errs = append(errs, fmt.Errorf("service account %s has no rights in the cluster, so OLM would not make it", account))
		}
	}
	return errors.Join(errs...)
}

// loosen takes our namespace away; OLM puts in the one that the user chose.
func loosen(object *unstructured.Unstructured) {
	unstructured.RemoveNestedField(object.Object, "metadata", "namespace")
	subjects, _, _ := unstructured.NestedSlice(object.Object, "subjects")
	for _, subject := range subjects {
		if s := subject.(map[string]any); s["namespace"] == namespace {
			delete(s, "namespace")
		}
	}
	if len(subjects) > 0 {
		_ = unstructured.SetNestedSlice(object.Object, subjects, "subjects")
	}
}

// own makes the CSV the owner of a Role or RoleBinding, so that it goes when the CSV
// goes. OLM fills in the uid; of other namespaced kinds it does all of this itself.
func own(object *unstructured.Unstructured, csv string) {
	_ = unstructured.SetNestedSlice(object.Object, []any{map[string]any{
		"apiVersion": v1alpha1.SchemeGroupVersion.String(), "kind": v1alpha1.ClusterServiceVersionKind,
		"name": csv, "uid": "", "blockOwnerDeletion": false, "controller": false,
	}}, "metadata", "ownerReferences")
}

// mark labels what OLM leaves behind when the CSV goes, so that one command finds it.
func mark(object *unstructured.Unstructured) {
	labels := object.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels["app.kubernetes.io/part-of"] = packageName
	object.SetLabels(labels)
}

func convert(object *unstructured.Unstructured, into any) error {
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, into, true)
	if err != nil {
		return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return nil
}
