package node

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/mount"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/node/child"
	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

var (
	// errPending: another request for the volume is under way, or a child of one.
	errPending = errors.New("another operation on the volume is under way")
	// errNotHere: this node knows nothing of the volume.
	errNotHere = errors.New("not found on this node")
	// errNotStaged: publishing needs staging first.
	errNotStaged = errors.New("not staged on this node")
	// errDead: the device under a mount is gone or another one.
	errDead = errors.New("the volume is inaccessible on this node")
	// errIncompatible: the same place was asked for in another way.
	errIncompatible = errors.New("in place already, but not as asked for")
	// errExclusive: the access mode allows one place only.
	errExclusive = errors.New("in use by another pod on this node")
	// errOutOfRange: the device is larger than is allowed.
	errOutOfRange = errors.New("capacity range cannot be met")
)

// codeOf is the one place that turns errors into gRPC codes; the first that
// matches counts. To kubelet Aborted, Canceled, DeadlineExceeded and Unavailable
// mean that something may be under way: it tries again, and unstages what it no
// longer wants. After any other code of NodeStageVolume it believes that nothing
// is left, so NodeStageVolume cleans up before it returns one.
var codeOf = []struct {
	err  error
	code codes.Code
}{
	{errPending, codes.Aborted},
	{child.ErrDeadline, codes.DeadlineExceeded},
	{rds.ErrInvalid, codes.InvalidArgument},
	{errNotHere, codes.NotFound},
	{errIncompatible, codes.AlreadyExists},
	{errNotStaged, codes.FailedPrecondition},
	{errDead, codes.FailedPrecondition},
	{errExclusive, codes.FailedPrecondition},
	{errOutOfRange, codes.OutOfRange},
	{mount.ErrDamaged, codes.DataLoss},
	{mount.ErrNotBlank, codes.FailedPrecondition},
	{mount.ErrWrongType, codes.FailedPrecondition},
	{mount.ErrReadOnly, codes.FailedPrecondition},
	{nvme.ErrForeign, codes.PermissionDenied},
	{nvme.ErrInUse, codes.FailedPrecondition},
	{nvme.ErrAmbiguous, codes.FailedPrecondition},
	// What was asked for is there, the host just does not see it yet.
	{nvme.ErrNotGrown, codes.Unavailable},
	{nvme.ErrTooSmall, codes.OutOfRange},
	{nvme.ErrUnreachable, codes.Unavailable},
	{nvme.ErrNoDevice, codes.Unavailable},
	{nvme.ErrStillConnected, codes.Internal},
	{mount.ErrStillMounted, codes.Internal},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// fail makes the error that the caller sees. what names the operation and the
// volume.
func fail(err error, what string, args ...any) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf(what+": %w", append(args, err)...)
	return status.Error(codeFor(err), err.Error())
}

func codeFor(err error) codes.Code {
	for _, known := range codeOf {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	return codes.Internal
}

// final reports whether kubelet takes the error for the end of a staging.
func final(err error) bool {
	switch codeFor(err) {
	case codes.Aborted, codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return false
	}
	return err != nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{rds.ErrInvalid}, args...)...)
}
