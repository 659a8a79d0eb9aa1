package routeros

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// A phrase of the array and what it means.
type phrase struct {
	text string
	kind error
	hint string
}

// phrases are compared in lower case, in this order. What is marked [INF] was
// never seen on a real array; a text that matches nothing is ErrFailed, with the
// array's own words.
var phrases = []phrase{
	{"not allowed by device-mode", rds.ErrDenied, "allow the feature with /system/device-mode on the array's console"},
	{"not enough permissions", rds.ErrDenied, "the user needs the policies ssh, read, write and test"},
	{"no permission", rds.ErrDenied, "the user needs the policies ssh, read, write and test"}, // [INF]
	// It was found a moment before. That it is gone for good, only a new answer
	// can prove.
	{"no such item", rds.ErrConflict, ""},
	{"already have such", rds.ErrExists, ""},
	{"already exists", rds.ErrExists, ""},         // [INF]
	{"slot already", rds.ErrExists, ""},           // [INF]
	{"no space left", rds.ErrNoSpace, ""},         // [INF]
	{"not enough space", rds.ErrNoSpace, ""},      // [INF]
	{"not enough disk space", rds.ErrNoSpace, ""}, // [INF]
	{"not enough free", rds.ErrNoSpace, ""},       // [INF]
	{"disk full", rds.ErrNoSpace, ""},             // [INF]
	{"bad command name", rds.ErrUnsupported, "is this RouterOS 7.21 or newer, with the ROSE package?"},
	{"bad parameter", rds.ErrUnsupported, "is this RouterOS 7.21 or newer, with the ROSE package?"},
}

// classify makes an error of what the array said. Nothing it says is success.
func classify(words string) *rds.Error {
	lower := strings.ToLower(words)
	for _, p := range phrases {
		if strings.Contains(lower, p.text) {
			return &rds.Error{Kind: p.kind, Words: words, Hint: p.hint}
		}
	}
	return &rds.Error{Kind: rds.ErrFailed, Words: words}
}

// notParsed recognises the complaint about a script that was not understood. A
// script is parsed as a whole before any of it runs [DEV], so nothing was done.
var notParsed = regexp.MustCompile(`(?i)^\s*(syntax error|bad command name|bad parameter|expected |missing value|input does not match|ambiguous value|invalid value).*\(line \d+ column \d+\)\s*$`)

// classifyHandshake tells apart who refused: nobody answered, the host key is
// not the pinned one, or the array does not accept the user's key.
func classifyHandshake(err, ended error) error {
	if kind := (*rds.Error)(nil); errors.As(err, &kind) {
		return kind
	}
	text := err.Error()
	switch {
	case ended != nil:
		return &rds.Error{Kind: rds.ErrUnreachable, Err: fmt.Errorf("the handshake was not over in time: %w", ended)}
	case strings.Contains(text, "unable to authenticate"):
		return &rds.Error{Kind: rds.ErrDenied, Err: err, Hint: "does /user/ssh-keys on the array list this key for this user, and does the user's group have the policy ssh?"}
	case strings.Contains(text, "no common algorithm for host key"):
		return wrongHostKey(err)
	case strings.Contains(text, "no common algorithm"):
		return &rds.Error{Kind: rds.ErrDenied, Err: err, Hint: "set /ip/ssh strong-crypto=yes on the array"}
	}
	return &rds.Error{Kind: rds.ErrUnreachable, Err: err, Hint: "an array with all its sessions used up hangs up like this as well; see max-sessions"}
}

// about completes an error of this package with what was attempted and on which
// volume.
func (a *Array) about(op, slot string, err error) error {
	if err == nil {
		return nil
	}
	e, ours := err.(*rds.Error) //nolint:errorlint // only an error that is ours as it stands may be completed
	if !ours {
		e = &rds.Error{Kind: rds.ErrFailed, Err: err}
	}
	full := *e
	full.Op, full.Array, full.Slot = cmp.Or(full.Op, op), cmp.Or(full.Array, a.cfg.Name), cmp.Or(full.Slot, slot)
	return &full
}

// resultLabel names an outcome for metrics; the set is closed.
func resultLabel(err error) string {
	if err == nil {
		return "ok"
	}
	for _, k := range kinds {
		if errors.Is(err, k.kind) {
			return k.label
		}
	}
	return "failed"
}

// Verbs are those that WithObserver is told.
func Verbs() []string {
	return []string{"view", "volume", "create", "update", "remove", "files", "snapshot", "snapshots", "copy"}
}

// Results are those that WithObserver is told.
func Results() []string {
	results := []string{"ok", "failed"}
	for _, k := range kinds {
		results = append(results, k.label)
	}
	return results
}

var kinds = []struct {
	kind  error
	label string
}{
	{rds.ErrUnreachable, "unreachable"}, {rds.ErrUnknownOutcome, "unknown"}, {rds.ErrDenied, "denied"},
	{rds.ErrBusy, "busy"}, {rds.ErrNotFound, "notfound"}, {rds.ErrExists, "exists"},
	{rds.ErrNoSpace, "nospace"}, {rds.ErrUnsupported, "unsupported"}, {rds.ErrConflict, "conflict"},
}
