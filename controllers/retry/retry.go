// Package retry paces what reconcilers attempt again. It imports controller-runtime and
// client-go only.
package retry

import (
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// The pauses between attempts double from the first to the last.
const (
	first = 10 * time.Millisecond
	last  = 15 * time.Second
)

// Pace paces the attempts of what fails: soon at first, and however long the API
// server or KubeVirt's webhooks are away, soon after they are back.
func Pace() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](first, last)
}
