package attachment

import (
	"context"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/report"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
)

// events are those on claims. Their names follow from the volume and the finding, so
// that each is made once, whichever process finds it.
type events struct {
	writer client.Writer
	reader client.Reader
	clock  clock.PassiveClock
}

// make makes an event about a volume's claim.
func (e events) make(ctx context.Context, v *gather.Volume, event dualattach.Event) error {
	_, err := report.Event(ctx, e.writer, event, v.Claim, v.UID, e.clock.Now())
	return err
}

// Recall is what an earlier process said of findings, as the claim's events tell. reader
// is asked for one event each, and so not a cache.
func Recall(ctx context.Context, reader client.Reader, v *gather.Volume, findings []unexplained.Finding) (unexplained.Memory, error) {
	memory := unexplained.Memory{}
	for _, f := range findings {
		at, said, err := report.EventMade(ctx, reader, f.Warning(v.Claim.Name), v.Claim, v.UID)
		if err != nil {
			return nil, err
		}
		if said {
			memory[f.Key()] = unexplained.Remembered{Finding: f, Since: at, SaidAt: at}
		}
	}
	return memory, nil
}
