package harm

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
)

// version is an object as one write left it.
type version struct {
	number uint64 // its resource version
	event  audit.Event
}

// object is all of it. It is read when needed: a log is long.
func (v version) object() map[string]any {
	var object map[string]any
	_ = json.Unmarshal(v.event.ResponseObject.Raw, &object) // it was read before
	return object
}

// identity is what tells versions of objects apart.
type identity struct {
	Kind     string `json:"kind"`
	Metadata struct {
		UID             string `json:"uid"`
		Name            string `json:"name"`
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
}

// history is one object, from its creation on.
type history struct {
	kind, namespace, name string
	versions              []version // in their order
	lost                  audit.Events
}

// gap tells whether a version may be missing between two: a write that the API
// server gave up answering (its client was killed, say) may have been stored.
func (h *history) gap(before, after version) bool {
	return slices.ContainsFunc(h.lost, func(e audit.Event) bool {
		return !e.Done.Before(before.event.Time) && !e.Time.After(after.event.Done)
	})
}

// histories are all VMIs and VMIMs of a log, by UID.
type histories map[string]*history

func historiesOf(events audit.Events) histories {
	all := histories{}
	for _, e := range events {
		if !e.Write() || e.Failed() || rehearsed(e) || e.Object.Resource != instances && e.Object.Resource != migrations {
			continue
		}
		id, v, ok := versionOf(e)
		if !ok {
			continue
		}
		h := all[id.Metadata.UID]
		if h == nil {
			h = &history{kind: e.Object.Resource, namespace: e.Object.Namespace, name: id.Metadata.Name}
			all[id.Metadata.UID] = h
		}
		h.versions = append(h.versions, v)
	}
	for _, h := range all {
		h.lost = events.Where(audit.Writes(), audit.Named(h.namespace, h.name), func(e audit.Event) bool {
			return e.Object.Resource == h.kind && e.Response.Code >= 500
		})
		slices.SortStableFunc(h.versions, func(a, b version) int { return cmp.Compare(a.number, b.number) })
		// A write that changes nothing leaves the number as it is.
		h.versions = slices.CompactFunc(h.versions, func(a, b version) bool { return a.number == b.number })
	}
	return all
}

// versionOf reads what a write left; ok is false where it tells nothing, as the
// deletion of the last of an object does.
func versionOf(e audit.Event) (id identity, v version, ok bool) {
	if json.Unmarshal(e.ResponseObject.Raw, &id) != nil || id.Kind == "Status" || id.Metadata.UID == "" {
		return id, v, false
	}
	number, err := strconv.ParseUint(id.Metadata.ResourceVersion, 10, 64)
	return id, version{number: number, event: e}, err == nil
}

// around is what a write found and what it left; before is nil where it changed
// nothing, or where what it found is not in the log.
func (all histories) around(e audit.Event) (before, after *version, ok bool) {
	id, v, ok := versionOf(e)
	h := all[id.Metadata.UID]
	if !ok || h == nil {
		return nil, nil, false
	}
	i := slices.IndexFunc(h.versions, func(other version) bool { return other.number == v.number })
	switch {
	case i < 0:
		return nil, nil, false
	case h.versions[i].event.ID != e.ID:
		return nil, &h.versions[i], true
	case i == 0:
		return nil, nil, false
	case h.gap(h.versions[i-1], h.versions[i]):
		return nil, &h.versions[i], true
	}
	return &h.versions[i-1], &h.versions[i], true
}

// during are the versions that a request may have met.
func (all histories) during(e audit.Event) []version {
	var met []version
	for _, h := range all {
		if h.kind != e.Object.Resource || h.namespace != e.Object.Namespace || h.name != e.Object.Name {
			continue
		}
		for i, v := range h.versions {
			until := time.Time{}
			if i+1 < len(h.versions) {
				until = h.versions[i+1].event.Done
			}
			if !v.event.Time.After(e.Done) && (until.IsZero() || !until.Before(e.Time)) {
				met = append(met, v)
			}
		}
	}
	return met
}

// ours are the conditions and annotations that are ours to write: by type, and by
// the beginning of the key.
var ours = []string{
	"StorageMigrationTimedOut", "StorageDualAttachUnexplained",
	"storageDualAttached", "storageMigrated", "storageMigrationTimedOut",
}

const ourAnnotations = "rds.csi.srvlab.io/"

func isOurs(condition any) bool {
	c, _ := condition.(map[string]any)
	name, _ := c["type"].(string)
	return slices.Contains(ours, name)
}

func conditionsOf(object map[string]any) []any {
	status, _ := object["status"].(map[string]any)
	conditions, _ := status["conditions"].([]any)
	return conditions
}

// theirs are the conditions that are not ours.
func theirs(object map[string]any) []any { return notOurs(conditionsOf(object)) }

func notOurs(conditions []any) []any {
	return slices.DeleteFunc(slices.Clone(conditions), isOurs)
}

// withoutOurs is an object without what we may write and what every write changes.
// An empty list or object is as good as none.
func withoutOurs(object map[string]any) map[string]any {
	out := copied(object)
	metadata := copied(out["metadata"])
	out["metadata"] = metadata
	delete(metadata, "resourceVersion")
	delete(metadata, "managedFields")
	delete(metadata, "generation") // without a status subresource every write counts
	annotations := copied(metadata["annotations"])
	for key := range annotations {
		if strings.HasPrefix(key, ourAnnotations) {
			delete(annotations, key)
		}
	}
	setUnlessEmpty(metadata, "annotations", annotations, len(annotations))
	status := withoutConditionsOfOurs(out["status"])
	setUnlessEmpty(out, "status", status, len(status))
	return out
}

func withoutConditionsOfOurs(status any) map[string]any {
	out := copied(status)
	conditions, _ := out["conditions"].([]any)
	left := notOurs(conditions)
	setUnlessEmpty(out, "conditions", left, len(left))
	return out
}

func copied(in any) map[string]any {
	out := map[string]any{}
	from, _ := in.(map[string]any)
	for key, value := range from {
		out[key] = value
	}
	return out
}

func setUnlessEmpty(in map[string]any, key string, value any, length int) {
	if length == 0 {
		delete(in, key)
		return
	}
	in[key] = value
}

// step is one operation of a JSON patch.
type step struct {
	Op, Path string
	Value    any
}

// stepsOf are a request's, none where it is no JSON patch.
func stepsOf(e audit.Event) []step {
	var steps []step
	if e.Verb != "patch" || json.Unmarshal(e.RequestObject.Raw, &steps) != nil {
		return nil
	}
	return steps
}

// theirs are the conditions in the step's value that are not ours.
func (s step) theirs() []any {
	list, _ := s.Value.([]any)
	return notOurs(list)
}

// guarded is the status as a guard of all or of its conditions expects it, where
// it meets a status.
func (s step) guarded(met map[string]any) map[string]any {
	if s.Path == "/status" {
		return copied(s.Value)
	}
	out := copied(met)
	out["conditions"] = s.Value
	return out
}
