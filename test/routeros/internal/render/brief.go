package render

import (
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// Brief writes the table of a plain print.
func Brief(v View, rows []Row, s Style) string {
	var b strings.Builder
	occurring := legend(&b, v, rows)
	columns := v.briefColumns(rows, s)
	if len(columns) == 0 {
		return b.String()
	}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = strings.ToUpper(c.Name)
	}
	b.WriteString("Columns: " + strings.Join(names, ", ") + eol)
	prefixes := make([]string, len(rows))
	width := numberWidth(rows, s.ShowIDs)
	for i, r := range rows {
		prefixes[i] = r.prefix(width, occurring, s.ShowIDs)
	}
	head := len("#")
	if len(prefixes) > 0 {
		head = len(prefixes[0])
	}
	table := [][]string{names}
	for _, r := range rows {
		line := make([]string, len(columns))
		for i, c := range columns {
			if val, ok := r.Values[c.Name]; ok {
				line[i] = Text(val, c.Kind.unquoted())
			}
		}
		table = append(table, line)
	}
	widths := make([]int, len(columns))
	for _, line := range table {
		for i, cell := range line {
			widths[i] = max(widths[i], len(cell))
		}
	}
	b.WriteString(pad("#", head) + cells(names, widths) + eol)
	for i, line := range table[1:] {
		if c := rows[i].Comment; c != "" {
			b.WriteString(";;; " + c + eol)
		}
		b.WriteString(cut(prefixes[i]+cells(line, widths), s.Width) + eol)
	}
	return b.String()
}

// briefColumns are the menu's columns that some item has.
func (v View) briefColumns(rows []Row, s Style) []Property {
	var out []Property
	for _, name := range v.Columns {
		for _, p := range v.Properties {
			if p.Name == name && (s.Only == nil || s.shows(name)) && occurs(rows, name) {
				out = append(out, p)
			}
		}
	}
	if s.Only == nil {
		return out
	}
	out = nil
	for _, p := range v.Properties {
		if s.shows(p.Name) {
			out = append(out, p)
		}
	}
	return out
}

func occurs(rows []Row, name string) bool {
	for _, r := range rows {
		if v, ok := r.Values[name]; ok && v.String() != "" {
			return true
		}
	}
	return false
}

func (k Kind) unquoted() Kind {
	if k == Quoted {
		return Plain
	}
	return k
}

func cells(line []string, widths []int) string {
	var b strings.Builder
	for i, c := range line {
		if i > 0 {
			b.WriteString("  ")
		}
		b.WriteString(pad(c, widths[i]))
	}
	return strings.TrimRight(b.String(), " ")
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(n-len(s), 0)) }

func cut(s string, width int) string {
	if len(s) > width {
		return s[:width]
	}
	return s
}

// Terse writes print terse: one unwrapped line for each item.
func Terse(v View, rows []Row, s Style) string {
	var b strings.Builder
	occurring := ""
	for _, f := range v.Flags {
		occurring += string(f.Letter)
	}
	for _, r := range rows {
		flags := ""
		for i := range len(occurring) {
			if r.Flags[occurring[i]] {
				flags += string(occurring[i])
			}
		}
		prefix := r.prefix(1, "", s.ShowIDs)
		b.WriteString(strings.TrimRight(prefix, " ") + " " + flags)
		if r.Comment != "" {
			b.WriteString(" comment=" + r.Comment)
		}
		for _, p := range v.Properties {
			if val, ok := r.Values[p.Name]; ok && s.shows(p.Name) {
				b.WriteString(" " + p.Name + "=" + Text(val, p.Kind.unquoted()))
			}
		}
		b.WriteString(eol)
	}
	return b.String()
}

// Single writes a one-item menu: names right-aligned before a colon.
func Single(v View, values map[string]script.Value) string {
	width := 0
	for _, p := range v.Properties {
		if _, ok := values[p.Name]; ok {
			width = max(width, len(p.Name))
		}
	}
	var b strings.Builder
	for _, p := range v.Properties {
		if val, ok := values[p.Name]; ok {
			b.WriteString(strings.Repeat(" ", width-len(p.Name)+2) + p.Name + ": " + Text(val, p.Kind.unquoted()) + eol)
		}
	}
	return b.String()
}

// Wrap breaks text into lines of width wherever they end, also inside a word.
func Wrap(text string, width int) string {
	lines := strings.SplitAfter(text, eol)
	var b strings.Builder
	for _, l := range lines {
		body := strings.TrimSuffix(l, eol)
		for len(body) > width {
			b.WriteString(body[:width] + eol)
			body = body[width:]
		}
		b.WriteString(body)
		if strings.HasSuffix(l, eol) {
			b.WriteString(eol)
		}
	}
	return b.String()
}
