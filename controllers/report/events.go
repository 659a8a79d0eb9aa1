package report

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

const (
	// Component is the reporter of our events.
	Component = "rds-csi-operator"
	// maxEventMessage is the API's limit, in bytes.
	maxEventMessage = 1024
)

// Event makes an event about an object. Its name follows from its subject (a
// migration or a volume), the reason, the object and the step, so that making it
// again changes nothing: made is false when it existed. It is so, too, where the
// object's namespace is gone, or going: there is nobody to tell.
func Event(ctx context.Context, c client.Writer, e dualattach.Event, about corev1.ObjectReference, subject types.UID, now time.Time) (made bool, err error) {
	at := metav1.Time{Time: now}
	event := &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: about.Namespace, Name: eventName(e, about, subject)},
		InvolvedObject:      about,
		Type:                e.Type,
		Reason:              e.Reason,
		Message:             shorten(e.Message),
		FirstTimestamp:      at,
		LastTimestamp:       at,
		Count:               1,
		Source:              corev1.EventSource{Component: Component},
		ReportingController: Component,
	}
	err = c.Create(ctx, event)
	switch {
	case apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("make event %s on %s %s/%s: %w", e.Reason, about.Kind, about.Namespace, about.Name, err)
	}
	return true, nil
}

// EventMade reads whether Event made this one before, and when. Events are kept for
// an hour by default.
func EventMade(ctx context.Context, c client.Reader, e dualattach.Event, about corev1.ObjectReference, subject types.UID) (at time.Time, made bool, err error) {
	var event corev1.Event
	err = c.Get(ctx, types.NamespacedName{Namespace: about.Namespace, Name: eventName(e, about, subject)}, &event)
	switch {
	case apierrors.IsNotFound(err):
		return time.Time{}, false, nil
	case err != nil:
		return time.Time{}, false, fmt.Errorf("read event %s on %s %s/%s: %w", e.Reason, about.Kind, about.Namespace, about.Name, err)
	}
	return event.FirstTimestamp.Time, true, nil
}

func eventName(e dualattach.Event, about corev1.ObjectReference, subject types.UID) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{string(subject), e.Reason, e.Step, about.Kind, about.Name}, "\x00")))
	name := about.Name
	if len(name) > 200 {
		name = name[:200]
	}
	return strings.TrimRight(name, ".-") + "." + hex.EncodeToString(sum[:8])
}

func shorten(message string) string {
	if len(message) <= maxEventMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxEventMessage-3], "") + "..."
}
