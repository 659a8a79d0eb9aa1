package csi

import (
	"context"
	"fmt"
	"path"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Interceptor is the edge of the gRPC server: it gives every request a logger
// that knows the method, the volume and the node, refuses requests while ready
// says that this process must not serve, turns errors into codes, keeps a panic to
// the request that caused it, and logs and measures how it ended. ready may be
// nil.
func Interceptor(log logr.Logger, metrics *Metrics, ready func() error) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		method := path.Base(info.FullMethod)
		log := log.WithValues(requestValues(method, request)...)
		if detail := log.V(3); detail.Enabled() {
			if m, ok := request.(proto.Message); ok {
				detail.Info("request", "content", withoutSecrets(m))
			}
		}
		start := time.Now()
		response, err := guarded(logr.NewContext(ctx, log), request, method, ready, handler)
		err = toStatus(ctx, err)
		took := time.Since(start)
		metrics.observeRPC(method, status.Code(err), took)
		logOutcome(log, method, err, took)
		return response, err
	}
}

// guarded runs the handler, and makes an error of a panic.
func guarded(ctx context.Context, request any, method string, ready func() error, handler grpc.UnaryHandler) (response any, err error) {
	defer func() {
		if p := recover(); p != nil {
			logr.FromContextOrDiscard(ctx).Error(fmt.Errorf("panic: %v", p), "a request ended in a panic; please report this", "stack", string(debug.Stack()))
			response, err = nil, status.Errorf(codes.Internal, "%s: a defect of the plugin (panic: %v); its log has the details", method, p)
		}
	}()
	// Probe says it in its answer.
	if ready != nil && method != "Probe" {
		if err := ready(); err != nil {
			return nil, fmt.Errorf("%w: %w", errNotReady, err)
		}
	}
	return handler(ctx, request)
}

// requestValues are what log lines of a request carry.
func requestValues(method string, request any) []any {
	values := []any{"method", method}
	if r, ok := request.(interface{ GetVolumeId() string }); ok && r.GetVolumeId() != "" {
		values = append(values, "volume", r.GetVolumeId())
	}
	if r, ok := request.(interface{ GetSnapshotId() string }); ok && r.GetSnapshotId() != "" {
		values = append(values, "snapshot", r.GetSnapshotId())
	}
	if r, ok := request.(interface{ GetSourceVolumeId() string }); ok && r.GetSourceVolumeId() != "" {
		values = append(values, "sourceVolume", r.GetSourceVolumeId())
	}
	if r, ok := request.(interface{ GetName() string }); ok && r.GetName() != "" {
		values = append(values, "name", r.GetName())
	}
	if r, ok := request.(interface{ GetNodeId() string }); ok {
		node := r.GetNodeId()
		if node == "" {
			node = "(every node)"
		}
		values = append(values, "node", node)
	}
	return values
}

// changing are the methods that change something; how they end is for the
// operator of a cluster, what the others answer is not.
var changing = []string{"CreateVolume", "DeleteVolume", "ControllerPublishVolume", "ControllerUnpublishVolume", "ControllerExpandVolume",
	"CreateSnapshot", "DeleteSnapshot"}

// changingNode are those of the Node service.
var changingNode = []string{"NodeStageVolume", "NodeUnstageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeExpandVolume"}

// logOutcome writes the one line of a request. A refusal is not an error of the
// plugin: it is returned, and told here because csi sidecars tell it late.
func logOutcome(log logr.Logger, method string, err error, took time.Duration) {
	log = log.WithValues("duration", took.String())
	switch {
	case status.Code(err) == codes.Internal:
		log.Error(err, "request failed")
	case err != nil && status.Code(err) != codes.Unimplemented:
		log.Info("request refused", "code", status.Code(err).String(), "reason", status.Convert(err).Message())
	case slices.Contains(changing, method), slices.Contains(changingNode, method):
		log.Info("request done")
	default:
		log.V(1).Info("request done")
	}
}
