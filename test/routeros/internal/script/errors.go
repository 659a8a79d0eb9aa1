package script

import "fmt"

// SyntaxError is found while parsing; nothing has run. Its text is RouterOS's.
type SyntaxError struct {
	Msg          string
	Line, Column int
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s (line %d column %d)", e.Msg, e.Line, e.Column)
}

// IncompleteError says that the input ended inside a quote or a bracket. A
// RouterOS console goes on waiting.
type IncompleteError struct{ Opened string }

func (e *IncompleteError) Error() string { return "input ends inside " + e.Opened }

// Failure is a run-time error in RouterOS's words; :onerror can catch it.
type Failure struct{ Msg string }

func (e *Failure) Error() string { return e.Msg }

// Failuref makes a Failure.
func Failuref(format string, args ...any) error {
	return &Failure{Msg: fmt.Sprintf(format, args...)}
}

// returned carries the value of :return up to the call.
type returned struct{ value Value }

func (returned) Error() string { return "return outside of a function" }
