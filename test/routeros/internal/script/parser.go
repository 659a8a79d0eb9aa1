package script

import (
	"strings"
)

type parser struct {
	lexer
	menu   *Menu             // where the console stands
	scopes []map[string]bool // declared variables, innermost last
	depth  int
	open   int // brackets not yet closed
}

// maxDepth bounds nesting, so that no input can exhaust the stack.
const maxDepth = 200

// Parse reads a whole script. Paths are resolved against root.
func Parse(src string, root *Menu) (*Program, error) {
	p := &parser{lexer: lexer{src: src}, menu: root}
	body, err := p.block(0)
	if err != nil {
		return nil, err
	}
	return &Program{Source: src, Body: body}, nil
}

func (p *parser) fail(pos int, msg string) error {
	line := 1 + strings.Count(p.src[:pos], "\n")
	return &SyntaxError{Msg: msg, Line: line, Column: pos - strings.LastIndexByte(p.src[:pos], '\n')}
}

func (p *parser) syntax(pos int) error { return p.fail(pos, "syntax error") }

func (p *parser) enter(pos int) error {
	if p.depth++; p.depth > maxDepth {
		return p.fail(pos, "too deep nesting")
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

func (p *parser) declare(name string) {
	if n := len(p.scopes); n > 0 {
		p.scopes[n-1][name] = true
	}
}

func (p *parser) declared(name string) bool {
	for _, s := range p.scopes {
		if s[name] {
			return true
		}
	}
	return false
}

// block parses statements up to the closing byte, or to the end of the input
// when closer is 0. A change of menu inside lasts until its end.
func (p *parser) block(closer byte, vars ...string) (*Block, error) {
	if err := p.enter(p.pos); err != nil {
		return nil, err
	}
	defer p.leave()
	menu := p.menu
	defer func() { p.menu = menu }()
	p.scopes = append(p.scopes, map[string]bool{})
	defer func() { p.scopes = p.scopes[:len(p.scopes)-1] }()
	for _, v := range vars {
		p.declare(v)
	}
	if closer != 0 {
		p.open++
		defer func() { p.open-- }()
	}
	b := &Block{}
	for {
		p.skipBreaks()
		t := p.peek(inCommand)
		switch {
		case t.kind == kEnd && closer == 0:
			return b, nil
		case t.kind == kEnd:
			return nil, &IncompleteError{Opened: string([]byte{closer})}
		case t.kind == kClose && closer != 0 && t.text[0] == closer:
			p.pos = t.end
			return b, nil
		}
		stmt, err := p.statement()
		if err != nil {
			return nil, err
		}
		if stmt != nil {
			b.Stmts = append(b.Stmts, stmt)
		}
		if err := p.endOfStatement(closer); err != nil {
			return nil, err
		}
	}
}

func (p *parser) endOfStatement(closer byte) error {
	t := p.peek(inCommand)
	if t.kind == kEnd || t.kind == kBreak || t.kind == kClose && closer != 0 && t.text[0] == closer {
		return nil
	}
	if t.kind == kClose {
		return p.syntax(t.pos)
	}
	return p.fail(t.pos, "expected end of command")
}

func (p *parser) statement() (Stmt, error) {
	t := p.peek(inCommand)
	switch {
	case t.kind == kOpen && t.text == "{":
		p.pos = t.end
		return p.block('}')
	case t.kind == kOpen:
		return p.value()
	case t.kind == kVar:
		return p.call()
	case t.kind == kOp && t.text == ":":
		p.pos = t.end
		w := p.next(inCommand)
		spec := builtinSpec(w.text)
		if w.kind != kWord || spec == nil {
			return nil, p.fail(w.pos, "bad command name "+w.text)
		}
		return p.command(t.pos, p.menu, spec)
	case t.kind == kOp && t.text == "/":
		p.pos = t.end
		return p.path(t.pos, p.menu.Root())
	case t.kind == kWord:
		return p.path(t.pos, p.menu)
	}
	return nil, p.syntax(t.pos)
}

// path parses menu names up to a command. Ending on a menu changes to it.
func (p *parser) path(start int, menu *Menu) (Stmt, error) {
	for {
		t := p.peek(inCommand)
		switch {
		case t.kind == kOp && t.text == "/" && menu != p.menu.Root():
			p.pos = t.end
			continue
		case t.kind == kOpen && t.text == "{":
			outer := p.menu
			p.menu, p.pos = menu, t.end
			defer func() { p.menu = outer }()
			return p.block('}')
		case t.kind != kWord:
			p.menu = menu
			return nil, nil
		}
		p.pos = t.end
		if t.text == ".." {
			if menu.Parent != nil {
				menu = menu.Parent
			}
			continue
		}
		if spec := builtinSpec(t.text); spec != nil && menu.Commands[t.text] == nil && menu.Dirs[t.text] == nil {
			return p.command(start, menu, spec)
		}
		dir, spec := menu.lookup(t.text)
		switch {
		case dir != nil:
			menu = dir
		case spec != nil:
			return p.command(start, menu, spec)
		default:
			return nil, p.fail(t.pos, "bad command name "+t.text)
		}
	}
}

// ended: nothing more belongs to this command.
func (t token) ended() bool { return t.kind == kEnd || t.kind == kBreak || t.kind == kClose }

func (p *parser) command(start int, menu *Menu, spec *Command) (Stmt, error) {
	c := &CommandNode{Menu: menu, Spec: spec, Args: map[string]Expr{}, pos: start}
	if spec != builtinSpec(spec.Name) {
		// Brackets in a menu command's arguments stand in its menu:
		// /disk remove [find slot="x"].
		outer := p.menu
		p.menu = menu
		defer func() { p.menu = outer }()
	}
	a := &argParser{parser: p, c: c}
	if err := a.all(); err != nil {
		return nil, err
	}
	for name, msg := range spec.Required {
		if c.Args[name] == nil {
			return nil, p.fail(p.pos, msg)
		}
	}
	c.Text = strings.TrimSpace(p.src[start:p.pos])
	return c, nil
}

// call parses $function name=value value.
func (p *parser) call() (Stmt, error) {
	start := p.pos
	fn, err := p.value()
	if err != nil {
		return nil, err
	}
	c := callNode{fn: fn, named: map[string]Expr{}}
	for {
		t := p.peek(inCommand)
		if t.ended() {
			c.text = strings.TrimSpace(p.src[start:p.pos])
			return c, nil
		}
		name := ""
		if t.kind == kWord && t.end < len(p.src) && p.src[t.end] == '=' {
			name = t.text
			p.pos = t.end + 1
		}
		before := p.pos
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		if p.pos == before {
			return nil, p.syntax(before)
		}
		if name != "" {
			c.named[name] = v
		} else {
			c.positional = append(c.positional, v)
		}
	}
}
