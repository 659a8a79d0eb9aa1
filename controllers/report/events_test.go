package report

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

func claimRef(name string) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: "shop", Name: name, UID: "uid-of-claim"}
}

// TestEventName: the same thing has the same name for ever, another thing another
// one, and the API server takes all of them.
func TestEventName(t *testing.T) {
	late := dualattach.Event{Reason: "MigrationFailed", Step: "DualAttached", Claim: "disk", Message: "5 s"}
	base := eventName(late, claimRef("disk"), "uid-1")
	if got := eventName(dualattach.Event{Reason: late.Reason, Step: late.Step, Claim: "disk", Message: "6 s"}, claimRef("disk"), "uid-1"); got != base {
		t.Errorf("another text gives another name: %s, then %s", base, got)
	}
	vmi := corev1.ObjectReference{Kind: "VirtualMachineInstance", Namespace: "shop", Name: "disk"}
	for what, name := range map[string]string{
		"reason":    eventName(dualattach.Event{Reason: "MigrationDelayed", Step: late.Step}, claimRef("disk"), "uid-1"),
		"step":      eventName(dualattach.Event{Reason: late.Reason}, claimRef("disk"), "uid-1"),
		"migration": eventName(late, claimRef("disk"), "uid-2"),
		"claim":     eventName(late, claimRef("data"), "uid-1"),
		"kind":      eventName(late, vmi, "uid-1"),
	} {
		if name == base {
			t.Errorf("another %s gives the same name", what)
		}
	}
	long := strings.Repeat("a", 199)
	for _, claim := range []string{"disk", "web.disk-0", long + "-b" + long[:40], long + ".b", long + "bcd", long[:198] + ".x"} {
		name := eventName(late, claimRef(claim), types.UID("uid-1"))
		if problems := validation.NameIsDNSSubdomain(name, false); len(problems) > 0 {
			t.Errorf("claim of %d bytes: event %q: %v", len(claim), name, problems)
		}
	}
	if eventName(late, claimRef(long+"b-1"), "uid-1") == eventName(late, claimRef(long+"b-2"), "uid-1") {
		t.Error("long names that differ at their ends give the same event")
	}
}

// TestShorten: at most 1,024 bytes, and no half characters.
func TestShorten(t *testing.T) {
	for name, message := range map[string]string{
		"short":          "claim disk",
		"the limit":      strings.Repeat("x", 1024),
		"beyond":         strings.Repeat("x", 1025),
		"two bytes":      strings.Repeat("ä", 600),
		"two bytes, odd": "x" + strings.Repeat("ä", 600),
		"three bytes":    strings.Repeat("→", 400),
		"four bytes":     "xy" + strings.Repeat("💾", 300),
	} {
		t.Run(name, func(t *testing.T) {
			got := shorten(message)
			if len(got) > 1024 || !utf8.ValidString(got) {
				t.Errorf("%d bytes, valid: %t", len(got), utf8.ValidString(got))
			}
			if len(message) <= 1024 && got != message {
				t.Errorf("a message of %d bytes became %q", len(message), got)
			}
			if len(message) > 1024 && (len(got) < 1020 || !strings.HasSuffix(got, "...") || !strings.HasPrefix(message, strings.TrimSuffix(got, "..."))) {
				t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-5:])
			}
		})
	}
}

// eventWriter answers a create and keeps what was to be made.
type eventWriter struct {
	client.Writer
	err  error
	made *corev1.Event
}

func (w *eventWriter) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	w.made = o.(*corev1.Event)
	return w.err
}

func TestEvent(t *testing.T) {
	events := schema.GroupResource{Resource: "events"}
	going := apierrors.NewForbidden(events, "x", errors.New("going"))
	going.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	e := dualattach.Event{Type: corev1.EventTypeWarning, Reason: "MigrationDelayed", Step: "DualAttached", Claim: "disk", Message: strings.Repeat("ä", 1000)}
	cases := map[string]struct {
		reason string
		args   error
		made   bool
		fails  bool
	}{
		"new":                {"It is made.", nil, true, false},
		"made before":        {"Making it again changes nothing.", apierrors.NewAlreadyExists(events, "x"), false, false},
		"not possible":       {"The caller tries again.", apierrors.NewForbidden(events, "x", nil), false, true},
		"namespace is going": {"There is nobody to tell.", going, false, false},
		"namespace is gone":  {"There is nobody to tell.", apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "shop"), false, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := &eventWriter{err: tc.args}
			made, err := Event(t.Context(), w, e, claimRef("disk"), "uid-1", noon)
			if made != tc.made || (err != nil) != tc.fails {
				t.Errorf("%s: made %t, %v", tc.reason, made, err)
			}
			got := w.made
			if got.Name != eventName(e, claimRef("disk"), "uid-1") || got.Namespace != "shop" || got.InvolvedObject != claimRef("disk") {
				t.Errorf("made for %s/%s about %+v", got.Namespace, got.Name, got.InvolvedObject)
			}
			if got.Type != e.Type || got.Reason != e.Reason || got.Count != 1 || !got.FirstTimestamp.Time.Equal(noon) || !got.LastTimestamp.Time.Equal(noon) || len(got.Message) > 1024 {
				t.Errorf("event: %+v", got)
			}
		})
	}
}
