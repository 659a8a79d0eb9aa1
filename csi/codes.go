package csi

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

var (
	// errNoArray: a handle names an array that is not configured, so whether the
	// volume exists is unknown.
	errNoArray = errors.New("array not configured")
	// errToken: a starting_token that this plugin did not hand out.
	errToken = errors.New("starting_token is not one of this driver's; start without one")
	// errNotReady: this process must not serve, for example because it lost its Lease.
	errNotReady = errors.New("this plugin instance must not serve now")
)

// codeOf is the one place that turns errors into gRPC codes; the first that
// matches counts.
//
// csi-provisioner takes Canceled, DeadlineExceeded, Unavailable and Aborted for
// "may still be under way" and retries; every other code, ResourceExhausted
// included, is final, and it forgets the volume. csi-attacher treats
// ResourceExhausted as under way as well. So whatever may have left something
// behind is one of the former.
var codeOf = []struct {
	err  error
	code codes.Code
}{
	{errPending, codes.Aborted},
	{errNotReady, codes.Unavailable},
	{errCluster, codes.Unavailable},
	{errNoArray, codes.FailedPrecondition},
	{errToken, codes.Aborted},
	// The command may have run or run still. See toStatus for ended contexts.
	{rds.ErrUnknownOutcome, codes.Aborted},
	{rds.ErrUnreachable, codes.Unavailable},
	// Not Unavailable: a person must tell an array that is down from one whose
	// sessions are used up. Not ResourceExhausted: that is "no space" and final to
	// csi-provisioner. Aborted asks for a retry with backoff, which is what helps.
	{rds.ErrBusy, codes.Aborted},
	// Not Unauthenticated: that speaks of secrets in the request, and there are
	// none. It is the plugin whom the array refuses, until someone changes that.
	{rds.ErrDenied, codes.PermissionDenied},
	{rds.ErrNotFound, codes.NotFound},
	{rds.ErrExists, codes.AlreadyExists},
	{rds.ErrOutOfRange, codes.OutOfRange},
	{rds.ErrNoSpace, codes.ResourceExhausted},
	{rds.ErrUnsupported, codes.FailedPrecondition},
	{rds.ErrConflict, codes.Aborted},
	{rds.ErrInUse, codes.FailedPrecondition},
	{rds.ErrLedger, codes.FailedPrecondition},
	{rds.ErrUnderWay, codes.Aborted},
	{rds.ErrInvalid, codes.InvalidArgument},
	{rds.ErrFailed, codes.Internal},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// toStatus turns the error of a handler into the one that the caller sees. A
// request whose context ended with a command in flight says so, which csi-attacher
// and csi-provisioner both take for "may still be under way".
func toStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, rds.ErrUnknownOutcome) && ctx.Err() != nil {
		return status.Error(status.FromContextError(ctx.Err()).Code(), err.Error())
	}
	for _, known := range codeOf {
		if errors.Is(err, known.err) {
			return status.Error(known.code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
}
