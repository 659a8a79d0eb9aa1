package script

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"
)

// Host carries out the commands of menus.
type Host interface {
	Call(ctx context.Context, c *Call) (Value, error)
}

// Filter decides whether a where lets an item through. lookup answers the
// item's own properties.
type Filter func(lookup func(name string) (Value, bool)) (bool, error)

// Call is one use of a menu command.
type Call struct {
	Menu    *Menu
	Command string
	Args    map[string]Value
	Unset   []string
	// Where is nil when the command had none.
	Where Filter
	// Bracketed: the value is used, as in [ … ].
	Bracketed bool
	Out       io.Writer
}

// Has reports a flag or a parameter that was given.
func (c *Call) Has(name string) bool { _, ok := c.Args[name]; return ok }

// Text returns a parameter's text, empty when it was not given.
func (c *Call) Text(name string) string {
	if v, ok := c.Args[name]; ok {
		return v.String()
	}
	return ""
}

// Step is one command about to run.
type Step struct {
	// Index counts the commands of this script from 0.
	Index int
	// Name is the full name: /disk/set or :put.
	Name string
	// Text is the command as written.
	Text    string
	Mutates bool
}

// Globals are the variables that outlive a script. Safe for concurrent use.
type Globals struct {
	mu    sync.Mutex
	cells map[string]*cell
}

func (g *Globals) cell(name string) *cell {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cells == nil {
		g.cells = map[string]*cell{}
	}
	if g.cells[name] == nil {
		g.cells[name] = &cell{v: Nothing{}}
	}
	return g.cells[name]
}

// cell holds a variable's value; global ones are shared by scripts.
type cell struct {
	mu sync.Mutex
	v  Value
}

func (c *cell) get() Value {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.v
}

func (c *cell) set(v Value) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.v = v
}

// JSONStyle is how :serialize writes what RouterOS releases write differently.
type JSONStyle struct {
	// FloatNumbers writes 2048 as 2048.000000.
	FloatNumbers bool
	// EmptyAsNull writes an empty string as null.
	EmptyAsNull bool
}

// Machine runs programs.
type Machine struct {
	Host    Host
	Out     io.Writer
	Globals *Globals
	JSON    JSONStyle
	// Before is called before each command; its error ends the script and
	// cannot be caught by it.
	Before func(ctx context.Context, s Step) error
	// After waits for :delay. Nil means the system's clock.
	After func(time.Duration) <-chan time.Time
	// Execute starts a script in the background, as a job that outlives this
	// one, and answers its id.
	Execute func(text string) (id string, err error)
	// Locate appends the command and line to run-time errors.
	Locate bool
	// Format shapes what :put writes; nil leaves it alone.
	Format func(string) string

	steps int
}

// stopped is an end from outside; no :onerror catches it.
type stopped struct{ err error }

func (s stopped) Error() string { return s.err.Error() }
func (s stopped) Unwrap() error { return s.err }

// Run executes the program and returns its value, that of :return or of its
// last command.
func (m *Machine) Run(ctx context.Context, p *Program) (Value, error) {
	if m.Globals == nil {
		m.Globals = &Globals{}
	}
	v, err := m.block(ctx, p.Body, &scope{}, false)
	var ret returned
	if errors.As(err, &ret) {
		return ret.value, nil
	}
	return v, err
}

// Steps returns how many commands were started.
func (m *Machine) Steps() int { return m.steps }

// scope is one block's variables.
type scope struct {
	parent *scope
	vars   map[string]*cell
	// lookup, when set, answers the properties of the item a where looks at.
	// They hide variables of the same name: RouterOS's trap.
	lookup func(string) (Value, bool)
}

func (s *scope) find(name string) *cell {
	for ; s != nil; s = s.parent {
		if c, ok := s.vars[name]; ok {
			return c
		}
		if s.lookup != nil {
			if v, ok := s.lookup(name); ok {
				return &cell{v: v}
			}
		}
	}
	return nil
}

func (s *scope) define(name string, c *cell) {
	if s.vars == nil {
		s.vars = map[string]*cell{}
	}
	s.vars[name] = c
}

// block runs statements in a scope of their own. want: the last one's value
// is used.
func (m *Machine) block(ctx context.Context, b *Block, outer *scope, want bool) (Value, error) {
	inner := &scope{parent: outer}
	var last Value = Nothing{}
	for _, stmt := range b.Stmts {
		v, err := m.stmt(ctx, stmt, inner, want)
		if err != nil {
			return nil, err
		}
		last = v
	}
	return last, nil
}

func (m *Machine) stmt(ctx context.Context, stmt Stmt, s *scope, want bool) (Value, error) {
	switch n := stmt.(type) {
	case *Block:
		return m.block(ctx, n, s, want)
	case *CommandNode:
		return m.command(ctx, n, s, want)
	case callNode:
		return m.callCode(ctx, n, s)
	}
	return m.eval(ctx, stmt, s)
}

// step announces a command and gives other scripts a turn.
func (m *Machine) step(ctx context.Context, st Step) error {
	runtime.Gosched()
	st.Index = m.steps
	m.steps++
	if err := ctx.Err(); err != nil {
		return stopped{err}
	}
	if m.Before != nil {
		if err := m.Before(ctx, st); err != nil {
			return stopped{err}
		}
	}
	return nil
}

func (m *Machine) command(ctx context.Context, n *CommandNode, s *scope, want bool) (Value, error) {
	run, isBuiltin := builtins[n.Spec.Name]
	if isBuiltin && n.Spec == builtinSpec(n.Spec.Name) {
		// Flow commands evaluate their own arguments, when they need them.
		return run(&frame{Machine: m, ctx: ctx, node: n, scope: s, want: want})
	}
	call := &Call{
		Menu: n.Menu, Command: n.Spec.Name, Unset: n.Unset,
		Args: map[string]Value{}, Bracketed: want, Out: m.Out,
	}
	for name, e := range n.Args {
		v, err := m.menuArg(ctx, e, s)
		if err != nil {
			return nil, err
		}
		call.Args[name] = v
	}
	if n.Where != nil {
		call.Where = m.filter(ctx, n.Where, s)
	}
	st := Step{Name: n.Menu.Path + "/" + n.Spec.Name, Text: n.Text, Mutates: n.Spec.Mutates}
	if err := m.step(ctx, st); err != nil {
		return nil, err
	}
	v, err := m.Host.Call(ctx, call)
	if err != nil {
		return nil, m.located(err, st.Name)
	}
	return v, nil
}

// located adds the command's name to a failure, as newer releases do.
func (m *Machine) located(err error, name string) error {
	var f *Failure
	if m.Locate && errors.As(err, &f) {
		return Failuref("%s (%s; line 1)", f.Msg, name)
	}
	return err
}

// menuArg keeps a bare word's text, which the menu reads by the property's type.
func (m *Machine) menuArg(ctx context.Context, e Expr, s *scope) (Value, error) {
	if lit, ok := e.(literalNode); ok && lit.raw != "" {
		return String(lit.raw), nil
	}
	return m.eval(ctx, e, s)
}

func (m *Machine) filter(ctx context.Context, where Expr, s *scope) Filter {
	return func(lookup func(string) (Value, bool)) (bool, error) {
		v, err := m.eval(ctx, where, &scope{parent: s, lookup: lookup})
		if err != nil {
			return false, err
		}
		if t, ok := Truth(v); ok {
			return t, nil
		}
		return !isNone(v) && v.String() != "", nil
	}
}

func (m *Machine) callCode(ctx context.Context, n callNode, s *scope) (Value, error) {
	fn, err := m.eval(ctx, n.fn, s)
	if err != nil {
		return nil, err
	}
	code, ok := fn.(*Code)
	if !ok {
		return fn, nil
	}
	inner := &scope{}
	for name, e := range n.named {
		v, err := m.eval(ctx, e, s)
		if err != nil {
			return nil, err
		}
		inner.define(name, &cell{v: v})
	}
	for i, e := range n.positional {
		v, err := m.eval(ctx, e, s)
		if err != nil {
			return nil, err
		}
		inner.define(Number(i+1).String(), &cell{v: v})
	}
	if err := m.step(ctx, Step{Name: "function", Text: n.text}); err != nil {
		return nil, err
	}
	v, err := m.block(ctx, code.body, inner, false)
	var ret returned
	if errors.As(err, &ret) {
		return ret.value, nil
	}
	return v, err
}
