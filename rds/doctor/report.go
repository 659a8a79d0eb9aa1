package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Finding is what a check found.
type Finding struct {
	Check      string  `json:"check"`
	Verdict    Verdict `json:"verdict"`
	Detail     string  `json:"detail"`
	Assumption string  `json:"assumption"`
	Promise    string  `json:"promise"`
	Advice     string  `json:"advice,omitempty"` // with a failure
}

// Report is an examination of one array.
type Report struct {
	Array    string    `json:"array"`
	Address  string    `json:"address"`
	Version  string    `json:"version"`
	At       time.Time `json:"at"`
	Findings []Finding `json:"findings"`
}

// Count is how many findings have a verdict.
func (r Report) Count(v Verdict) int {
	n := 0
	for _, f := range r.Findings {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// Text prints the report for people: a line for each check, and for what did not pass
// what that means.
func Text(w io.Writer, r Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "array %s (%s), RouterOS %s, %s\n\n", r.Array, r.Address, r.Version, r.At.Format(time.RFC3339))
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-8s %-22s %s\n", f.Verdict, f.Check, f.Detail)
		if f.Verdict != Fail && f.Verdict != Unknown {
			continue
		}
		fmt.Fprintf(&b, "%9sassumed: %s\n%9srests on it: %s\n", "", f.Assumption, "", f.Promise)
		if f.Advice != "" {
			fmt.Fprintf(&b, "%9sdo: %s\n", "", f.Advice)
		}
	}
	fmt.Fprintf(&b, "\n%d passed, %d failed, %d unknown, %d skipped\n", r.Count(Pass), r.Count(Fail), r.Count(Unknown), r.Count(Skipped))
	_, err := io.WriteString(w, b.String())
	return err
}

// JSON prints the report for programs.
func JSON(w io.Writer, r Report) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}
