package routeros

import (
	"context"
	"encoding/json"
)

// Probe runs statements the way every operation does (one line, a sentinel, a
// deadline) and returns the values that they showed. It is for package doctor, which
// asks what no operation does. Every value in a statement must have gone through
// Quote. mutates says that a command cut off in flight leaves its outcome unknown.
func (a *Array) Probe(ctx context.Context, mutates bool, statements ...string) ([]json.RawMessage, error) {
	got, err := a.run(ctx, newScript("probe", mutates).add(statements...))
	if err != nil {
		return nil, a.about("probe", "", err)
	}
	return got.values, nil
}

// Show spells a statement that prints what a command gives as JSON.
func Show(command string) string { return show(command) }

// ProbeRoom is how many bytes of statements fit one command.
func ProbeRoom() int { return maxScript - len(newScript("probe", false).add("").line()) }
