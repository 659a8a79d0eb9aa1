package script

import "strings"

// ArgKind says how a parameter is written.
type ArgKind int

// The kinds of parameters.
const (
	ArgValue ArgKind = iota
	ArgFlag          // given by name alone
	ArgBlock         // code: do={ … }
	ArgName          // the name of a variable
	ArgWhere         // an expression over an item's properties, up to the end
)

// Command is a command of a menu or one of the language's own.
type Command struct {
	Name string
	Args map[string]ArgKind
	// Positional lists the parameters that may be given without a name.
	Positional []string
	// Required parameters and what RouterOS says when one is missing.
	Required map[string]string
	// WhereRest: everything after the command is a where (find).
	WhereRest bool
	// Mutates: the command needs the write policy.
	Mutates bool
}

// Menu is a directory of the console.
type Menu struct {
	Path     string
	Parent   *Menu
	Dirs     map[string]*Menu
	Commands map[string]*Command
	// Properties are the names a where resolves to the item's own values.
	Properties map[string]bool
}

// Root returns the top menu.
func (m *Menu) Root() *Menu {
	for m.Parent != nil {
		m = m.Parent
	}
	return m
}

// lookup finds word among the menu's directories and commands, exactly or by
// a prefix that only one of them has, as the console does.
func (m *Menu) lookup(word string) (*Menu, *Command) {
	if d, ok := m.Dirs[word]; ok {
		return d, nil
	}
	if c, ok := m.Commands[word]; ok {
		return nil, c
	}
	var dir *Menu
	var cmd *Command
	hits := 0
	for name, d := range m.Dirs {
		if strings.HasPrefix(name, word) {
			dir, hits = d, hits+1
		}
	}
	for name, c := range m.Commands {
		if strings.HasPrefix(name, word) {
			cmd, hits = c, hits+1
		}
	}
	if hits != 1 || word == "" {
		return nil, nil
	}
	return dir, cmd
}

// arg resolves a parameter's name, exactly or by unique prefix.
func (c *Command) arg(word string) (string, bool) {
	if _, ok := c.Args[word]; ok {
		return word, true
	}
	found, hits := "", 0
	for name := range c.Args {
		if word != "" && strings.HasPrefix(name, word) {
			found, hits = name, hits+1
		}
	}
	return found, hits == 1
}
