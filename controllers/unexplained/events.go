package unexplained

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

// Warning is the event that speaks of a finding of a claim's volume.
func (f Finding) Warning(claim string) dualattach.Event {
	return dualattach.Event{Type: corev1.EventTypeWarning, Reason: kinds[f.Kind].reason, Claim: claim,
		Step: f.step(), Message: f.About(claim)}
}

// About says what is the matter with a claim's volume.
func (f Finding) About(claim string) string {
	return fmt.Sprintf("RDS volume of claim %s: %s", claim, f.Message)
}

// step tells events of one reason and claim apart.
func (f Finding) step() string { return f.Kind.String() + " " + f.Node + " " + f.ID }

// resolved is the event that takes back what was said.
func (s *Snapshot) resolved(r Remembered) dualattach.Event {
	reason, text := EventResolved, over[r.Finding.Kind]
	if r.Finding.Kind.OfArray() {
		reason = EventAgree
		if !s.Told.Ledger.Known {
			text = "there is no ledger to compare with any more: " + s.Told.Ledger.Problem
		}
	}
	if r.Finding.Node != "" {
		text = r.Finding.Node + ": " + text
	}
	return dualattach.Event{Type: corev1.EventTypeNormal, Reason: reason, Claim: s.Claim, Step: r.Finding.step(),
		Message: fmt.Sprintf("RDS volume of claim %s: %s; it was so since %s, for %s", s.Claim, text, stamp(r.Since), short(s.Now.Sub(r.Since)))}
}

// over says how each kind ends.
var over = map[Kind]string{
	DualAttach:   "live pods of different owners use it on two nodes no more",
	Lingering:    "the attachment is gone, or a live pod uses it again",
	TooMany:      "it is attached on no more nodes than may hold it",
	NodeGone:     "the attachment is gone, or the node is back",
	NotAttached:  "the array and the cluster agree again",
	NotPublished: "the array and the cluster agree again",
	Exported:     "the ledger and the export agree again",
	NotExported:  "the ledger and the export agree again",
}

// stamp spells a time for people.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// short spells a duration for people.
func short(d time.Duration) string { return dualattach.Seconds(d) }
