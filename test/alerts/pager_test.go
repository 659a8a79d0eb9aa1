package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// notification is what Alertmanager posts.
type notification struct {
	Alerts []notifiedAlert `json:"alerts"`
}

type notifiedAlert struct {
	Status      string            `json:"status"` // firing or resolved
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// pager keeps what arrived.
type pager struct {
	mu      sync.Mutex
	arrived []notifiedAlert
}

func (p *pager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var n notification
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrived = append(p.arrived, n.Alerts...)
}

// find is the alert with these labels, among others, as it arrived last, if that is its
// status: an alert that fired and resolved may fire again.
func (p *pager) find(status string, labels map[string]string) (notifiedAlert, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range slices.Backward(p.arrived) {
		matches := true
		for key, value := range labels {
			matches = matches && a.Labels[key] == value
		}
		if matches {
			return a, a.Status == status
		}
	}
	return notifiedAlert{}, false
}

// wait waits until an alert with these labels has this status.
func (p *pager) wait(ctx context.Context, t *testing.T, s *stack.Stack, status string, labels map[string]string) notifiedAlert {
	t.Helper()
	var found notifiedAlert
	started := time.Now()
	err := s.WaitFor(ctx, fmt.Sprintf("alert %v to be %s", labels, status), func(context.Context) (ok bool, _ error) {
		found, ok = p.find(status, labels)
		return ok, nil
	})
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Fatalf("%v; what arrived: %+v", err, p.arrived)
	}
	t.Logf("%s (%s) is %s after %s", labels["alertname"], labels["mode"], status, time.Since(started).Round(100*time.Millisecond))
	return found
}
