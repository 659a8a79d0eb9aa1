package main

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/leaderelection"
	"sigs.k8s.io/controller-runtime/pkg/recorder"
)

// renewDeadline is controller-runtime's default.
const renewDeadline = 10 * time.Second

// watchedLease is the lock of the leader election that remembers when another
// process held it last: what happened from then until this one leads, nobody saw.
type watchedLease struct {
	resourcelock.Interface
	mu   sync.Mutex
	last time.Time
}

// newLease makes the lock; nil where there is no election.
func newLease(config *rest.Config, o Options) (*watchedLease, error) {
	if !o.LeaderElection {
		return nil, nil
	}
	lock, err := leaderelection.NewResourceLock(rest.CopyConfig(config), noRecorder{}, leaderelection.Options{
		LeaderElection: true, LeaderElectionNamespace: o.LeaseNamespace, LeaderElectionID: o.LeaseName, RenewDeadline: renewDeadline,
	})
	if err != nil {
		return nil, err
	}
	return &watchedLease{Interface: lock}, nil
}

// Get implements resourcelock.Interface. It is called before the Lease is taken over
// from another holder.
func (l *watchedLease) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	r, raw, err := l.Interface.Get(ctx)
	if err == nil && r.HolderIdentity != l.Identity() {
		l.mu.Lock()
		l.last = r.RenewTime.Time
		l.mu.Unlock()
	}
	return r, raw, err
}

// heldByAnother is when another process renewed or released the Lease last, zero
// where none ever did or there is no election.
func (l *watchedLease) heldByAnother() time.Time {
	if l == nil {
		return time.Time{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// noRecorder makes no events of the election: the Lease says who leads.
type noRecorder struct{ recorder.Provider }

// GetEventRecorderFor implements recorder.Provider.
func (noRecorder) GetEventRecorderFor(string) record.EventRecorder { return nil }
