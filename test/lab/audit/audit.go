package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
)

// Policy records every request once, when it is answered (watches when they
// begin), and the bodies of writes to KubeVirt's objects. It leaves out the
// probes and leases that only fill the log.
const Policy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["/healthz*", "/readyz*", "/livez*", "/version", "/api", "/api/*", "/apis", "/apis/*", "/openapi/*"]
- level: RequestResponse
  verbs: [create, update, patch, delete, deletecollection]
  resources:
  - group: kubevirt.io
    resources: [virtualmachineinstances, virtualmachineinstancemigrations, virtualmachineinstancemigrations/status]
- level: Metadata
`

// Event is one request to the API server, as far as tests care.
type Event struct {
	ID    string    `json:"auditID"`
	Stage string    `json:"stage"`
	Verb  string    `json:"verb"`
	URI   string    `json:"requestURI"`
	Time  time.Time `json:"requestReceivedTimestamp"`
	Done  time.Time `json:"stageTimestamp"`
	User  struct {
		Name   string   `json:"username"`
		Groups []string `json:"groups"`
	} `json:"user"`
	Impersonated *struct {
		Name string `json:"username"`
	} `json:"impersonatedUser"`
	Agent  string `json:"userAgent"`
	Object struct {
		Resource    string `json:"resource"`
		Group       string `json:"apiGroup"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	Response struct {
		Code    int    `json:"code"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	} `json:"responseStatus"`
	// The bodies of writes to KubeVirt's objects.
	RequestObject  runtime.RawExtension `json:"requestObject"`
	ResponseObject runtime.RawExtension `json:"responseObject"`
}

// Resource is the resource with its subresource, as RBAC writes it.
func (e Event) Resource() string {
	if e.Object.Subresource == "" {
		return e.Object.Resource
	}
	return e.Object.Resource + "/" + e.Object.Subresource
}

// Failed tells whether the request was refused or went wrong.
func (e Event) Failed() bool { return e.Response.Code >= 400 }

// Write tells whether the request was to change something. Reviews are created and
// stored nowhere.
func (e Event) Write() bool {
	if strings.HasSuffix(e.Object.Resource, "reviews") {
		return false
	}
	switch e.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return true
	}
	return false
}

// List tells whether the request made the API server send all objects of a
// kind: a list, or a watch that begins with one, as client-go does it now.
func (e Event) List() bool {
	return e.Verb == "list" || e.Verb == "watch" && strings.Contains(e.URI, "sendInitialEvents=true")
}

// String says who asked for what, for a test's failure message.
func (e Event) String() string {
	who := e.User.Name
	if e.Impersonated != nil {
		who += " as " + e.Impersonated.Name
	}
	what := strings.TrimPrefix(e.Object.Namespace+"/"+e.Object.Name, "/")
	return fmt.Sprintf("%s %s %s %s %s: %d %s", e.Time.Format("15:04:05.000"), who, e.Verb, e.Resource(), what, e.Response.Code, e.Response.Message)
}

// Events is a part of the log, in its order.
type Events []Event

// Filter picks events.
type Filter func(Event) bool

// Where keeps the events that all filters pick.
func (es Events) Where(filters ...Filter) Events {
	var kept Events
next:
	for _, e := range es {
		for _, f := range filters {
			if !f(e) {
				continue next
			}
		}
		kept = append(kept, e)
	}
	return kept
}

// CountBy counts the events by whatever key says, e.g. Event.Resource.
func (es Events) CountBy(key func(Event) string) map[string]int {
	counts := map[string]int{}
	for _, e := range es {
		counts[key(e)]++
	}
	return counts
}

// String is one line for each event.
func (es Events) String() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.String()
	}
	return strings.Join(lines, "\n")
}

// User picks what a user asked for, e.g. "system:serviceaccount:ns:name",
// whomever it impersonated meanwhile.
func User(name string) Filter { return func(e Event) bool { return e.User.Name == name } }

// As picks what was asked for under an impersonated name.
func As(name string) Filter {
	return func(e Event) bool { return e.Impersonated != nil && e.Impersonated.Name == name }
}

// Verb picks by verb: get, list, watch, create, update, patch, delete.
func Verb(verbs ...string) Filter {
	return func(e Event) bool { return oneOf(e.Verb, verbs) }
}

// Resource picks by resource as RBAC writes it, e.g. "pods" or "pods/status".
func Resource(resources ...string) Filter {
	return func(e Event) bool { return oneOf(e.Resource(), resources) }
}

// Named picks what concerns one object.
func Named(namespace, name string) Filter {
	return func(e Event) bool { return e.Object.Namespace == namespace && e.Object.Name == name }
}

// Writes picks what changes something.
func Writes() Filter { return Event.Write }

// Lists picks what made the API server send all objects of a kind.
func Lists() Filter { return Event.List }

// Failures picks what was refused or went wrong.
func Failures() Filter { return Event.Failed }

// Forbidden picks what the user had no right to.
func Forbidden() Filter { return func(e Event) bool { return e.Response.Code == http.StatusForbidden } }

// Since picks what came at or after a time.
func Since(t time.Time) Filter { return func(e Event) bool { return !e.Time.Before(t) } }

func oneOf(s string, of []string) bool {
	for _, o := range of {
		if s == o {
			return true
		}
	}
	return false
}

// Read parses the log file from an offset and returns the offset after the
// last whole line: a line being written is left for the next time.
func Read(path string, offset int64) (Events, int64, error) {
	file, err := os.Open(path)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, offset, nil // nothing was asked yet
		}
		return nil, offset, err
	}
	defer file.Close()
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return nil, offset, err
	}
	var events Events
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return events, offset, nil
		}
		offset += int64(len(line))
		var e Event
		if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil {
			return events, offset, fmt.Errorf("%s: %w", path, err)
		}
		if e.Stage == "ResponseComplete" && e.Verb == "watch" && !e.Failed() {
			continue // it was counted when it began
		}
		if e.Stage == "ResponseStarted" && e.Verb != "watch" {
			continue // a long answer, counted when it is complete
		}
		events = append(events, e)
	}
}

// End is the offset after the log's last whole line.
func End(path string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		if os.IsNotExist(err) {
			return 0, nil // nothing was asked yet
		}
		return 0, err
	}
	defer file.Close()
	end, err := file.Seek(0, io.SeekEnd)
	block := make([]byte, 64<<10)
	for err == nil && end > 0 {
		part := block[:min(end, int64(len(block)))]
		if _, err = file.ReadAt(part, end-int64(len(part))); err != nil {
			break
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return end - int64(len(part)-i-1), nil
		}
		end -= int64(len(part))
	}
	return 0, err
}
