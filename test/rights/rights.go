package rights

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
)

// Program is whom a role is for: a service account may serve several programs, which
// their user agents tell apart.
type Program struct{ User, Agent string }

// Right is one verb on one resource, or on one URL, that a role grants.
type Right struct {
	Role                        string
	Program                     Program
	verb, group, resource, name string
}

func (r Right) String() string {
	return fmt.Sprintf("%s: %s %s.%s %s (%s)", r.Role, r.verb, r.resource, r.group, r.name, r.Program.Agent)
}

// Of lists what the roles of manifests grant, each role to its program. Roles of others
// are left out; with a list of them (why, by name) every role must be on either.
func Of(manifests string, programs map[string]Program, others map[string]string) ([]Right, error) {
	var all []Right
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		var role rbacv1.ClusterRole // a Role reads the same
		if err := decoder.Decode(&role); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		program, known := programs[role.Name]
		switch _, other := others[role.Name]; {
		case len(role.Rules) == 0 || other || !known && others == nil:
			continue
		case !known:
			return nil, fmt.Errorf("role %s is for none of the programs that this test knows", role.Name)
		}
		for _, rule := range role.Rules {
			all = append(all, ofRule(role.Name, program, rule)...)
		}
	}
}

func ofRule(role string, p Program, rule rbacv1.PolicyRule) []Right {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	var all []Right
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				for _, name := range names {
					all = append(all, Right{role, p, verb, group, resource, name})
				}
			}
		}
	}
	return all
}

// usedBy reports whether a request of the role's program took the right.
func (r Right) usedBy(e audit.Event) bool {
	// What is not found was looked for with the right to.
	if e.User.Name != r.Program.User || !strings.HasPrefix(e.Agent, r.Program.Agent) || (e.Failed() && e.Response.Code != http.StatusNotFound) {
		return false
	}
	if as, ok := strings.CutPrefix(r.verb, "impersonate:serviceaccount"); ok && as == "" {
		return e.Impersonated != nil && strings.HasSuffix(e.Impersonated.Name, ":"+r.name)
	}
	if verb, ok := strings.CutPrefix(r.verb, "impersonate-on:serviceaccount:"); ok {
		return e.Impersonated != nil && verb == e.Verb && e.Object.Group == r.group && e.Resource() == r.resource
	}
	if e.Impersonated != nil || e.Object.Group != r.group || e.Resource() != r.resource || (r.name != "" && e.Object.Name != r.name) {
		return false
	}
	// A watch that begins with all objects stands for the list that clients fall back to;
	// an apply that makes an object takes the right to create it, too.
	return e.Verb == r.verb || r.verb == "list" && e.List() || r.verb == "create" && e.Verb == "patch" && e.Response.Code == http.StatusCreated
}

// Unused are the rights that no request took.
func Unused(all []Right, asked audit.Events) (unused []Right) {
	for _, r := range all {
		if !slices.ContainsFunc(asked, r.usedBy) {
			unused = append(unused, r)
		}
	}
	return unused
}

// Denied are the programs' requests that no role allowed. In a namespace that is being
// deleted nothing can be made, whoever may.
func Denied(asked audit.Events, programs map[string]Program) audit.Events {
	users := map[string]bool{}
	for p := range maps.Values(programs) {
		users[p.User] = true
	}
	return asked.Where(func(e audit.Event) bool {
		return users[e.User.Name] && e.Response.Code == http.StatusForbidden && !strings.Contains(e.Response.Message, "because it is being terminated")
	})
}
