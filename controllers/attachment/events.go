package attachment

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
)

// events are those on claims. Their names follow from the volume and the finding, so
// that each is made once, whichever process finds it.
type events struct {
	writer client.Writer
	reader client.Reader
	clock  clock.PassiveClock
}

// make makes an event about a volume's claim. Where its namespace is gone, or going,
// there is nobody to tell.
func (e events) make(ctx context.Context, v *gather.Volume, event dualattach.Event) error {
	_, err := report.Event(ctx, e.writer, event, v.Claim, v.UID, e.clock.Now())
	if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

// made tells when an event was made, by this process or an earlier one.
func (e events) made(ctx context.Context, v *gather.Volume, event dualattach.Event) (at time.Time, ok bool, err error) {
	return report.EventMade(ctx, e.reader, event, v.Claim, v.UID)
}
