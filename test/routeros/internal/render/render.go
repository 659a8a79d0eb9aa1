package render

import (
	"fmt"
	"strconv"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// Kind is how a property's value is written in text.
type Kind int

// The ways a value is written.
const (
	Plain   Kind = iota // as it is
	Quoted              // "text"
	Grouped             // 1 099 511 627 776
	Rounded             // 1024.0GiB
	Percent             // 8%
)

// Property is one column of a menu, in the order of print detail.
type Property struct {
	Name string
	Kind Kind
}

// Flag is one of the letters in front of an item.
type Flag struct {
	Letter byte
	Name   string // as in as-value and where; the legend writes it in capitals
}

// View describes a menu's output.
type View struct {
	Flags      []Flag
	Properties []Property
	// Columns are the properties of the brief table.
	Columns []string
}

// Row is one item.
type Row struct {
	Index   int
	ID      string
	Flags   map[byte]bool
	Comment string
	Values  map[string]script.Value
}

// Style is what a print command and the terminal ask for.
type Style struct {
	// Width of the terminal in columns.
	Width int
	// ShowIDs prints *1F instead of the index.
	ShowIDs bool
	// Only, when not nil, limits the properties.
	Only []string
}

func (s Style) shows(name string) bool {
	if s.Only == nil {
		return true
	}
	for _, o := range s.Only {
		if o == name {
			return true
		}
	}
	return false
}

const eol = "\r\n"

// legend writes the Flags line: those that occur, also when none does.
// occurring returns their letters in the menu's order.
func legend(b *strings.Builder, v View, rows []Row) (occurring string) {
	if len(v.Flags) == 0 {
		return ""
	}
	var names []string
	for _, f := range v.Flags {
		for _, r := range rows {
			if r.Flags[f.Letter] {
				occurring += string(f.Letter)
				names = append(names, string(f.Letter)+" - "+strings.ToUpper(f.Name))
				break
			}
		}
	}
	b.WriteString("Flags: " + strings.Join(names, "; ") + eol)
	return occurring
}

// prefix is the number and flags in front of an item; at least one column is
// kept for flags.
func (r Row) prefix(numberWidth int, occurring string, showIDs bool) string {
	number := strconv.Itoa(r.Index)
	if showIDs {
		number = r.ID
	}
	flags := make([]byte, 0, len(occurring)+1)
	for i := range len(occurring) {
		if r.Flags[occurring[i]] {
			flags = append(flags, occurring[i])
		} else {
			flags = append(flags, ' ')
		}
	}
	if len(flags) == 0 {
		flags = append(flags, ' ')
	}
	return fmt.Sprintf("%*s %s ", numberWidth, number, flags)
}

func numberWidth(rows []Row, showIDs bool) int {
	width := 2
	for _, r := range rows {
		n := len(strconv.Itoa(r.Index))
		if showIDs {
			n = len(r.ID)
		}
		width = max(width, n)
	}
	return width
}

// Detail writes print detail.
func Detail(v View, rows []Row, s Style) string {
	var b strings.Builder
	occurring := legend(&b, v, rows)
	width := numberWidth(rows, s.ShowIDs)
	for i, r := range rows {
		if i > 0 {
			b.WriteString(eol)
		}
		prefix := r.prefix(width, occurring, s.ShowIDs)
		if r.Comment != "" && s.shows("comment") {
			b.WriteString(prefix + ";;; " + r.Comment + eol)
			prefix = strings.Repeat(" ", len(prefix))
		}
		b.WriteString(wrap(prefix, r.tokens(v, s), s.Width))
	}
	return b.String()
}

// tokens are the item's name=value words.
func (r Row) tokens(v View, s Style) []string {
	var out []string
	for _, p := range v.Properties {
		val, ok := r.Values[p.Name]
		if !ok || !s.shows(p.Name) {
			continue
		}
		out = append(out, p.Name+"="+Text(val, p.Kind))
	}
	return out
}

// wrap lays words out in lines of width, continued under the first word. A
// word longer than a line is broken where the line ends.
func wrap(prefix string, words []string, width int) string {
	indent := strings.Repeat(" ", len(prefix))
	room := max(width-len(prefix), 1)
	var lines []string
	line := ""
	for _, w := range words {
		if line != "" && len(line)+1+len(w) <= room {
			line += " " + w
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		for len(w) > room {
			lines = append(lines, w[:room])
			w = w[room:]
		}
		line = w
	}
	lines = append(lines, line)
	return prefix + strings.Join(lines, eol+indent) + eol
}

// Text writes one value.
func Text(v script.Value, k Kind) string {
	switch val := v.(type) {
	case script.Bool:
		if val {
			return "yes"
		}
		return "no"
	case script.Number:
		switch k {
		case Grouped:
			return GroupDigits(int64(val))
		case Rounded:
			return RoundSize(int64(val))
		case Percent:
			return val.String() + "%"
		}
	}
	if k == Quoted {
		return quote(v.String())
	}
	return v.String()
}

func quote(s string) string {
	r := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\r", `\r`, "\n", `\n`, "\t", `\t`)
	return `"` + r.Replace(s) + `"`
}

// GroupDigits writes 1099511627776 as 1 099 511 627 776.
func GroupDigits(n int64) string {
	s := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// RoundSize writes bytes as 1024.0GiB; GiB is the largest unit seen.
func RoundSize(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1fGiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1fMiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1fKiB", float64(n)/(1<<10))
	}
	return strconv.FormatInt(n, 10)
}
