package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// errLeaseLost: another process may serve now, so this one must be gone.
var errLeaseLost = errors.New("the Lease is lost; exiting so that no two processes change volumes")

// errCutOff: requests were cut off by the shutdown, so what they began may still
// be running on an array.
var errCutOff = errors.New("requests did not end in time and were cut off")

// lease is the right to serve.
type lease struct {
	lock    resourcelock.Interface
	config  leaderelection.LeaderElectionConfig
	elector atomic.Pointer[leaderelection.LeaderElector]
}

func newLease(client kubernetes.Interface, o Options) (*lease, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name this process for the Lease: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: o.LeaseNamespace, Name: o.leaseName()},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + uuid.NewString()},
	}
	return &lease{lock: lock, config: leaderelection.LeaderElectionConfig{
		Lock:          lock,
		LeaseDuration: o.LeaseDuration,
		RenewDeadline: o.RenewDeadline,
		RetryPeriod:   o.RetryPeriod,
		Name:          o.leaseName(),
		// client-go would release the Lease of a holder that failed to renew it
		// while it still serves; release below does so when it no longer does.
		ReleaseOnCancel: false,
	}}, nil
}

// held reports why this process must not serve. A process that was frozen past
// its Lease wakes up believing in it; the clock tells otherwise.
func (l *lease) held() error {
	elector := l.elector.Load()
	if elector == nil || !elector.IsLeader() {
		return errors.New("the Lease is not held")
	}
	return elector.Check(-l.config.RetryPeriod)
}

// lead waits for the Lease and then serves until ctx ends or the Lease is lost.
// serve must return soon after either; lost is closed at the loss.
func (l *lease) lead(ctx context.Context, serve func(ctx context.Context, lost <-chan struct{}) error) error {
	// Renewed until serving has ended, which is later than ctx does.
	electing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	started, over := make(chan struct{}), make(chan struct{})
	config := l.config
	config.Callbacks = leaderelection.LeaderCallbacks{
		OnStartedLeading: func(context.Context) { close(started) },
		OnStoppedLeading: func() {},
	}
	elector, err := leaderelection.NewLeaderElector(config)
	if err != nil {
		return err
	}
	l.elector.Store(elector)
	go func() {
		defer close(over)
		elector.Run(electing)
	}()
	select {
	case <-started:
	case <-ctx.Done():
		stop()
		<-over
		l.release(ctx)
		return nil
	}
	err = serve(ctx, over)
	select {
	case <-over:
		return errors.Join(errLeaseLost, err)
	default:
	}
	stop()
	<-over
	if !errors.Is(err, errCutOff) {
		l.release(ctx)
	}
	return err
}

// release lets the next process serve at once. It is best effort: the Lease
// expires by itself.
func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.config.RenewDeadline)
	defer cancel()
	record, _, err := l.lock.Get(ctx)
	if err != nil || record.HolderIdentity != l.lock.Identity() {
		return
	}
	now := metav1.NewTime(time.Now())
	err = l.lock.Update(ctx, resourcelock.LeaderElectionRecord{
		LeaderTransitions: record.LeaderTransitions, LeaseDurationSeconds: 1, RenewTime: now, AcquireTime: now,
	})
	if err != nil {
		logr.FromContextOrDiscard(ctx).V(1).Info("the Lease was not released; it expires", "reason", err.Error())
	}
}
