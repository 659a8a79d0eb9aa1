package script

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
)

// testHost is a menu /box of items with a name and a size.
type testHost struct{ names []string }

func testMenus() *Menu {
	root := &Menu{Dirs: map[string]*Menu{}, Commands: map[string]*Command{}}
	box := &Menu{Path: "/box", Parent: root, Dirs: map[string]*Menu{}, Properties: map[string]bool{"name": true}}
	numbers := map[string]string{"numbers": "expected item id"}
	box.Commands = map[string]*Command{
		"find":  {Name: "find", Args: map[string]ArgKind{"where": ArgWhere}, WhereRest: true},
		"print": {Name: "print", Args: map[string]ArgKind{"where": ArgWhere, "detail": ArgFlag, "proplist": ArgValue}},
		"set": {
			Name: "set", Args: map[string]ArgKind{"numbers": ArgValue, "name": ArgValue, "number-base": ArgValue},
			Positional: []string{"numbers"}, Required: numbers, Mutates: true,
		},
		"sort": {Name: "sort", Args: map[string]ArgKind{}},
	}
	lid := &Menu{Path: "/box/lid", Parent: box, Dirs: map[string]*Menu{}, Commands: map[string]*Command{
		"open": {Name: "open", Args: map[string]ArgKind{}},
	}}
	box.Dirs["lid"] = lid
	root.Dirs["box"] = box
	return root
}

func (h *testHost) Call(_ context.Context, c *Call) (Value, error) {
	switch c.Command {
	case "find", "print":
		out := &Array{}
		for i, n := range h.names {
			ok := true
			if c.Where != nil {
				var err error
				ok, err = c.Where(func(name string) (Value, bool) {
					switch name {
					case "name":
						return String(n), true
					case "size":
						return Number(i), true
					case "comment":
						return Nothing{}, true
					}
					return nil, false
				})
				if err != nil {
					return nil, err
				}
			}
			if ok {
				out.List = append(out.List, String(n))
			}
		}
		return out, nil
	case "set":
		if c.Text("numbers") == "missing" {
			return nil, Failuref("no such item (4)")
		}
		return String("set " + c.Text("numbers") + " name=" + c.Text("name")), nil
	case "open":
		return String("opened"), nil
	}
	return Nothing{}, nil
}

// exec runs a script; the error is in the output after "!".
func exec(t *testing.T, src string) string {
	t.Helper()
	prog, err := Parse(src, testMenus())
	var out bytes.Buffer
	if err == nil {
		m := &Machine{Host: &testHost{names: []string{"a", "b/c", "d:e", "5"}}, Out: &out}
		_, err = m.Run(context.Background(), prog)
	}
	text := strings.TrimSuffix(strings.ReplaceAll(out.String(), "\r\n", "\n"), "\n")
	var incomplete *IncompleteError
	switch {
	case errors.As(err, &incomplete):
		return text + "!incomplete"
	case err != nil:
		return text + "!" + err.Error()
	}
	return text
}
