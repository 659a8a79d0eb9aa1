package array

import (
	"embed"
	"encoding/json"
	"fmt"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

//go:embed schema/*.json
var schemaFiles embed.FS

// menus builds the console's tree from the schema.
func menus() (*script.Menu, error) {
	root := &script.Menu{Dirs: map[string]*script.Menu{}, Commands: map[string]*script.Command{}}
	for name, file := range map[string]string{
		"disk": "disk-menu-7.24.json", "file": "file-menu-7.24.json", "system": "system-menu.json",
	} {
		raw, err := schemaFiles.ReadFile("schema/" + file)
		if err != nil {
			return nil, err
		}
		var node map[string]json.RawMessage
		if err := json.Unmarshal(raw, &node); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if root.Dirs[name], err = buildMenu(root, name, node); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return root, nil
}

func buildMenu(parent *script.Menu, name string, node map[string]json.RawMessage) (*script.Menu, error) {
	m := &script.Menu{
		Path: parent.Path + "/" + name, Parent: parent,
		Dirs: map[string]*script.Menu{}, Commands: map[string]*script.Command{}, Properties: map[string]bool{},
	}
	for name, raw := range node {
		if name == "_type" {
			continue
		}
		var child map[string]json.RawMessage
		if err := json.Unmarshal(raw, &child); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if string(child["_type"]) != `"cmd"` {
			sub, err := buildMenu(m, name, child)
			if err != nil {
				return nil, err
			}
			m.Dirs[name] = sub
			continue
		}
		m.Commands[name] = buildCommand(name, child)
		if name == "add" || name == "set" {
			for arg := range child {
				m.Properties[arg] = true
			}
		}
	}
	delete(m.Properties, "_type")
	delete(m.Properties, "numbers")
	delete(m.Properties, "copy-from")
	return m, nil
}

// flagArgs are the parameters given by name alone; the schema does not say.
var flagArgs = map[string]bool{
	"as-value": true, "brief": true, "count-only": true, "detail": true, "follow": true, "follow-only": true,
	"once": true, "show-ids": true, "terse": true, "value-list": true, "without-paging": true, "stats": true,
	"stats-detail": true, "oid": true, "timestamp": true, "comments": true, "show-sensitive": true,
	"hide-sensitive": true, "compact": true, "verbose": true, "recursive": true, "relative": true,
	"show-hidden": true, "as-string": true, "as-string-value": true, "numbered": true,
}

// readOnly are the commands that need no write policy.
var readOnly = map[string]bool{
	"find": true, "get": true, "print": true, "export": true, "monitor-traffic": true, "monitor": true,
	"smart-info": true, "head": true, "tail": true, "read": true, "recursive-print": true,
	"nvme-discover": true, "scan": true, "blink": true,
}

func buildCommand(name string, node map[string]json.RawMessage) *script.Command {
	c := &script.Command{Name: name, Args: map[string]script.ArgKind{}, Mutates: !readOnly[name]}
	for arg := range node {
		switch {
		case arg == "_type":
		case arg == "where":
			c.Args[arg] = script.ArgWhere
		case arg == "do" || arg == "on-event":
			c.Args[arg] = script.ArgBlock
		case flagArgs[arg]:
			c.Args[arg] = script.ArgFlag
		default:
			c.Args[arg] = script.ArgValue
		}
	}
	c.WhereRest = name == "find"
	// What may be given without a name: the items first, then the command's
	// one obvious value.
	for _, arg := range []string{"numbers", "number", "value-name"} {
		if _, ok := c.Args[arg]; ok {
			c.Positional = append(c.Positional, arg)
		}
	}
	switch {
	case name == "comment":
		c.Positional = append(c.Positional, "comment")
	case name == "copy" && len(c.Positional) == 1:
		c.Positional = append(c.Positional, "name")
	}
	for _, arg := range []string{"numbers", "number"} {
		if _, ok := c.Args[arg]; ok {
			c.Required = map[string]string{arg: "expected item id"}
		}
	}
	return c
}
