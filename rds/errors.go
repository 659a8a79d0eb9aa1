package rds

import (
	"errors"
	"strings"
)

// The kinds of failure that callers tell apart. Test for them with errors.Is;
// every error of an Array wraps exactly one of them.
var (
	// ErrUnreachable: the array could not be asked and nothing was sent to it.
	ErrUnreachable = errors.New("array unreachable")
	// ErrUnknownOutcome: a command was cut off in flight. It may have run, may
	// be running still, or may never run; only the array knows.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrDenied: login refused, host key not the pinned one, or a policy of the
	// array's user is missing. Nothing was changed.
	ErrDenied = errors.New("access denied")
	// ErrBusy: the array is there but cannot serve this now (sessions used up).
	ErrBusy = errors.New("array busy")
	// ErrNotFound: a fresh answer of the array proves that the object is absent.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken by something that differs.
	ErrExists = errors.New("already exists")
	// ErrNoSpace: the pool cannot hold it.
	ErrNoSpace = errors.New("no space")
	// ErrUnsupported: the array's RouterOS cannot do this (too old, no pool).
	ErrUnsupported = errors.New("unsupported by the array")
	// ErrConflict: another writer changed the volume between reading and writing.
	ErrConflict = errors.New("changed meanwhile")
	// ErrInUse: the ledger names nodes that forbid the change.
	ErrInUse = errors.New("in use")
	// ErrLedger: the volume's comment cannot carry a ledger, or carries none
	// where the change needs one.
	ErrLedger = errors.New("ledger unknown")
	// ErrUnderWay: what was asked for has begun and goes on by itself; asking
	// again tells when it is done.
	ErrUnderWay = errors.New("under way")
	// ErrOutOfRange: no size meets both the request and the source.
	ErrOutOfRange = errors.New("size out of range")
	// ErrInvalid: the request itself is malformed. Nothing was sent.
	ErrInvalid = errors.New("invalid")
	// ErrFailed: the array refused in words that fit no other kind.
	ErrFailed = errors.New("array reported a failure")
)

// Error says what failed, on which array and volume, in the array's own words,
// and what to do next. Kind is one of the sentinels above.
type Error struct {
	Kind  error
	Op    string // what was attempted: "create volume", "read the array"
	Array string // the array's name or address
	Slot  string // the volume, where there is one
	Words string // the array's own words, verbatim
	Hint  string // what a person can do next
	Err   error  // the cause, where it is an error of ours
}

// Error joins the parts that are present into one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Slot != "" {
		b.WriteString(" " + e.Slot)
	}
	if e.Array != "" {
		b.WriteString(" on array " + e.Array)
	}
	if e.Kind != nil {
		b.WriteString(": " + e.Kind.Error())
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Words != "" {
		b.WriteString(": the array says: " + strings.Join(strings.Fields(e.Words), " "))
	}
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// SameFailure reports whether two errors ask the same of a person: they are of one kind
// and hint at the same. Their texts may differ, by a port for example.
func SameFailure(a, b error) bool {
	var x, y *Error
	isX, isY := errors.As(a, &x), errors.As(b, &y)
	if isX && isY {
		return errors.Is(x.Kind, y.Kind) && x.Hint == y.Hint
	}
	return isX == isY && (a == nil) == (b == nil)
}

// Unwrap lets errors.Is find both the kind and the cause.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Err} }
