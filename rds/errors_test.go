package rds

import (
	"errors"
	"fmt"
	"testing"
)

// TestSameFailure: what a person would do next tells failures apart, their texts do not.
func TestSameFailure(t *testing.T) {
	refused := &Error{Kind: ErrUnreachable, Err: errors.New("dial 192.0.2.1:22 from port 40000: connection refused")}
	again := &Error{Kind: ErrUnreachable, Err: errors.New("dial 192.0.2.1:22 from port 40001: connection refused")}
	hostKey, userKey := &Error{Kind: ErrDenied, Hint: "compare the fingerprint"}, &Error{Kind: ErrDenied, Hint: "list the key"}
	for name, tc := range map[string]struct {
		a, b error
		want bool
	}{
		"none":            {nil, nil, true},
		"the first":       {nil, refused, false},
		"over":            {refused, nil, false},
		"another port":    {refused, again, true},
		"wrapped":         {refused, fmt.Errorf("read the array: %w", again), true},
		"another kind":    {refused, hostKey, false},
		"another remedy":  {hostKey, userKey, false},
		"not of an array": {refused, errors.New("no key"), false},
		"neither":         {errors.New("no key"), errors.New("no file"), true},
	} {
		if got := SameFailure(tc.a, tc.b); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
		if got := SameFailure(tc.b, tc.a); got != tc.want {
			t.Errorf("%s, the other way round: %t", name, got)
		}
	}
}
