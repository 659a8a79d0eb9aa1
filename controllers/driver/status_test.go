package driver

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
)

func rolledOut() observation {
	return observation{
		controller: rollout{Name: "Deployment c", Wanted: 1, Ready: 1, Updated: 1, Seen: true},
		node:       rollout{Name: "DaemonSet n", Wanted: 3, Ready: 3, Updated: 3, Seen: true},
		arrays:     []v1alpha1.ArrayStatus{{Name: "main", Reachable: true}},
		grant:      grant{granted: true, known: true},
	}
}

// TestDecideStatus: each condition's status and reason, and what its message must tell.
func TestDecideStatus(t *testing.T) {
	for name, tt := range map[string]struct {
		change    func(*observation)
		want      string // Available, Progressing, Degraded, VMIConditionsWritable
		message   string // in one of the messages
		reachable string
	}{
		"as it should be": {func(*observation) {}, "Ready RolledOut AsExpected Granted", "volumes can be used on 3 nodes", "1/1"},
		"just made":       {func(o *observation) { o.controller.Seen = false }, "ControllerNotReady RollingOut AsExpected Granted", "Deployment c is being made", "1/1"},
		"a node is late":  {func(o *observation) { o.node.Ready = 2 }, "Ready RollingOut AsExpected Granted", "DaemonSet n: 2 of 3 pods ready, 3 up to date", "1/1"},
		"no node ready":   {func(o *observation) { o.node.Ready = 0 }, "NodesNotReady RollingOut AsExpected Granted", "0 of 3", "1/1"},
		"no nodes at all": {func(o *observation) { o.node.Wanted, o.node.Ready, o.node.Updated = 0, 0, 0 }, "Ready RolledOut AsExpected Granted", "on 0 nodes", "1/1"},
		"one array silent": {func(o *observation) {
			o.arrays = append(o.arrays, v1alpha1.ArrayStatus{Name: "far", Message: "no route to host"})
		}, "Ready RolledOut ArrayUnreachable Granted", "array far does not answer: no route to host", "1/2"},
		"all arrays silent": {func(o *observation) { o.arrays[0] = v1alpha1.ArrayStatus{Name: "main", Message: "refused"} },
			"ArrayUnreachable RolledOut ArrayUnreachable Granted", "refused", "0/1"},
		"no key": {func(o *observation) { o.fail(&missingKeyError{"Secret x does not exist"}) },
			"Ready RolledOut Problems Granted", "Secret x does not exist", "1/1"},
		"not granted": {func(o *observation) { o.grant = grant{known: true, message: "kubectl create …"} },
			"Ready RolledOut AsExpected NotGranted", "kubectl create", "1/1"},
		"not asked yet": {func(o *observation) { o.grant = grant{} }, "Ready RolledOut AsExpected NotChecked", "", "1/1"},
		"deleted while attached": {func(o *observation) { o.waits = []string{"pv1 on a", "2", "3", "4", "5", "6", "7"} },
			"Ready RolledOut VolumesAttached Granted", "pv1 on a, 2, 3, 4, 5 and 2 more", "1/1"},
	} {
		t.Run(name, func(t *testing.T) {
			o, d := rolledOut(), exampleDriver()
			tt.change(&o)
			decideStatus(d, o)
			var reasons, messages []string
			for _, c := range d.Status.Conditions {
				reasons, messages = append(reasons, c.Reason), append(messages, c.Message)
				if c.ObservedGeneration != d.Generation {
					t.Errorf("%s is about generation %d", c.Type, c.ObservedGeneration)
				}
			}
			if got := strings.Join(reasons, " "); got != tt.want {
				t.Errorf("reasons %q, want %q", got, tt.want)
			}
			if !strings.Contains(strings.Join(messages, "\n"), tt.message) {
				t.Errorf("messages %q do not tell %q", messages, tt.message)
			}
			if d.Status.ArraysReachable != tt.reachable {
				t.Errorf("%s arrays reachable, want %s", d.Status.ArraysReachable, tt.reachable)
			}
		})
	}
}

// TestRetry: what an administrator must mend is not tried again by itself.
func TestRetry(t *testing.T) {
	var o observation
	o.fail(&missingKeyError{"no key"})
	o.fail(fmt.Errorf("class: %w", &foreignError{"StorageClass rds"}))
	if o.retry != nil {
		t.Errorf("retried: %v", o.retry)
	}
	o.fail(errors.New("the API server is away"))
	if o.retry == nil || len(o.problems) != 3 {
		t.Errorf("retried: %v, problems %q", o.retry, o.problems)
	}
}
