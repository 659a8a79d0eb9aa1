package script

import "strings"

// escapes are the characters that may follow a backslash in a quoted string,
// besides two upper case hexadecimal digits.
var escapes = map[byte]byte{
	'"': '"', '\\': '\\', '$': '$', '?': '?', '_': ' ',
	'n': '\n', 'r': '\r', 't': '\t', 'a': '\a', 'b': '\b', 'f': '\f', 'v': '\v',
}

// quoted parses a double quoted string; the opening quote has been passed.
func (p *parser) quoted() (Expr, error) {
	var parts []Expr
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			parts = append(parts, literalNode{value: String(text.String())})
			text.Reset()
		}
	}
	for {
		if p.pos >= len(p.src) {
			return nil, &IncompleteError{Opened: "a string"}
		}
		switch c := p.src[p.pos]; c {
		case '"':
			p.pos++
			flush()
			return joinParts(parts), nil
		case '\\':
			b, err := p.escape()
			if err != nil {
				return nil, err
			}
			text.WriteString(b)
		case '$':
			part, err := p.interpolation()
			if err != nil {
				return nil, err
			}
			if part == nil {
				text.WriteByte('$')
				continue
			}
			flush()
			parts = append(parts, part)
		default:
			text.WriteByte(c)
			p.pos++
		}
	}
}

func joinParts(parts []Expr) Expr {
	switch {
	case len(parts) == 0:
		return literalNode{value: String("")}
	case len(parts) == 1:
		if lit, ok := parts[0].(literalNode); ok {
			return lit
		}
	}
	return stringNode{parts: parts}
}

// escape reads what follows a backslash.
func (p *parser) escape() (string, error) {
	if p.pos+1 >= len(p.src) {
		return "", &IncompleteError{Opened: "a string"}
	}
	c := p.at(1)
	if r, ok := escapes[c]; ok {
		p.pos += 2
		return string([]byte{r}), nil
	}
	if c == '\n' || c == '\r' && p.at(2) == '\n' {
		// A continued line: the next one's indentation is not text.
		p.pos += 2
		if c == '\r' {
			p.pos++
		}
		for p.at(0) == ' ' || p.at(0) == '\t' {
			p.pos++
		}
		return "", nil
	}
	hi, lo := upperHex(c), upperHex(p.at(2))
	if hi < 0 || lo < 0 {
		if hi >= 0 && p.pos+2 >= len(p.src) {
			return "", &IncompleteError{Opened: "a string"}
		}
		return "", p.syntax(p.pos)
	}
	p.pos += 3
	return string([]byte{byte(hi<<4 | lo)}), nil
}

func upperHex(c byte) int { return strings.IndexByte("0123456789ABCDEF", c) }

// interpolation reads $name, $( … ) or $[ … ] inside a string. It answers nil
// for a dollar that starts none of them, which stays text.
func (p *parser) interpolation() (Expr, error) {
	start := p.pos
	p.pos++
	switch c := p.at(0); {
	case isNameByte(c):
		n := span(p.src[p.pos:], isNameByte)
		name := p.src[p.pos : p.pos+n]
		p.pos += n
		return varNode{name: name}, nil
	case c == '(' || c == '[':
		return p.bracketed(start)
	}
	return nil, nil
}

// Unquote reads src as one double quoted word, the way a script without
// variables would: a $name vanishes. It reports false unless the word is the
// whole of src.
func Unquote(src string) (string, bool) {
	p := &parser{lexer: lexer{src: src}, menu: &Menu{}}
	if p.at(0) != '"' {
		return "", false
	}
	p.pos++
	e, err := p.quoted()
	if err != nil || p.pos != len(src) {
		return "", false
	}
	switch e := e.(type) {
	case literalNode:
		return e.value.String(), true
	case stringNode:
		var b strings.Builder
		for _, part := range e.parts {
			switch part := part.(type) {
			case literalNode:
				b.WriteString(part.value.String())
			case varNode:
			default:
				return "", false // would run a command
			}
		}
		return b.String(), true
	}
	return "", false
}
