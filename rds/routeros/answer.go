package routeros

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// answer is what a script printed, taken apart.
type answer struct {
	values   []json.RawMessage // what it showed, in order
	complete bool              // all of it arrived
	changed  bool              // it got as far as a change that it did not undo
	failed   bool              // the array reported a failure
	words    string            // the array's own, if it failed or printed none of ours
}

// parseAnswer takes apart what came back for a script of this nonce. Line ends
// are removed first: the console wraps long lines anywhere, and none of them can
// be part of JSON.
func parseAnswer(nonce string, out []byte) answer {
	text := strings.NewReplacer("\r", "", "\n", "").Replace(string(out))
	_, rest, begun := strings.Cut(text, nonce+markBegin)
	if !begun {
		return answer{words: firstWords(string(out))}
	}
	var a answer
	var values strings.Builder
	for {
		before, after, found := strings.Cut(rest, nonce)
		if !found || after == "" {
			a.words = firstWords(rest)
			return a
		}
		if a.failed {
			a.words = before
		} else {
			values.WriteString(before)
		}
		rest = after[1:]
		switch after[:1] {
		case markChanged:
			a.changed = true
		case markUndone:
			a.changed = false
		case markError:
			a.failed = true
		case markEnd:
			a.complete = true
			a.values = splitValues(values.String())
			return a
		}
	}
}

// splitValues parts JSON values that follow each other. What is not JSON becomes
// a value that no decoder accepts.
func splitValues(text string) []json.RawMessage {
	var values []json.RawMessage
	decoder := json.NewDecoder(strings.NewReader(text))
	for {
		var value json.RawMessage
		err := decoder.Decode(&value)
		if err == io.EOF {
			return values
		}
		if err != nil {
			return append(values, json.RawMessage(text[decoder.InputOffset():]))
		}
		values = append(values, bytes.Clone(value))
	}
}

// firstWords shortens a text that is quoted in an error.
func firstWords(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}

// want checks that a script showed as many values as it was built to.
func (a answer) want(n int) error {
	if len(a.values) != n {
		return fmt.Errorf("the array showed %d values instead of %d", len(a.values), n)
	}
	return nil
}
