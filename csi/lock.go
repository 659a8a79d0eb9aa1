package csi

import (
	"errors"
	"fmt"
	"sync"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// errPending: another request for the same volume is under way.
var errPending = errors.New("another operation on the volume is under way")

// operations keeps two requests from changing one volume at once. Nobody waits:
// the second one is told to come back, as the CSI specification has it, so a
// slow array never ties up the requests for other volumes.
type operations struct {
	mu      sync.Mutex
	pending map[string]string // canonical handle → what is under way
}

// begin marks the operation as under way until the function it returns is called.
func (o *operations) begin(handle, operation string) (end func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if other, taken := o.pending[handle]; taken {
		return nil, fmt.Errorf("%s %s: %w: %s", operation, handle, errPending, other)
	}
	if o.pending == nil {
		o.pending = map[string]string{}
	}
	o.pending[handle] = operation
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.pending, handle)
	}, nil
}

// unresolved remembers the volumes whose creation was cut off in flight or goes
// on by itself.
// csi-provisioner forgets a volume at the first final error, so a later attempt
// that is refused without the array having said whether the volume exists (a
// login that no longer works, say) must not look final: the volume would leak.
type unresolved struct {
	mu      sync.Mutex
	handles map[string]struct{}
}

// note takes down how an attempt to create the volume ended, and returns the
// error to report.
func (u *unresolved) note(handle string, err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, open := u.handles[handle]
	switch {
	case errors.Is(err, rds.ErrUnknownOutcome), errors.Is(err, rds.ErrUnderWay):
		if u.handles == nil {
			u.handles = map[string]struct{}{}
		}
		u.handles[handle] = struct{}{}
	case open && (errors.Is(err, rds.ErrDenied) || errors.Is(err, rds.ErrUnsupported)):
		return fmt.Errorf("%w of an earlier attempt to create the volume; now: %w", rds.ErrUnknownOutcome, err)
	case errors.Is(err, rds.ErrUnreachable), errors.Is(err, rds.ErrBusy), errors.Is(err, rds.ErrConflict), errors.Is(err, errPending), errors.Is(err, errCluster):
		// Not an answer about the volume.
	default:
		delete(u.handles, handle)
	}
	return err
}
