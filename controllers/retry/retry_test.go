package retry

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// TestPace: an outage of an hour delays nothing by more than seconds once it is over.
func TestPace(t *testing.T) {
	pauses := Pace()
	var total, pause time.Duration
	attempts := 0
	for ; total < time.Hour; attempts++ {
		pause = pauses.When(reconcile.Request{})
		total += pause
	}
	if pause != last || attempts > 300 {
		t.Errorf("%d attempts in an hour, the last pause %s", attempts, pause)
	}
}
