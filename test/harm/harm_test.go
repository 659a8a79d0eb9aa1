package harm

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
)

const (
	operator   = "system:serviceaccount:rds-csi:rds-csi-operator"
	controller = kubevirtUsers + "kubevirt-controller"

	ready  = `{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":null}`
	paused = `{"type":"Paused","status":"True","lastProbeTime":null,"lastTransitionTime":null}`
	ourOwn = `{"type":"StorageMigrationTimedOut","status":"True","lastProbeTime":null,"lastTransitionTime":null}`
)

// write is a request that left a VMI with these conditions, as its n-th version.
func write(user, verb, request string, n int, conditions ...string) audit.Event {
	e := audit.Event{ID: fmt.Sprint(n), Verb: verb, URI: "/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstances/vm"}
	e.User.Name = user
	e.Object.Resource, e.Object.Group, e.Object.Namespace, e.Object.Name = instances, "kubevirt.io", "ns", "vm"
	e.Response.Code = 200
	e.Time = time.Unix(int64(n), 0)
	e.Done = e.Time.Add(time.Millisecond)
	e.RequestObject.Raw = json.RawMessage(request)
	e.ResponseObject.Raw = fmt.Appendf(nil, `{"kind":"VirtualMachineInstance","metadata":{"name":"vm","uid":"u","resourceVersion":"%d"},"status":{"conditions":[%s]}}`,
		n, strings.Join(conditions, ","))
	return e
}

func patchOf(op, path, value string) string {
	return fmt.Sprintf(`[{"op":%q,"path":%q,"value":%s}]`, op, path, value)
}

func failing(e audit.Event) audit.Event {
	e.Response.Code = 422
	return e
}

func unanswered(e audit.Event) audit.Event {
	e.Response.Code = 504
	e.ResponseObject.Raw = nil
	return e
}

func TestExamine(t *testing.T) {
	created := write(controller, "create", "{}", 1, ready)
	add := patchOf("add", "/status/conditions/-", ourOwn)
	impersonating := func(e audit.Event) audit.Event {
		e.Impersonated = &struct {
			Name string `json:"username"`
		}{controller}
		return e
	}
	elsewhere := write(operator, "update", "{}", 2, ready)
	elsewhere.Object.Resource = "pods"

	for name, c := range map[string]struct {
		log  audit.Events
		want string // empty: no harm
	}{
		"our condition is added": {audit.Events{created, impersonating(write(operator, "patch", add, 2, ready, ourOwn))}, ""},
		"theirs is lost with it": {audit.Events{created, impersonating(write(operator, "patch", add, 2, ourOwn))}, "changed more than its own words"},
		"a null is lost with it": {audit.Events{created, impersonating(write(operator, "patch", add, 2,
			strings.Replace(ready, `"lastProbeTime":null,`, "", 1), ourOwn))}, "lost its lastProbeTime"},
		"a write elsewhere": {audit.Events{created, elsewhere}, "wrote where it must not"},
		"KubeVirt changes its own": {audit.Events{created,
			write(controller, "patch", patchOf("replace", "/status/conditions", "["+ready+","+paused+"]"), 2, ready, paused)}, ""},
		"KubeVirt's change is not what was asked for": {audit.Events{created,
			write(controller, "patch", patchOf("replace", "/status/conditions", "["+ready+"]"), 2, ready, paused)}, "nobody asked for"},
		"somebody else changes KubeVirt's": {audit.Events{created, write("someone", "update", "{}", 2)}, "by another"},
		"a write whose answer was lost comes in between": {audit.Events{created, unanswered(write(controller, "update", "{}", 2)),
			impersonating(write(operator, "patch", add, 3, paused, ourOwn))}, ""},
		"a guard without our condition": {audit.Events{created,
			impersonating(write(operator, "patch", add, 2, ready, ourOwn)),
			failing(write(controller, "patch", patchOf("test", "/status/conditions", "["+ready+"]"), 3))}, "failed because of our condition"},
		"a guard that fails for another reason": {audit.Events{created,
			impersonating(write(operator, "patch", add, 2, ready, ourOwn)),
			failing(write(controller, "patch", patchOf("test", "/status/conditions", "["+ready+","+ourOwn+"]"), 3))}, ""},
		"a guard without KubeVirt's latest": {audit.Events{created,
			write(controller, "patch", patchOf("replace", "/status/conditions", "["+ready+","+paused+"]"), 2, ready, paused),
			failing(write(controller, "patch", patchOf("test", "/status/conditions", "["+ready+"]"), 3))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(Examine(c.log, operator).Harm, "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}
