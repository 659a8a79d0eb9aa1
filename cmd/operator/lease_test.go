package main

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// lease is a lock that answers as told.
type lease struct {
	resourcelock.Interface
	record resourcelock.LeaderElectionRecord
	err    error
}

func (l *lease) Identity() string { return "me" }

func (l *lease) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	return &l.record, nil, l.err
}

// TestHeldByAnother: the last time of another holder's, whatever this process did since.
func TestHeldByAnother(t *testing.T) {
	noon := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	inner := &lease{}
	l := &watchedLease{Interface: inner}
	step := func(what, holder string, renewed time.Time, err error, want time.Time) {
		t.Helper()
		inner.record.HolderIdentity, inner.record.RenewTime, inner.err = holder, metav1.NewTime(renewed), err
		_, _, _ = l.Get(t.Context())
		if got := l.heldByAnother(); !got.Equal(want) {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	step("no Lease", "", noon, errors.New("not found"), time.Time{})
	step("another leads", "you", noon, nil, noon)
	step("still", "you", noon.Add(time.Second), nil, noon.Add(time.Second))
	step("it let go", "", noon.Add(2*time.Second), nil, noon.Add(2*time.Second))
	step("I lead", "me", noon.Add(time.Minute), nil, noon.Add(2*time.Second))
	if got := (*watchedLease)(nil).heldByAnother(); !got.IsZero() {
		t.Errorf("without an election: %s", got)
	}
}
