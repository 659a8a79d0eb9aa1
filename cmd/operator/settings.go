package main

import (
	"sync"

	"git.srvlab.io/whiskey/rds-csi-operator/cmd/internal/rdsdriver"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
)

// settings are what one part of the operator finds out while it runs and another one
// must know: deadlines from the RDSDriver, and the grant for VMI conditions for its
// status. All methods are safe for concurrent use.
type settings struct {
	flags   dualattach.Limits
	changed func() // told of a change of the grant; may be nil, set before the start

	mu      sync.Mutex
	current dualattach.Limits
	known   bool // whether the grant was asked for
	granted bool
	reason  string
}

func newSettings(flags dualattach.Limits) *settings { return &settings{flags: flags, current: flags} }

// limits are the deadlines in force: the flags', unless the RDSDriver says otherwise.
func (s *settings) limits() dualattach.Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *settings) setDeadlines(d v1alpha1.Deadlines) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = rdsdriver.Limits(s.flags, d)
}

// setGrant keeps what vmireport.Grant found.
func (s *settings) setGrant(granted bool, reason string) {
	s.mu.Lock()
	s.known, s.granted, s.reason = true, granted, reason
	s.mu.Unlock()
	if s.changed != nil {
		s.changed()
	}
}

// grant implements driver.Grant.
func (s *settings) grant() (granted, known bool, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known {
		return false, false, "KubeVirt is not installed"
	}
	return s.granted, true, s.reason
}
