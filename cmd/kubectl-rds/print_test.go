package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) time.Time { return now.Add(-d) }

// knownVolume is attached on a and b, and its ledger is the one given.
func knownVolume(ledger string, observed time.Time) *gather.Volume {
	return &gather.Volume{
		Name: "pv-1", Handle: "pvc-1", Claim: corev1.ObjectReference{Namespace: "shop", Name: "disk"},
		Snapshot: unexplained.Snapshot{
			Now: now, Claim: "disk", Slot: "pvc-1", Sharing: unexplained.LiveMigration,
			Attachments: []unexplained.Attachment{
				{Name: "va-b", Node: "node-b", NodeID: "node-b", Created: before(5 * time.Second)},
				{Name: "va-a", Node: "node-a", NodeID: "node-a", Created: before(3 * time.Hour), Attached: true, Ready: true},
			},
			Pods: []unexplained.Pod{{Name: "virt-launcher-web-x", Node: "node-a", VM: "web"}, {Name: "copy", Node: "node-b", Leaving: now}},
			Told: unexplained.Told{ObservedAt: observed, Ledger: rds.ParseLedger(ledger), Exported: true},
		},
	}
}

// printed is a table as the user sees it.
func printed[T any](t *testing.T, output string, columns []column[T], rows []T) string {
	t.Helper()
	var out bytes.Buffer
	o := &options{IOStreams: genericiooptions.IOStreams{Out: &out}, output: output}
	if err := printRows(o, "Thing", columns, rows); err != nil {
		t.Fatal(err)
	}
	var trimmed []string
	for line := range strings.Lines(out.String()) {
		trimmed = append(trimmed, strings.TrimRight(line, " \n"))
	}
	return strings.Join(trimmed, "\n")
}

func TestVolumes(t *testing.T) {
	for name, tt := range map[string]struct {
		ledger   string
		observed time.Time
		want     string
	}{
		"as it should be": {"rds1 g2 node-a=1777885200 node-b=1777895990", now, `
CLAIM   NODE     CLUSTER        ARRAY      USED BY
disk    node-a   Attached 3h    Told 3h    vmi/web
disk    node-b   Attaching 5s   Told 10s   pod/copy (leaving)`},
		"a node that only the array knows": {"rds1 g2 node-a=1777885200 node-c=1777895990", now, `
CLAIM   NODE     CLUSTER        ARRAY      USED BY
disk    node-a   Attached 3h    Told 3h    vmi/web
disk    node-b   Attaching 5s   -          pod/copy (leaving)
disk    node-c   -              Told 10s   -`},
		"no ledger is not nobody": {"a disk of somebody else", now, `
CLAIM   NODE     CLUSTER        ARRAY   USED BY
disk    node-a   Attached 3h    ?       vmi/web
disk    node-b   Attaching 5s   ?       pod/copy (leaving)`},
		"no view is not nobody": {"rds1 g2", time.Time{}, `
CLAIM   NODE     CLUSTER        ARRAY   USED BY
disk    node-a   Attached 3h    ?       vmi/web
disk    node-b   Attaching 5s   ?       pod/copy (leaving)`},
	} {
		t.Run(name, func(t *testing.T) {
			v := compare(knownVolume(tt.ledger, tt.observed))
			columns := volumeColumns(false)[:5]
			if diff := cmp.Diff(tt.want, "\n"+printed(t, "", columns, lines([]volume{v}, now))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestVolumeThatNobodyHolds is one line; what is the matter is told once, and what the
// operator has not announced is marked.
func TestVolumeThatNobodyHolds(t *testing.T) {
	known := knownVolume("rds1 g2", now)
	known.Snapshot.Attachments = nil
	idle := compare(known)
	idle.addFindings([]unexplained.Finding{{Kind: unexplained.Exported, Message: "m"}}, false)
	late := compare(knownVolume("rds1 g2 node-a=1", now))
	late.Metadata.Namespace = "web"
	late.addFindings([]unexplained.Finding{{Kind: unexplained.Lingering, Node: "node-b", Message: "m"}}, true)
	want := `
NAMESPACE   CLAIM   NODE     CLUSTER        ARRAY      USED BY              FINDING                 VOLUME   SLOT    EXPORT
shop        disk    -        -              -          -                    ArrayDivergence (new)   pv-1     pvc-1   on
web         disk    node-a   Attached 3h    Told 56y   vmi/web              LingeringAttachment     pv-1     pvc-1   on
web         disk    node-b   Attaching 5s   -          pod/copy (leaving)   -                       pv-1     pvc-1   on`
	if diff := cmp.Diff(want, "\n"+printed(t, "wide", volumeColumns(true), lines([]volume{idle, late}, now))); diff != "" {
		t.Error(diff)
	}
}

func someMigrations() []migration {
	age := func(d time.Duration) metadata {
		return metadata{Namespace: "shop", Name: "m-" + d.String(), CreationTimestamp: stamp(before(d))}
	}
	return []migration{
		{Metadata: age(time.Hour), VMI: "web", Source: "a", Target: "b", Stage: "Completed", Result: "success", now: now},
		{Metadata: age(9 * time.Minute), VMI: "db", Source: "a", Target: "b", Stage: "DualAttached", Result: "timeout",
			Deadline: stamp(before(45 * time.Second)), Limit: "the VMI's annotation", Claims: []string{"disk", "log"}, now: now},
		{Metadata: age(time.Minute), VMI: "web", Source: "b", Stage: "AttachingTarget", Deadline: stamp(now.Add(14 * time.Minute)), now: now},
	}
}

func TestMigrations(t *testing.T) {
	want := `
NAME       VMI   SOURCE   TARGET   STAGE             LEFT       RESULT    AGE   CLAIMS     LIMIT
m-1h0m0s   web   a        b        Completed         -          success   60m   -          -
m-9m0s     db    a        b        DualAttached      45s over   timeout   9m    disk,log   the VMI's annotation
m-1m0s     web   b        -        AttachingTarget   14m        -         60s   -          -`
	if diff := cmp.Diff(want, "\n"+printed(t, "wide", migrationColumns(false), someMigrations())); diff != "" {
		t.Error(diff)
	}
}

// TestStructured: all that is known is a List of kinds of our own.
func TestStructured(t *testing.T) {
	text := printed(t, "yaml", migrationColumns(true), someMigrations()[1:2])
	var list struct {
		Kind  string      `json:"kind"`
		Items []migration `json:"items"`
	}
	if err := yaml.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	if list.Kind != "List" || len(list.Items) != 1 || list.Items[0].VMI != "db" || list.Items[0].Deadline == nil || !strings.Contains(text, "apiVersion: "+apiVersion) {
		t.Errorf("got:\n%s", text)
	}
	o := &options{output: "xml"}
	if err := printRows(o, "Thing", migrationColumns(true), someMigrations()); err == nil || !strings.Contains(err.Error(), "json") {
		t.Errorf("-o xml: %v", err)
	}
}

// TestWatchedState: time that passes is no news, all else is.
func TestWatchedState(t *testing.T) {
	m := someMigrations()[1]
	same := m
	same.now = now.Add(time.Minute)
	if m.state() != same.state() {
		t.Error("the time left is no news")
	}
	for _, change := range []func(*migration){
		func(m *migration) { m.Stage = "ReleasingSource" }, func(m *migration) { m.Result = "" },
		func(m *migration) { m.Target = "c" }, func(m *migration) { m.Source = "c" }, func(m *migration) { m.Limit = "another" },
	} {
		other := m
		change(&other)
		if m.state() == other.state() {
			t.Errorf("not told: %+v", other)
		}
	}
}

func TestInstanceName(t *testing.T) {
	for argument, want := range map[string]string{"vmi/web": "web", "vm/web": "web", "web": "", "vmi/": "", "pod/web": "", "vmi/a/b": ""} {
		got, err := instanceName(argument)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", argument, got, err)
		}
	}
}

// TestExplanation: what is not known is told as such, and what is wrong with the words
// that say what to do.
func TestExplanation(t *testing.T) {
	v := compare(knownVolume("", now))
	v.Holders[1].AttachmentError = "in use by pod copy"
	v.addFindings([]unexplained.Finding{{Kind: unexplained.Lingering, Message: "look at the kubelet"}}, false)
	e := &explanation{
		vmi: &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Status: kubevirtv1.VirtualMachineInstanceStatus{Phase: kubevirtv1.Running, NodeName: "node-a"}},
		volumes: []volume{v}, now: now,
		grant: &metav1.Condition{Status: metav1.ConditionFalse, Message: "run: kubectl create rolebinding"},
	}
	var out bytes.Buffer
	if err := e.write(&options{IOStreams: genericiooptions.IOStreams{Out: &out}}); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"VMI shop/web is Running on node-a", "none that is known",
		"- claim disk: who holds it on the array is not known: the comment is empty",
		"- claim disk on node-b: in use by pod copy",
		"- LingeringAttachment, claim disk: look at the kubelet (seen just now; it may pass)",
		"- conditions of VMIs cannot be written: run: kubectl create rolebinding",
	} {
		if !strings.Contains(out.String(), part+"\n") {
			t.Errorf("%q is missing in:\n%s", part, out.String())
		}
	}
	e.volumes[0].ArrayKnown, e.volumes[0].Findings, e.grant, e.volumes[0].Holders = true, nil, nil, nil
	out.Reset()
	e.migrations = someMigrations()[:1]
	e.migrations[0].Overdue = "the source has not released it"
	if err := e.write(&options{IOStreams: genericiooptions.IOStreams{Out: &out}}); err != nil ||
		!strings.Contains(out.String(), "- migration "+e.migrations[0].Metadata.Name+": the source has not released it\n") {
		t.Errorf("%v:\n%s", err, out.String())
	}
	e.migrations = nil
	out.Reset()
	if err := e.write(&options{IOStreams: genericiooptions.IOStreams{Out: &out}}); err != nil || !strings.Contains(out.String(), "What is the matter\nnothing\n") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}
