package rights

import (
	"fmt"
	"strings"
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
)

const manifests = `
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get, list]}
- {apiGroups: [""], resources: [secrets], verbs: [get], resourceNames: [key]}
- {apiGroups: [""], resources: [services], verbs: [create, patch]}
---
kind: ClusterRoleBinding
metadata: {name: reader}
---
kind: ClusterRole
metadata: {name: actor}
rules:
- {apiGroups: [authentication.k8s.io], resources: [serviceaccounts], verbs: ["impersonate:serviceaccount"], resourceNames: [other]}
- {apiGroups: [x.io], resources: [things], verbs: ["impersonate-on:serviceaccount:patch"]}
---
kind: Role
metadata: {name: elsewhere}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get]}
`

var programs = map[string]Program{"reader": {"u", "prog/"}, "actor": {"u", "prog/"}}

// request is one by the program, as the log has it.
func request(change func(*audit.Event)) audit.Event {
	var e audit.Event
	e.User.Name, e.Agent, e.Verb, e.Object.Resource = "u", "prog/v1", "get", "pods"
	change(&e)
	return e
}

func TestUnused(t *testing.T) {
	if _, err := Of(manifests, programs, map[string]string{}); err == nil || !strings.Contains(err.Error(), "role elsewhere") {
		t.Errorf("a role of nobody's: %v", err)
	}
	if all, err := Of(manifests, programs, nil); err != nil || len(all) != 7 {
		t.Errorf("without a list of others: %d rights, %v", len(all), err)
	}
	all, err := Of(manifests, programs, map[string]string{"elsewhere": "it is another's"})
	if err != nil || len(all) != 7 {
		t.Fatalf("%d rights, %v", len(all), err)
	}
	used := map[string]audit.Event{ // by the right that it takes
		"get pods":  request(func(*audit.Event) {}),
		"list pods": request(func(e *audit.Event) { e.Verb, e.URI = "watch", "/pods?sendInitialEvents=true" }),
		"get secrets": request(func(e *audit.Event) {
			e.Object.Resource, e.Object.Name, e.Response.Code = "secrets", "key", 404 // looked for, with the right to
		}),
	}
	for name, e := range used {
		if left := Unused(all, audit.Events{e}); len(left) != len(all)-1 {
			t.Errorf("%s takes not one right but leaves %v", name, left)
		}
	}
	applied := request(func(e *audit.Event) { e.Verb, e.Object.Resource, e.Response.Code = "patch", "services", 201 })
	if left := Unused(all, audit.Events{applied}); len(left) != 5 {
		t.Errorf("an apply that makes an object leaves %v", left)
	}
	acting := request(func(e *audit.Event) {
		e.Verb, e.Object.Resource, e.Object.Group = "patch", "things", "x.io"
		e.Impersonated = &struct {
			Name string `json:"username"`
		}{"system:serviceaccount:ns:other"}
	})
	if left := Unused(all, audit.Events{acting}); len(left) != 5 {
		t.Errorf("acting as another leaves %v", left)
	}
	for name, e := range map[string]audit.Event{
		"another user's":      request(func(e *audit.Event) { e.User.Name = "v" }),
		"another program's":   request(func(e *audit.Event) { e.Agent = "other/v1" }),
		"one that was denied": request(func(e *audit.Event) { e.Response.Code = 403 }),
		"of another object":   request(func(e *audit.Event) { e.Object.Resource, e.Object.Name = "secrets", "other" }),
		"of another group":    request(func(e *audit.Event) { e.Object.Group = "x.io" }),
		"a subresource's":     request(func(e *audit.Event) { e.Object.Subresource = "log" }),
	} {
		if left := Unused(all, audit.Events{e}); len(left) != len(all) {
			t.Errorf("%s request takes a right: left are %v", name, left)
		}
	}
}

func TestDenied(t *testing.T) {
	events := audit.Events{
		request(func(*audit.Event) {}),
		request(func(e *audit.Event) { e.Response.Code = 403 }),
		request(func(e *audit.Event) { e.Response.Code, e.User.Name = 403, "v" }),
		request(func(e *audit.Event) {
			e.Response.Code, e.Response.Message = 403, "unable to create new content in namespace x because it is being terminated"
		}),
	}
	if got := Denied(events, programs); len(got) != 1 || got[0].User.Name != "u" {
		t.Errorf("denied: %s", fmt.Sprint(got))
	}
}
