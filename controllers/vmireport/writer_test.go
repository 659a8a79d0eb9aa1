package vmireport

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	testclock "k8s.io/utils/clock/testing"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/vmicondition"
)

// TestWrite: what is said where, by what is granted and what KubeVirt makes of it.
func TestWrite(t *testing.T) {
	noted := map[string]string{dualattach.TimedOutAnnotation: lateNote}
	resolved := vmicondition.Condition{Type: vmicondition.StorageMigrationTimedOut, Status: corev1.ConditionFalse, Reason: "Resolved", Message: "over"}
	const overNote = "False Resolved (2026-08-01T12:00:00Z): over"
	cases := map[string]struct {
		reason string
		vmi    *kubevirtv1.VirtualMachineInstance
		args   vmicondition.Condition
		denied bool
		writer conditions
		want   vmicondition.Result
		err    error
		log    []string
		note   string // afterwards
		event  string // what the event on the VMI says
	}{
		"granted":                 {"The condition alone.", web(nil), late, false, conditions{result: vmicondition.Stored}, vmicondition.Stored, nil, []string{"condition True/DualAttached"}, "", ""},
		"granted later":           {"The annotation goes when the condition is there.", web(noted), late, false, conditions{result: vmicondition.Stored}, vmicondition.Stored, nil, []string{"condition True/DualAttached", "patched"}, "", ""},
		"not granted":             {"The condition is not even tried.", web(nil), late, true, conditions{}, vmicondition.Forbidden, nil, []string{"patched"}, lateNote, "it is forbidden; the events of ServiceAccount storage/rds-op and KubeVirt openshift-cnv/kv say how to grant it"},
		"not granted, noted":      {"Once is enough.", web(noted), late, true, conditions{}, vmicondition.Forbidden, nil, nil, lateNote, ""},
		"refused":                 {"The API server knows better than its reviews.", web(nil), late, false, conditions{result: vmicondition.Forbidden}, vmicondition.Forbidden, nil, []string{"condition True/DualAttached", "patched"}, lateNote, "it is forbidden"},
		"reverted":                {"The annotation stays where the condition does not.", web(nil), late, false, conditions{result: vmicondition.Reverted}, vmicondition.Reverted, nil, []string{"condition True/DualAttached", "patched"}, lateNote, "KubeVirt reverted it"},
		"failed":                  {"An error is no reason for an annotation.", web(nil), late, false, conditions{err: errDown}, "", errDown, []string{"condition True/DualAttached"}, "", ""},
		"over, noted":             {"There is no condition to set False.", web(noted), resolved, true, conditions{}, Unneeded, nil, []string{"patched"}, "", ""},
		"over, noted, granted":    {"The same.", web(noted), resolved, false, conditions{}, Unneeded, nil, []string{"patched"}, "", ""},
		"over, never said":        {"Nothing to do.", web(nil), resolved, true, conditions{}, Unneeded, nil, nil, "", ""},
		"over, said":              {"The condition is set False.", saying(web(nil), late), resolved, false, conditions{result: vmicondition.Stored}, vmicondition.Stored, nil, []string{"condition False/Resolved"}, "", ""},
		"over, said, revoked":     {"A condition that is wrong by now needs the annotation.", saying(web(nil), late), resolved, true, conditions{}, vmicondition.Forbidden, nil, []string{"patched"}, overNote, "it is forbidden"},
		"over, all of it at last": {"Granted again.", saying(web(map[string]string{dualattach.TimedOutAnnotation: overNote}), late), resolved, false, conditions{result: vmicondition.Stored}, vmicondition.Stored, nil, []string{"condition False/Resolved", "patched"}, "", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			a := newAPI()
			a.vmi = tc.vmi.DeepCopy()
			a.grant(!tc.denied)
			g := NewGrant(a, a, a, false, testclock.NewFakeClock(noon))
			g.Check(t.Context())
			a.log, a.events = nil, nil
			tc.writer.api = a
			w := NewWriter(g, a, testclock.NewFakePassiveClock(noon), func(kubevirt string) (ConditionWriter, error) {
				if kubevirt != "openshift-cnv" {
					t.Errorf("KubeVirt in %q", kubevirt)
				}
				return &tc.writer, nil
			})
			got, err := w.Write(t.Context(), tc.vmi, tc.args)
			if got != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("%s: %q, %v", tc.reason, got, err)
			}
			var log []string
			for _, line := range a.log {
				if !strings.HasPrefix(line, "may ") { // TestRefused looks into those
					log = append(log, line)
				}
			}
			if diff := cmp.Diff(tc.log, log); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if note := a.vmi.Annotations[dualattach.TimedOutAnnotation]; note != tc.note {
				t.Errorf("%s: the annotation is %q", tc.reason, note)
			}
			var events []string
			for _, e := range a.events {
				if strings.HasPrefix(e, "Warning "+EventNotWritten+" on VirtualMachineInstance shop/web vmi") { // TestGrantTells looks into the others
					events = append(events, e)
				}
			}
			if told := len(events) == 1; told != (tc.event != "") || (told && !strings.Contains(events[0], tc.event)) {
				t.Errorf("%s: events %q", tc.reason, events)
			}
		})
	}
}

// TestNotKept: a 200 alone is believed of an annotation no more than of a condition.
func TestNotKept(t *testing.T) {
	for name, vmi := range map[string]*kubevirtv1.VirtualMachineInstance{
		"written": web(nil), "removed": web(map[string]string{dualattach.TimedOutAnnotation: "x"}),
	} {
		a := newAPI()
		a.grant(false)
		a.vmi, a.deaf = vmi.DeepCopy(), true
		c := late
		if name == "removed" {
			c.Status = corev1.ConditionFalse
		}
		w := NewWriter(NewGrant(a, a, a, false, testclock.NewFakeClock(noon)), a, testclock.NewFakePassiveClock(noon), nil)
		if _, err := w.Write(t.Context(), vmi, c); err == nil || !strings.Contains(err.Error(), "200") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
