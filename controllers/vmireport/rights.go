package vmireport

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

const (
	// controllerRole and conditionRole are the unbound ClusterRoles of
	// config/rbac/operator; conditionRole is also what their bindings are called.
	controllerRole = "rds-csi-operator-kubevirt-controller"
	conditionRole  = "rds-csi-operator-vmi-condition"
	// plainRole is made by the commands themselves: it is not shipped.
	plainRole = "rds-csi-operator-plain-impersonation"
)

// right is one permission that the impersonation takes, and what grants it.
type right struct {
	attributes authorizationv1.ResourceAttributes
	commands   []string
}

// rights are those that the API server's constrained impersonation asks for when a
// service account patches a VMI as another one (KEP-5284: the verb on whom, the verb
// on what), or the single one that plain impersonation does.
func rights(plain bool, kubevirt string, me account) []right {
	if plain {
		return []right{{
			authorizationv1.ResourceAttributes{Verb: "impersonate", Version: "v1", Resource: "serviceaccounts",
				Namespace: kubevirt, Name: vmicondition.ControllerAccount},
			[]string{
				fmt.Sprintf("kubectl -n %s create role %s --verb=impersonate --resource=serviceaccounts --resource-name=%s",
					kubevirt, plainRole, vmicondition.ControllerAccount),
				fmt.Sprintf("kubectl -n %s create rolebinding %s --role=%s %s", kubevirt, plainRole, plainRole, me.subject()),
			},
		}}
	}
	return []right{
		{
			authorizationv1.ResourceAttributes{Verb: "impersonate:serviceaccount", Group: "authentication.k8s.io", Version: "v1",
				Resource: "serviceaccounts", Namespace: kubevirt, Name: vmicondition.ControllerAccount},
			[]string{fmt.Sprintf("kubectl -n %s create rolebinding %s --clusterrole=%s %s", kubevirt, conditionRole, controllerRole, me.subject())},
		},
		{
			authorizationv1.ResourceAttributes{Verb: "impersonate-on:serviceaccount:patch", Group: "kubevirt.io", Version: "v1",
				Resource: "virtualmachineinstances"},
			[]string{fmt.Sprintf("kubectl create clusterrolebinding %s --clusterrole=%s %s", conditionRole, conditionRole, me.subject())},
		},
	}
}

// missing asks the API server for each right and returns the commands that grant
// those that it denies. Asking changes nothing and is allowed to everybody.
func missing(ctx context.Context, c client.Writer, needed []right) ([]string, error) {
	var commands []string
	for _, r := range needed {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &r.attributes}}
		if err := c.Create(ctx, review); err != nil {
			return nil, fmt.Errorf("ask for the right to %s %s: %w", r.attributes.Verb, r.attributes.Resource, err)
		}
		if !review.Status.Allowed {
			commands = append(commands, r.commands...)
		}
	}
	return commands, nil
}
