package routeros

import (
	"regexp"
	"strings"
)

// Quote spells a text as a RouterOS string that reads back as exactly its bytes.
// Inside double quotes a backslash escapes, a dollar would be a variable and an
// unknown one vanishes silently; a byte that is not printable ASCII is written
// as \XX, so that a command is always one printable line.
func Quote(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\' || c == '$':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~' || c == '?':
			// A bare question mark asks an interactive console for help.
			b.WriteByte('\\')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// quoteExpr spells a regular expression made of literals and of what is given
// verbatim, ready to stand behind ~ in a where.
func quoteExpr(before, literal, after string) string {
	return Quote(before + regexp.QuoteMeta(literal) + after)
}
