package script

// argParser reads the parameters of one command.
type argParser struct {
	*parser
	c    *CommandNode
	used int // positional parameters given so far
	vars []string
}

func (a *argParser) all() error {
	if a.c.Spec.WhereRest {
		return a.whereRest()
	}
	for {
		t := a.peek(inCommand)
		if t.ended() {
			return nil
		}
		done, err := a.one(t)
		if err != nil || done {
			return err
		}
	}
}

// one parses a parameter; done means that it took the rest of the command.
func (a *argParser) one(t token) (done bool, err error) {
	switch {
	case t.kind == kWord && t.end < len(a.src) && a.src[t.end] == '=':
		name, ok := a.c.Spec.arg(t.text)
		if !ok {
			return false, a.fail(t.pos, "bad parameter "+t.text)
		}
		a.pos = t.end + 1
		return a.given(name)
	case t.kind == kOp && t.text == "!":
		return false, a.unset(t)
	case t.kind == kWord && a.wordEnds(t):
		if name, ok := a.c.Spec.arg(t.text); ok && a.bareIsName(name, t.text) {
			return a.bare(name, t)
		}
	}
	return false, a.positional(t)
}

// wordEnds: t is a whole word and not the start of a longer value.
func (a *argParser) wordEnds(t token) bool {
	return t.end >= len(a.src) || !isValueByte(a.src[t.end])
}

// bareIsName decides whether a word alone names a parameter: flags do, where
// does; a value that merely looks like a parameter's name is a value as long
// as a positional one is due.
func (a *argParser) bareIsName(name, word string) bool {
	kind := a.c.Spec.Args[name]
	if kind == ArgFlag || kind == ArgWhere {
		return name == word || a.used >= len(a.c.Spec.Positional)
	}
	return a.used >= len(a.c.Spec.Positional)
}

func (a *argParser) bare(name string, t token) (bool, error) {
	a.pos = t.end
	switch a.c.Spec.Args[name] {
	case ArgFlag:
		a.c.Args[name] = literalNode{raw: "yes", value: Bool(true)}
		return false, nil
	case ArgWhere:
		return true, a.where()
	}
	return false, a.fail(t.pos, "missing value for "+name)
}

func (a *argParser) given(name string) (bool, error) {
	kind := a.c.Spec.Args[name]
	if kind == ArgWhere {
		return true, a.where()
	}
	if kind == ArgFlag {
		kind = ArgValue
	}
	next := a.at(0)
	if next == 0 || next == ' ' || next == '\n' || next == '\r' || next == ';' || next == '\t' || next == ']' || next == '}' || next == ')' {
		return false, a.fail(a.pos, "missing value for "+name)
	}
	v, err := a.typed(kind)
	if err != nil {
		return false, err
	}
	a.c.Args[name] = v
	return false, nil
}

func (a *argParser) typed(kind ArgKind) (Expr, error) {
	if kind == ArgName {
		return a.variableNames()
	}
	if kind == ArgBlock {
		return a.codeArg()
	}
	return a.value()
}

// codeArg parses a block in which the command's own variables are known.
func (a *argParser) codeArg() (Expr, error) {
	t := a.peek(inValue)
	if t.kind != kOpen || t.text != "{" {
		return a.value()
	}
	a.pos = t.end
	body, err := a.block('}', a.vars...)
	if err != nil {
		return nil, err
	}
	return codeNode{body: body}, nil
}

func (a *argParser) unset(t token) error {
	w := lexer{src: a.src, pos: t.end}
	name := w.next(inCommand)
	full, ok := a.c.Spec.arg(name.text)
	if name.kind != kWord || !ok {
		return a.fail(t.pos, "bad parameter !"+name.text)
	}
	a.pos = name.end
	a.c.Unset = append(a.c.Unset, full)
	return nil
}

func (a *argParser) positional(t token) error {
	if a.used >= len(a.c.Spec.Positional) {
		if t.kind == kWord && isLetterByte(t.text[0]) && a.wordEnds(t) {
			return a.fail(t.pos, "bad parameter "+t.text)
		}
		return a.fail(t.pos, "expected end of command")
	}
	name := a.c.Spec.Positional[a.used]
	a.used++
	v, err := a.typed(a.c.Spec.Args[name])
	if err != nil {
		return err
	}
	if a.pos == t.pos {
		return a.syntax(t.pos)
	}
	a.c.Args[name] = v
	if a.c.Spec.Name == "set" && a.c.Spec.Args[name] == ArgName {
		return a.mustBeDeclared(t)
	}
	return nil
}

// mustBeDeclared refuses :set of a variable that no :local or :global named.
func (a *argParser) mustBeDeclared(t token) error {
	for _, v := range a.vars {
		if !a.declared(v) {
			return a.syntax(t.pos)
		}
	}
	return nil
}

// variableNames parses one variable name, or k,v for :foreach.
func (a *argParser) variableNames() (Expr, error) {
	var names []string
	for {
		t := a.peek(inOperand)
		switch {
		case t.kind == kQuote:
			a.pos = t.end
			e, err := a.quoted()
			if err != nil {
				return nil, err
			}
			lit, ok := e.(literalNode)
			if !ok {
				return nil, a.syntax(t.pos)
			}
			names = append(names, lit.value.String())
		case t.kind == kWord && isNameByte(t.text[0]):
			n := span(t.text, isNameByte)
			a.pos = t.pos + n
			names = append(names, t.text[:n])
		default:
			return nil, a.fail(t.pos, "expected variable name")
		}
		if a.at(0) != ',' {
			break
		}
		a.pos++
	}
	a.vars = append(a.vars, names...)
	if a.c.Spec.Name == "local" || a.c.Spec.Name == "global" {
		for _, n := range names {
			a.declare(n)
		}
	}
	list := &Array{}
	for _, n := range names {
		list.List = append(list.List, String(n))
	}
	return literalNode{value: list}, nil
}

// whereRest is find's: the word where is optional.
func (a *argParser) whereRest() error {
	t := a.peek(inCommand)
	if t.ended() {
		return nil
	}
	if t.kind == kWord && t.text == "where" && a.wordEnds(t) {
		a.pos = t.end
	}
	return a.where()
}

func (a *argParser) where() error {
	if a.peek(inOperand).ended() {
		return a.fail(a.pos, "missing value for where")
	}
	e, err := a.whereExpr()
	if err != nil {
		return err
	}
	a.c.Where = e
	return nil
}
