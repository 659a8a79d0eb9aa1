package harm

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
)

const (
	instances  = "virtualmachineinstances"
	migrations = "virtualmachineinstancemigrations"

	// kubevirtUsers is how the names of KubeVirt's service accounts begin.
	kubevirtUsers = "system:serviceaccount:kubevirt:"
)

// Report is what an audit log tells of an operator.
type Report struct {
	// Harm is one line for each thing that must not be.
	Harm []string
	// Writes counts the operator's writes by the place written to.
	Writes map[string]int
	// Changes counts how often KubeVirt changed its own conditions on VMIs.
	Changes int
	// Guards counts KubeVirt's patches of VMIs whose guard of the conditions
	// failed, with or without our doing.
	Guards int
}

func (r *Report) add(format string, args ...any) {
	r.Harm = append(r.Harm, fmt.Sprintf(format, args...))
}

// Examine judges a complete audit log by the name of the operator's user.
func Examine(events audit.Events, operator string) Report {
	report := Report{Writes: map[string]int{}}
	histories := historiesOf(events)
	for _, e := range events {
		switch {
		case !e.Write():
		case e.User.Name == operator:
			report.judgeWrite(e, histories)
		case e.Failed() && e.Resource() == instances:
			report.judgeGuard(e, histories)
		}
	}
	for _, h := range histories {
		if h.kind == instances {
			report.judgeConditions(h)
		}
	}
	return report
}

// judgeWrite checks that a write of the operator's is to one of the four places
// and, on KubeVirt's objects, changes nothing but our own words.
func (r *Report) judgeWrite(e audit.Event, histories histories) {
	place := placeOf(e)
	if place == "" {
		r.add("the operator wrote where it must not: %s", e)
		return
	}
	r.Writes[place]++
	if e.Object.Group != "kubevirt.io" || e.Failed() || rehearsed(e) {
		return
	}
	before, after, ok := histories.around(e)
	switch {
	case !ok:
		r.add("what the operator's write changed cannot be told: %s", e)
	case before == nil: // nothing changed, or nobody can tell
	case !reflect.DeepEqual(withoutOurs(before.object()), withoutOurs(after.object())):
		r.add("the operator changed more than its own words: %s", e)
	}
}

// placeOf names the place of a write, empty where the operator must not write.
func placeOf(e audit.Event) string {
	if rehearsed(e) {
		return "nowhere (a dry run)"
	}
	switch e.Object.Group + "/" + e.Resource() + " " + e.Verb {
	case "kubevirt.io/" + migrations + "/status patch":
		return "VMIM status"
	case "kubevirt.io/" + instances + " patch":
		return "VMI"
	case "/events create", "events.k8s.io/events create":
		return "events"
	case "coordination.k8s.io/leases create", "coordination.k8s.io/leases update", "coordination.k8s.io/leases patch":
		return "Lease"
	case "authorization.k8s.io/selfsubjectaccessreviews create", "authentication.k8s.io/selfsubjectreviews create":
		return "nowhere (a question about itself)"
	}
	return ""
}

func rehearsed(e audit.Event) bool { return strings.Contains(e.URI, "dryRun=All") }

// judgeConditions checks that KubeVirt's conditions on a VMI changed by requests of
// KubeVirt's own only, to what those asked for, and kept their nulls.
func (r *Report) judgeConditions(h *history) {
	var is []any
	for i, after := range h.versions {
		was := is
		is = theirs(after.object())
		if i == 0 || reflect.DeepEqual(was, is) || h.gap(h.versions[i-1], after) {
			continue
		}
		r.Changes++
		e := after.event
		if !strings.HasPrefix(e.User.Name, kubevirtUsers) || e.Impersonated != nil {
			r.add("KubeVirt's conditions were changed by another: %s", e)
		} else if !asksFor(e, is) {
			r.add("KubeVirt's conditions became what nobody asked for: %s: %s", e, compact(is))
		}
		for _, name := range lostNulls(was, is) {
			r.add("condition %s lost its lastProbeTime: %s", name, e)
		}
	}
}

// asksFor tells whether a request says that these are to be KubeVirt's conditions.
func asksFor(e audit.Event, conditions []any) bool {
	if e.Verb != "patch" {
		var whole map[string]any
		return json.Unmarshal(e.RequestObject.Raw, &whole) == nil && reflect.DeepEqual(theirs(whole), conditions)
	}
	for _, s := range stepsOf(e) {
		if (s.Op == "add" || s.Op == "replace") && s.Path == "/status/conditions" && reflect.DeepEqual(s.theirs(), conditions) {
			return true
		}
	}
	return false
}

// lostNulls names conditions that had a lastProbeTime, if only null, and lack it now.
func lostNulls(was, is []any) []string {
	had := map[any]bool{}
	for _, c := range was {
		c, _ := c.(map[string]any)
		_, had[c["type"]] = c["lastProbeTime"]
	}
	var lost []string
	for _, c := range is {
		c, _ := c.(map[string]any)
		if _, has := c["lastProbeTime"]; !has && had[c["type"]] {
			lost = append(lost, fmt.Sprint(c["type"]))
		}
	}
	return lost
}

// judgeGuard finds KubeVirt's patches of VMIs that failed because their guard
// lacked our latest word, though it knew all of KubeVirt's.
func (r *Report) judgeGuard(e audit.Event, histories histories) {
	for _, s := range stepsOf(e) {
		if s.Op != "test" || s.Path != "/status" && s.Path != "/status/conditions" {
			continue
		}
		r.Guards++
		for _, v := range histories.during(e) {
			met, _ := v.object()["status"].(map[string]any)
			if guard := s.guarded(met); !reflect.DeepEqual(guard, met) && reflect.DeepEqual(withoutConditionsOfOurs(guard), withoutConditionsOfOurs(met)) {
				r.add("a guard of KubeVirt's failed because of our condition: %s", e)
				break
			}
		}
	}
}

func compact(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
