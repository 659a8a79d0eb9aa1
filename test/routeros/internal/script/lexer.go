package script

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

type kind int

const (
	kEnd   kind = iota // of the input
	kBreak             // newline or ;
	kOpen              // { [ (
	kClose             // } ] )
	kQuote             // the start of a quoted string
	kVar               // $name, or a bare $
	kWord
	kOp
)

type token struct {
	kind     kind
	text     string
	pos, end int
}

// mode selects what a word and an operator are: RouterOS's tokens depend on
// where they stand.
type mode int

const (
	inCommand  mode = iota // paths, commands, parameter names
	inValue                // the value of a parameter: greedy words
	inOperand              // expression, a value is due
	inOperator             // expression, an operator is due
	inWhere                // right side of a comparison in a where: greedy, but operators end it
)

type lexer struct {
	src string
	pos int
}

// at returns the byte n places ahead, 0 past the end.
func (l *lexer) at(n int) byte {
	if l.pos+n < len(l.src) {
		return l.src[l.pos+n]
	}
	return 0
}

// skipBlank passes blanks and continued lines, not line ends.
func (l *lexer) skipBlank() {
	for {
		switch {
		case l.at(0) == ' ' || l.at(0) == '\t' || l.at(0) == '\r':
			l.pos++
		case l.at(0) == '\\' && l.at(1) == '\n':
			l.pos += 2
		case l.at(0) == '\\' && l.at(1) == '\r' && l.at(2) == '\n':
			l.pos += 3
		default:
			return
		}
	}
}

// skipBreaks passes everything that may stand between two statements.
func (l *lexer) skipBreaks() {
	for {
		l.skipBlank()
		switch l.at(0) {
		case '\n', ';':
			l.pos++
		case '#':
			if nl := strings.IndexByte(l.src[l.pos:], '\n'); nl >= 0 {
				l.pos += nl
			} else {
				l.pos = len(l.src)
			}
		default:
			return
		}
	}
}

// peek returns the next token without passing it.
func (l *lexer) peek(m mode) token {
	l.skipBlank()
	start := l.pos
	t := token{pos: start, end: start}
	if start >= len(l.src) {
		return t
	}
	c := l.src[start]
	switch {
	case c == '\n' || c == ';':
		t.kind, t.end = kBreak, start+1
	case strings.IndexByte("{[(", c) >= 0:
		t.kind, t.end = kOpen, start+1
	case strings.IndexByte("}])", c) >= 0:
		t.kind, t.end = kClose, start+1
	case c == '"':
		t.kind, t.end = kQuote, start+1
	case c == '$' && m != inOperator:
		t.kind = kVar
		t.end = start + 1 + span(l.src[start+1:], isNameByte)
	default:
		t.kind, t.end = l.wordOrOp(m, start)
	}
	t.text = l.src[start:t.end]
	return t
}

// next returns the next token and passes it.
func (l *lexer) next(m mode) token {
	t := l.peek(m)
	l.pos = t.end
	return t
}

func (l *lexer) wordOrOp(m mode, start int) (kind, int) {
	rest := l.src[start:]
	switch m {
	case inCommand:
		if n := span(rest, isCommandByte); n > 0 {
			return kWord, start + n
		}
		return kOp, start + 1
	case inValue:
		if n := span(rest, isValueByte); n > 0 {
			return kWord, start + n
		}
		return kOp, start + 1
	case inWhere:
		if n := span(rest, isWhereByte); n > 0 {
			return kWord, start + n
		}
	case inOperand:
		if n := operandWord(rest); n > 0 {
			return kWord, start + n
		}
	case inOperator:
		if n := span(rest, isLetterByte); n > 0 {
			return kWord, start + n
		}
	}
	for _, op := range [...]string{"->", "<=", ">=", "!=", "&&", "||", "<<", ">>"} {
		if strings.HasPrefix(rest, op) {
			return kOp, start + 2
		}
	}
	return kOp, start + 1
}

// operandWord measures the word an expression operand starts with. A word that
// starts with a letter may hold dashes, one that starts with a digit may not:
// 5-3 is a subtraction and mount-point a name.
func operandWord(s string) int {
	for _, re := range [...]*regexp.Regexp{reAddress, reTime, reHex} {
		if n := len(re.FindString(s)); n > 0 && (n == len(s) || !isNameByte(s[n])) {
			return n
		}
	}
	if n := len(reID.FindString(s)); n > 0 {
		return n
	}
	if isNameByte(s[0]) && (s[0] < '0' || s[0] > '9') || s[0] == '.' && len(s) > 1 && isLetterByte(s[1]) {
		return 1 + span(s[1:], isCommandByteNoDot)
	}
	return span(s, isNameByte)
}

var (
	reAddress = regexp.MustCompile(`^\d{1,3}(\.\d{1,3}){3}(/\d{1,2})?`)
	reTime    = regexp.MustCompile(`^(\d+:\d\d:\d\d|(\d+(w|d|h|ms|us|ns|m|s))+)`)
	reHex     = regexp.MustCompile(`^0x[0-9A-Fa-f]+`)
	reID      = regexp.MustCompile(`^\*[0-9A-Fa-f]+`)
	reNumber  = regexp.MustCompile(`^-?(0x[0-9A-Fa-f]+|\d+)$`)
	reTimeBit = regexp.MustCompile(`(\d+)(w|d|h|ms|us|ns|m|s)`)
)

func span(s string, in func(byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

func isLetterByte(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// isNameByte: letters and digits, all that a variable's name may hold unquoted.
func isNameByte(c byte) bool { return isLetterByte(c) || c >= '0' && c <= '9' }

func isCommandByteNoDot(c byte) bool { return isNameByte(c) || c == '-' || c == '_' }

func isCommandByte(c byte) bool { return isCommandByteNoDot(c) || c == '.' }

func isValueByte(c byte) bool {
	return c > ' ' && strings.IndexByte(";[](){}\"$\\", c) < 0
}

func isWhereByte(c byte) bool { return isValueByte(c) && strings.IndexByte("=<>!~&|", c) < 0 }

// literal reads a bare word as the value it looks like.
func literal(raw string) Value {
	switch raw {
	case "true", "yes":
		return Bool(true)
	case "false", "no":
		return Bool(false)
	case "":
		return Nothing{}
	}
	if whole(reID, raw) {
		return ID("*" + strings.ToUpper(raw[1:]))
	}
	if reNumber.MatchString(raw) {
		if n, err := strconv.ParseInt(raw, 0, 64); err == nil {
			return Number(n)
		}
		if n, err := strconv.ParseInt(raw, 10, 64); err == nil { // leading zeros are not octal
			return Number(n)
		}
	}
	if whole(reAddress, raw) {
		return Address(raw)
	}
	if d, ok := parseDuration(raw); ok {
		return Duration(d)
	}
	return String(raw)
}

func whole(re *regexp.Regexp, s string) bool { return len(re.FindString(s)) == len(s) }

// parseDuration reads 1d2h3s and 00:01:30.
func parseDuration(raw string) (time.Duration, bool) {
	if !whole(reTime, raw) {
		return 0, false
	}
	units := map[string]time.Duration{
		"w": 7 * 24 * time.Hour, "d": 24 * time.Hour, "h": time.Hour, "m": time.Minute,
		"s": time.Second, "ms": time.Millisecond, "us": time.Microsecond, "ns": time.Nanosecond,
	}
	if parts := strings.Split(raw, ":"); len(parts) == 3 {
		raw = parts[0] + "h" + parts[1] + "m" + parts[2] + "s"
	}
	var sum time.Duration
	for _, m := range reTimeBit.FindAllStringSubmatch(raw, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return 0, false
		}
		sum += time.Duration(n) * units[m[2]]
	}
	return sum, true
}
