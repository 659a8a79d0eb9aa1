package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

// The elements as KubeVirt's own types spell them, byte by byte.
const (
	guard = `{"op":"test","path":"/metadata/resourceVersion","value":"42"}`

	dual  = `{"type":"storageDualAttached","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-08-01T12:00:00Z","reason":"LiveMigration","message":"on both"}`
	moved = `{"type":"storageMigrated","status":"Unknown","lastProbeTime":null,"lastTransitionTime":"2026-08-01T12:00:00Z","reason":"DualAttached","message":"under way"}`
	late  = `{"type":"storageMigrationTimedOut","status":"False","lastProbeTime":null,"lastTransitionTime":"2026-08-01T12:00:00Z","reason":"WithinDeadline","message":"in time"}`
	// stillUnknown keeps the time of the status, as only the reason differs.
	stillUnknown = `{"type":"storageMigrated","status":"Unknown","lastProbeTime":null,"lastTransitionTime":"2026-08-01T11:00:00Z","reason":"DualAttached","message":"under way"}`

	addEach = `{"op":"add","path":"/status/conditions/-","value":` + dual + `},` +
		`{"op":"add","path":"/status/conditions/-","value":` + moved + `},` +
		`{"op":"add","path":"/status/conditions/-","value":` + late + `}`
)

// TestConditionPatch compares whole patches, as KubeVirt compares whole lists:
// textually.
func TestConditionPatch(t *testing.T) {
	cases := map[string]struct {
		reason string
		args   *kubevirtv1.VirtualMachineInstanceMigration
		want   string
	}{
		"no status": {
			reason: "A VMIM just made has no status object to add to.",
			args: func() *kubevirtv1.VirtualMachineInstanceMigration {
				m := vmim()
				m.Status = kubevirtv1.VirtualMachineInstanceMigrationStatus{}
				return m
			}(),
			want: guard + `,{"op":"add","path":"/status","value":{"conditions":[]}},` + addEach,
		},
		"no conditions": {
			reason: "A list must exist before an element is added to it.",
			args:   vmim(),
			want:   guard + `,{"op":"add","path":"/status/conditions","value":[]},` + addEach,
		},
		"KubeVirt's conditions only": {
			reason: "Ours come behind them.",
			args:   vmim(abortRequested()),
			want:   guard + `,` + addEach,
		},
		"all of ours, one differs": {
			reason: "Only that one is touched, at its own place; its status stays and so does its time.",
			args: vmim(abortRequested(), written("storageDualAttached", corev1.ConditionTrue, "LiveMigration"),
				written("storageMigrated", corev1.ConditionUnknown, "AttachingTarget"), written("storageMigrationTimedOut", corev1.ConditionFalse, "WithinDeadline")),
			want: guard + `,{"op":"replace","path":"/status/conditions/2","value":` + stillUnknown + `}`,
		},
		"messages of others differ, too": {
			reason: "A write brings every message up to date, and moves no other time.",
			args: vmim(abortRequested(), written("storageDualAttached", corev1.ConditionTrue, "LiveMigration"),
				sayable(written("storageMigrated", corev1.ConditionUnknown, "DualAttached")).saying("of before"), written("storageMigrationTimedOut", corev1.ConditionTrue, "DualAttached")),
			want: guard + `,{"op":"replace","path":"/status/conditions/2","value":` + stillUnknown + `},` +
				`{"op":"replace","path":"/status/conditions/3","value":` + late + `}`,
		},
		"the status differs": {
			reason: "Then the transition is now.",
			args: vmim(written("storageMigrated", corev1.ConditionUnknown, "DualAttached"), abortRequested(),
				written("storageDualAttached", corev1.ConditionFalse, "AwaitingTarget"), written("storageMigrationTimedOut", corev1.ConditionFalse, "WithinDeadline")),
			want: guard + `,{"op":"replace","path":"/status/conditions/2","value":` + dual + `}`,
		},
		"one is missing": {
			reason: "Replaced and added in one patch.",
			args:   vmim(written("storageMigrated", corev1.ConditionUnknown, "AttachingTarget"), written("storageDualAttached", corev1.ConditionTrue, "LiveMigration")),
			want: guard + `,{"op":"replace","path":"/status/conditions/0","value":` + stillUnknown + `},` +
				`{"op":"add","path":"/status/conditions/-","value":` + late + `}`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff("["+tc.want+"]", string(patchFor(t, tc.args, want()))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestConditionPatchNothingToDo: a message alone is not worth a write.
func TestConditionPatchNothingToDo(t *testing.T) {
	m := vmim(sayable(written("storageMigrationTimedOut", corev1.ConditionFalse, "WithinDeadline")).saying("of before"), abortRequested(),
		written("storageDualAttached", corev1.ConditionTrue, "LiveMigration"), written("storageMigrated", corev1.ConditionUnknown, "DualAttached"))
	if patch := patchFor(t, m, want()); patch != nil {
		t.Errorf("patch: %s", patch)
	}
	if patch := patchFor(t, vmim(), nil); patch != nil {
		t.Errorf("a patch that wants nothing: %s", patch)
	}
}

// TestEmptyReasonAndMessage are left out, as KubeVirt leaves them out.
func TestEmptyReasonAndMessage(t *testing.T) {
	patch := patchFor(t, vmim(abortRequested()), []dualattach.Condition{{Type: dualattach.ConditionMigrated, Status: corev1.ConditionTrue}})
	element := `{"type":"storageMigrated","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-08-01T12:00:00Z"}`
	if want := `[` + guard + `,{"op":"add","path":"/status/conditions/-","value":` + element + `}]`; string(patch) != want {
		t.Errorf("patch (-want +got):\n%s", cmp.Diff(want, string(patch)))
	}
}

// TestPatchApplied applies the patch with the library that the API server uses:
// what is KubeVirt's stays byte by byte, unknown fields and nulls included.
func TestPatchApplied(t *testing.T) {
	const theirs = `{"type":"migrationAbortRequested","status":"True","lastProbeTime":null,"lastTransitionTime":null,"ofTheFuture":{"b":1,"a":[null]}}`
	const theirOther = `{"lastTransitionTime":null,"lastProbeTime":null,"status":"False","type":"migrationBlockedByBackup"}`
	const ours = `{"type":"storageMigrated","status":"Unknown","lastProbeTime":null,"lastTransitionTime":"2026-08-01T11:00:00Z","reason":"AttachingTarget"}`
	stored := `{"metadata":{"name":"web-1","resourceVersion":"42"},"spec":{"vmiName":"web"},"status":{"phase":"Running","conditions":[` +
		strings.Join([]string{theirs, ours, theirOther}, ",") + `],"migrationState":{"sourceNode":"a","ofTheFuture":null}}}`
	var m kubevirtv1.VirtualMachineInstanceMigration
	if err := json.Unmarshal([]byte(stored), &m); err != nil {
		t.Fatal(err)
	}

	patch, err := jsonpatch.DecodePatch(patchFor(t, &m, want()))
	if err != nil {
		t.Fatal(err)
	}
	after, err := patch.Apply([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Metadata, Spec json.RawMessage
		Status         struct {
			Phase, MigrationState json.RawMessage
			Conditions            []json.RawMessage
		}
	}
	if err := json.Unmarshal(after, &got); err != nil {
		t.Fatal(err)
	}
	var elements []string
	for _, c := range got.Status.Conditions {
		elements = append(elements, string(c))
	}
	if diff := cmp.Diff([]string{theirs, stillUnknown, theirOther, dual, late}, elements); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	for name, part := range map[string]struct {
		got  []byte
		want string
	}{
		"metadata":       {got.Metadata, `{"name":"web-1","resourceVersion":"42"}`},
		"spec":           {got.Spec, `{"vmiName":"web"}`},
		"phase":          {got.Status.Phase, `"Running"`},
		"migrationState": {got.Status.MigrationState, `{"sourceNode":"a","ofTheFuture":null}`},
	} {
		if string(part.got) != part.want {
			t.Errorf("%s = %s, want %s", name, part.got, part.want)
		}
	}

	changed := bytes.Replace([]byte(stored), []byte(`"42"`), []byte(`"43"`), 1)
	if _, err := patch.Apply(changed); err == nil {
		t.Error("the patch holds on another version of the object")
	}
}

// TestPatchAppliedMakesStatus: the same on objects with less and less of a status.
func TestPatchAppliedMakesStatus(t *testing.T) {
	for name, m := range map[string]*kubevirtv1.VirtualMachineInstanceMigration{
		"none":          {ObjectMeta: vmim().ObjectMeta},
		"no conditions": vmim(),
		"theirs":        vmim(abortRequested()),
	} {
		t.Run(name, func(t *testing.T) {
			stored := toJSON(t, m)
			if name == "none" {
				stored = []byte(`{"metadata":{"resourceVersion":"42"}}`)
			}
			patch, err := jsonpatch.DecodePatch(patchFor(t, m, want()))
			if err != nil {
				t.Fatal(err)
			}
			after, err := patch.Apply(stored)
			if err != nil {
				t.Fatal(err)
			}
			var got kubevirtv1.VirtualMachineInstanceMigration
			if err := json.Unmarshal(after, &got); err != nil {
				t.Fatal(err)
			}
			if !Carries(&got, want()) || len(got.Status.Conditions) != len(m.Status.Conditions)+3 {
				t.Errorf("conditions: %+v", got.Status.Conditions)
			}
			if again := patchFor(t, &got, want()); again != nil {
				t.Errorf("a second patch: %s", again)
			}
			if diff := cmp.Diff(string(toJSON(t, got.Status.Conditions)), string(toJSON(t, Remembered(m, want(), noon).Status.Conditions))); diff != "" {
				t.Errorf("Remembered differs from what the patch makes (-patch +remembered):\n%s", diff)
			}
		})
	}
}

// TestRemembered keeps what is foreign, and leaves its argument alone.
func TestRemembered(t *testing.T) {
	m := vmim(abortRequested(), written("storageMigrated", corev1.ConditionUnknown, "AttachingTarget"))
	before := m.DeepCopy()
	got := Remembered(m, want(), noon)
	if diff := cmp.Diff(before, m); diff != "" {
		t.Errorf("the argument changed (-before +after):\n%s", diff)
	}
	if !Carries(got, want()) || got.Status.Conditions[0] != abortRequested() || got.Status.Conditions[1].LastTransitionTime != earlier {
		t.Errorf("conditions: %+v", got.Status.Conditions)
	}
}

func TestCarries(t *testing.T) {
	ours := []condition{written("storageDualAttached", corev1.ConditionTrue, "LiveMigration"),
		written("storageMigrated", corev1.ConditionUnknown, "DualAttached"), written("storageMigrationTimedOut", corev1.ConditionFalse, "WithinDeadline")}
	if !Carries(vmim(append(ours, abortRequested())...), want()) {
		t.Error("all are there, with other messages")
	}
	if Carries(vmim(ours[:2]...), want()) {
		t.Error("one is missing")
	}
	for _, other := range []condition{
		written("storageMigrationTimedOut", corev1.ConditionTrue, "WithinDeadline"),
		written("storageMigrationTimedOut", corev1.ConditionFalse, "Resolved"),
	} {
		if Carries(vmim(ours[0], ours[1], other), want()) {
			t.Errorf("%+v is not what is wanted", other)
		}
	}
}
