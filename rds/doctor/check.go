package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Verdict is what a check found.
type Verdict string

// The verdicts.
const (
	Pass    Verdict = "PASS"
	Fail    Verdict = "FAIL"
	Unknown Verdict = "UNKNOWN" // it could not be found out
	Skipped Verdict = "SKIPPED" // it was not tried
)

// Level is what a check needs leave for.
type Level int

// The levels.
const (
	ReadOnly Level = iota
	Scratch        // makes and changes a volume of its own
	OnNode         // connects this machine to that volume as well
)

// Check is one assumption.
type Check struct {
	Name       string
	Assumption string
	Promise    string // what this project cannot keep if the assumption is wrong
	Advice     string // for a failure
	Level      Level
	run        func(context.Context, *patient) outcome
}

// outcome is a verdict and its grounds.
type outcome struct {
	verdict Verdict
	detail  string
}

func pass(format string, args ...any) outcome {
	return outcome{Pass, fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) outcome {
	return outcome{Fail, fmt.Sprintf(format, args...)}
}

func unknown(format string, args ...any) outcome {
	return outcome{Unknown, fmt.Sprintf(format, args...)}
}

// broke judges an error: what the array refused is a failure, a line that broke says
// nothing about the array.
func broke(err error) outcome {
	for _, kind := range []error{rds.ErrUnreachable, rds.ErrUnknownOutcome, rds.ErrBusy, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, kind) {
			return unknown("%v", err)
		}
	}
	return fail("%v", err)
}

// Checks are all of them, in the order in which they run.
func Checks() []Check {
	scratch := scratchChecks()
	last := len(scratch) - 1 // the deletion
	return slices.Concat(readChecks(), scratch[:last], nodeChecks(), scratch[last:])
}
