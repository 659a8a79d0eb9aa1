package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
)

// socketMode lets the sidecars of the pod, which share its group, connect.
const socketMode = 0o660

// endpoint is the unix socket that CSI is served at.
type endpoint struct {
	path     string
	grace    time.Duration // for requests to end
	register func(*grpc.Server)
	edge     grpc.UnaryServerInterceptor
	serving  atomic.Bool
}

// serve opens the socket and answers requests. When ctx ends it closes the socket
// and lets the requests under way end; when lost is closed it cuts them off.
func (e *endpoint) serve(ctx context.Context, lost <-chan struct{}) error {
	listener, err := listen(e.path)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(e.edge))
	e.register(server)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	e.serving.Store(true)
	defer e.serving.Store(false)
	log := logr.FromContextOrDiscard(ctx)
	log.Info("serving CSI", "socket", e.path)
	select {
	case err := <-failed:
		return fmt.Errorf("serve CSI at %s: %w", e.path, err)
	case <-lost:
		server.Stop() // closes the socket first, waits for nobody
		return nil
	case <-ctx.Done():
	}
	log.Info("stopping: no new requests, those under way may end", "within", e.grace.String())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.GracefulStop()
	}()
	grace := time.NewTimer(e.grace)
	defer grace.Stop()
	select {
	case <-ended:
		return nil
	case <-lost:
		server.Stop()
		return nil
	case <-grace.C:
		server.Stop()
		return errCutOff
	}
}

// listen opens the socket. One that a dead process left behind is removed; one
// at which somebody answers is not.
func listen(path string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("open the CSI socket: %w", err)
	case info.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("open the CSI socket: %s exists and is not a socket", path)
	default:
		if conn, err := net.Dial("unix", path); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				_ = conn.Close()
			}
			return nil, fmt.Errorf("open the CSI socket: another process serves at %s", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the CSI socket of a dead process: %w", err)
		}
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the CSI socket: %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("open the CSI socket: %w", err)
	}
	return listener, nil
}
