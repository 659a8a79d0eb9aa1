package script

import "strings"

// precedence of the binary operators, loosest first.
var precedence = map[string]int{
	"||": 1, "or": 1, "&&": 2, "and": 2,
	"=": 3, "!=": 3, "<": 3, ">": 3, "<=": 3, ">=": 3, "~": 3, "in": 3,
	",": 4, ".": 5, "|": 6, "^": 7, "&": 8, "<<": 9, ">>": 9,
	"+": 10, "-": 10, "*": 11, "/": 11, "%": 11, "->": 13,
}

// value parses what may stand as a parameter's value: one word, string,
// variable, ( … ), [ … ] or { … }.
func (p *parser) value() (Expr, error) {
	t := p.peek(inValue)
	var e Expr
	var err error
	switch t.kind {
	case kQuote:
		p.pos = t.end
		e, err = p.quoted()
	case kVar:
		e, err = p.variable()
	case kOpen:
		e, err = p.bracketed(t.pos)
	case kWord:
		p.pos = t.end
		return literalNode{raw: t.text, value: literal(t.text)}, nil
	default:
		return nil, p.missing(t)
	}
	if err != nil {
		return nil, err
	}
	for p.at(0) == '-' && p.at(1) == '>' { // $a->"b" without brackets
		p.pos += 2
		key, err := p.operand(false)
		if err != nil {
			return nil, err
		}
		e = indexNode{x: e, key: key}
	}
	return e, nil
}

// variable parses $name or $"any name".
func (p *parser) variable() (Expr, error) {
	t := p.next(inOperand)
	if len(t.text) > 1 {
		return varNode{name: t.text[1:]}, nil
	}
	if p.at(0) != '"' {
		return nil, p.fail(t.pos, "expected variable name")
	}
	p.pos++
	e, err := p.quoted()
	if err != nil {
		return nil, err
	}
	lit, ok := e.(literalNode)
	if !ok {
		return nil, p.syntax(t.pos)
	}
	return varNode{name: lit.value.String()}, nil
}

// bracketed parses ( … ), [ … ] or { … } as a value.
func (p *parser) bracketed(start int) (Expr, error) {
	if err := p.enter(start); err != nil {
		return nil, err
	}
	defer p.leave()
	open := p.at(0)
	p.pos++
	p.open++
	defer func() { p.open-- }()
	switch open {
	case '(':
		e, err := p.expression(0, false)
		if err != nil {
			return nil, err
		}
		return e, p.expect(')')
	case '[':
		b, err := p.block(']')
		if err != nil {
			return nil, err
		}
		return substNode{body: b}, nil
	}
	return p.arrayOrCode()
}

func (p *parser) expect(closer byte) error {
	p.skipInner()
	t := p.peek(inOperator)
	if t.kind == kEnd {
		return &IncompleteError{Opened: string([]byte{closer})}
	}
	if t.kind != kClose || t.text[0] != closer {
		return p.syntax(t.pos)
	}
	p.pos = t.end
	return nil
}

// skipInner passes line ends inside brackets, where they mean nothing.
func (p *parser) skipInner() {
	for p.skipBlank(); p.at(0) == '\n'; p.skipBlank() {
		p.pos++
	}
}

// arrayOrCode parses { … } where a value is due: code when it starts like a
// command, else an array.
func (p *parser) arrayOrCode() (Expr, error) {
	if p.skipInner(); p.at(0) == ':' || p.at(0) == '/' {
		body, err := p.block('}')
		return codeNode{body: body}, err
	}
	arr := arrayNode{}
	for {
		for p.skipInner(); p.at(0) == ';'; p.skipInner() {
			p.pos++
		}
		t := p.peek(inOperand)
		if t.kind == kEnd {
			return nil, &IncompleteError{Opened: "}"}
		}
		if t.kind == kClose && t.text == "}" {
			p.pos = t.end
			return arr, nil
		}
		item, err := p.arrayItem(t)
		if err != nil {
			return nil, err
		}
		arr.items = append(arr.items, item)
		t = p.peek(inOperator)
		if t.kind != kBreak && t.kind != kEnd && (t.kind != kClose || t.text != "}") {
			return nil, p.syntax(t.pos)
		}
	}
}

// arrayItem reads value, name=value or "any name"=value.
func (p *parser) arrayItem(t token) (arrayItem, error) {
	var item arrayItem
	if t.kind == kWord {
		if w := p.peek(inCommand); w.end < len(p.src) && p.src[w.end] == '=' {
			item.key = literalNode{value: String(w.text)}
			p.pos = w.end + 1
		}
	}
	v, err := p.value()
	if err != nil {
		return item, err
	}
	if t.kind == kQuote && item.key == nil && p.at(0) == '=' {
		p.pos++
		item.key = v
		v, err = p.value()
	}
	item.value = v
	return item, err
}

// whereExpr parses the conditions of a where; conditions that merely follow
// each other are all required.
func (p *parser) whereExpr() (Expr, error) {
	e, err := p.expression(0, true)
	if err != nil {
		return nil, err
	}
	for {
		if p.peek(inOperand).ended() {
			return e, nil
		}
		next, err := p.expression(0, true)
		if err != nil {
			return nil, err
		}
		e = binaryNode{op: "&&", x: e, y: next}
	}
}

// expression climbs precedences from min up. In a where a bare word on the
// left of a comparison is a property and one on the right is text.
func (p *parser) expression(min int, where bool) (Expr, error) {
	if err := p.enter(p.pos); err != nil {
		return nil, err
	}
	defer p.leave()
	left, err := p.unary(where)
	if err != nil {
		return nil, err
	}
	for {
		if !where {
			p.skipInner()
		}
		t := p.peek(inOperator)
		prec, ok := precedence[t.text]
		if t.kind != kOp && t.kind != kWord || !ok || prec <= min || where && prec > precedence["="] {
			return left, nil
		}
		p.pos = t.end
		right, err := p.rightSide(prec, where)
		if err != nil {
			return nil, err
		}
		if t.text == "->" {
			left = indexNode{x: left, key: right}
		} else {
			left = binaryNode{op: t.text, x: left, y: right}
		}
	}
}

func (p *parser) rightSide(prec int, where bool) (Expr, error) {
	if !where {
		p.skipInner()
		return p.expression(prec, false)
	}
	if prec < precedence["="] {
		return p.expression(prec, true)
	}
	t := p.peek(inWhere)
	if t.kind != kWord {
		return p.unary(false)
	}
	p.pos = t.end
	v := literal(t.text)
	if _, isText := v.(String); isText && strings.ContainsAny(t.text, "/:") {
		return deadNode{raw: t.text}, nil
	}
	return literalNode{raw: t.text, value: v}, nil
}

func (p *parser) unary(where bool) (Expr, error) {
	if !where {
		p.skipInner()
	}
	t := p.peek(inOperand)
	if t.kind == kWord && t.text == "not" {
		p.pos = t.end
		x, err := p.expression(precedence["&&"], where)
		return unaryNode{op: "!", x: x}, err
	}
	if t.kind != kOp || t.text != "!" && t.text != "-" && t.text != "~" {
		return p.operand(where)
	}
	if err := p.enter(t.pos); err != nil {
		return nil, err
	}
	defer p.leave()
	p.pos = t.end
	x, err := p.unary(where)
	return unaryNode{op: t.text, x: x}, err
}

func (p *parser) operand(where bool) (Expr, error) {
	t := p.peek(inOperand)
	switch t.kind {
	case kQuote:
		p.pos = t.end
		return p.quoted()
	case kVar:
		return p.variable()
	case kOpen:
		if where && t.text == "(" {
			p.pos = t.end
			p.open++
			defer func() { p.open-- }()
			e, err := p.whereExpr()
			if err != nil {
				return nil, err
			}
			return e, p.expect(')')
		}
		return p.bracketed(t.pos)
	case kWord:
		p.pos = t.end
		if v := literal(t.text); where {
			if _, isText := v.(String); isText {
				return propNode{name: t.text}, nil
			}
		}
		return literalNode{raw: t.text, value: literal(t.text)}, nil
	}
	return nil, p.missing(t)
}

// missing refuses a token where a value is due; at the end of the input a
// console waits if a bracket is still open.
func (p *parser) missing(t token) error {
	if t.kind == kEnd && p.open > 0 {
		return &IncompleteError{Opened: "a bracket"}
	}
	return p.syntax(t.pos)
}
