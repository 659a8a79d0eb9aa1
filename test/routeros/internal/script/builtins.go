package script

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"
)

// frame is one run of a built-in command.
type frame struct {
	*Machine
	ctx   context.Context
	node  *CommandNode
	scope *scope
	want  bool
}

// builtins are the language's own commands.
var builtins map[string]func(*frame) (Value, error)

var builtinSpecs map[string]*Command

func init() {
	builtins = map[string]func(*frame) (Value, error){
		"put": biPut, "error": biError, "local": biLocal, "global": biGlobal, "set": biSet,
		"if": biIf, "foreach": biForeach, "for": biFor, "while": biWhile, "do": biDo,
		"onerror": biOnError, "return": biReturn, "delay": biDelay, "nothing": biNothing,
		"log": biLog, "serialize": biSerialize, "deserialize": biDeserialize,
		"len": ofValue(length), "tostr": ofValue(toStr), "tonum": ofValue(toNum), "toarray": ofValue(toArray),
		"tobool": ofValue(toBool), "toid": ofValue(toID), "totime": ofValue(toTime), "typeof": ofValue(typeOf),
		"pick": biPick, "find": biFind, "execute": biExecute,
	}
	specs := map[string]string{
		"put": "message", "error": "message", "local": "name:n value do:b", "global": "name:n value do:b",
		"set": "name:n value do:b", "if": "condition do:b else:b", "foreach": "counter:n in do:b",
		"for": "counter:n from to step do:b", "while": "condition do:b", "do": "command:b on-error:b while",
		"onerror": "error-name:n in:b do:b", "return": "value", "delay": "delay-time", "nothing": "",
		"log": "topics message", "serialize": "value to options delimiter", "deserialize": "value from options",
		"len": "value", "tostr": "value", "tonum": "value", "toarray": "value", "tobool": "value",
		"toid": "value", "totime": "value", "typeof": "value", "pick": "value begin end",
		"find": "value key from", "execute": "script file",
	}
	// How many of the parameters may be given by position; the rest only by name.
	byPosition := map[string]int{
		"put": 1, "error": 1, "local": 2, "global": 2, "set": 2, "if": 1, "foreach": 1, "for": 1, "while": 1,
		"do": 1, "onerror": 1, "return": 1, "delay": 1, "log": 2, "serialize": 1, "deserialize": 1, "execute": 1,
		"pick": 3, "find": 3,
	}
	builtinSpecs = map[string]*Command{}
	for name, text := range specs {
		builtinSpecs[name] = parseSpec(name, text, byPosition)
	}
	for _, name := range []string{"foreach", "for", "onerror", "local", "global", "set"} {
		first := builtinSpecs[name].Positional[0]
		builtinSpecs[name].Required = map[string]string{first: "expected variable name"}
	}
	builtinSpecs["put"].Required = map[string]string{"message": "expected message"}
	builtinSpecs["if"].Required = map[string]string{"condition": "expected condition"}
}

func parseSpec(name, text string, byPosition map[string]int) *Command {
	c := &Command{Name: name, Args: map[string]ArgKind{}}
	n, ok := byPosition[name]
	if !ok {
		n = 1
	}
	for i, word := range strings.Fields(text) {
		arg, kind, _ := strings.Cut(word, ":")
		c.Args[arg] = map[string]ArgKind{"": ArgValue, "n": ArgName, "b": ArgBlock}[kind]
		if i < n {
			c.Positional = append(c.Positional, arg)
		}
	}
	return c
}

func builtinSpec(name string) *Command { return builtinSpecs[name] }

// arg evaluates a parameter, Nothing when it was not given.
func (f *frame) arg(name string) (Value, error) {
	e, ok := f.node.Args[name]
	if !ok {
		return Nothing{}, nil
	}
	return f.eval(f.ctx, e, f.scope)
}

func (f *frame) has(name string) bool { return f.node.Args[name] != nil }

// begin announces the command itself; its arguments have been computed.
func (f *frame) begin() error {
	return f.step(f.ctx, Step{Name: ":" + f.node.Spec.Name, Text: f.node.Text})
}

// one evaluates the named parameter and announces the command.
func (f *frame) one(name string) (Value, error) {
	v, err := f.arg(name)
	if err != nil {
		return nil, err
	}
	return v, f.begin()
}

// run executes a code parameter with extra variables.
func (f *frame) run(name string, vars map[string]Value) (Value, error) {
	e, ok := f.node.Args[name]
	if !ok {
		return Nothing{}, nil
	}
	inner := &scope{parent: f.scope}
	for k, v := range vars {
		inner.define(k, &cell{v: v})
	}
	if c, ok := e.(codeNode); ok {
		return f.block(f.ctx, c.body, inner, f.want)
	}
	v, err := f.eval(f.ctx, e, inner)
	if c, ok := v.(*Code); ok && err == nil {
		return f.block(f.ctx, c.body, inner, f.want)
	}
	return v, err
}

// names returns the variable names of a name parameter.
func (f *frame) names(arg string) []string {
	lit, ok := f.node.Args[arg].(literalNode)
	if !ok {
		return nil
	}
	var names []string
	if arr, ok := lit.value.(*Array); ok {
		for _, v := range arr.List {
			names = append(names, v.String())
		}
	}
	return names
}

func biPut(f *frame) (Value, error) {
	v, err := f.one("message")
	if err != nil {
		return nil, err
	}
	text := v.String() + "\r\n"
	if f.Format != nil {
		text = f.Format(text)
	}
	_, err = io.WriteString(f.Out, text)
	return Nothing{}, err
}

func biError(f *frame) (Value, error) {
	v, err := f.one("message")
	if err != nil {
		return nil, err
	}
	return nil, &Failure{Msg: v.String()}
}

// assigned evaluates what a variable is given: a value or code.
func (f *frame) assigned() (Value, error) {
	if f.has("do") {
		return f.one("do")
	}
	return f.one("value")
}

func biLocal(f *frame) (Value, error) {
	v, err := f.assigned()
	if err != nil {
		return nil, err
	}
	f.scope.define(f.names("name")[0], &cell{v: v})
	return Nothing{}, nil
}

func biGlobal(f *frame) (Value, error) {
	v, err := f.assigned()
	if err != nil {
		return nil, err
	}
	name := f.names("name")[0]
	c := f.Globals.cell(name)
	if f.has("value") || f.has("do") {
		c.set(v)
	}
	f.scope.define(name, c)
	return Nothing{}, nil
}

func biSet(f *frame) (Value, error) {
	v, err := f.assigned()
	if err != nil {
		return nil, err
	}
	c := f.scope.find(f.names("name")[0])
	if c == nil {
		return nil, Failuref("undefined variable %s", f.names("name")[0])
	}
	c.set(v)
	return Nothing{}, nil
}

// condition is whether the command's condition holds.
func (f *frame) condition() (bool, error) {
	v, err := f.one("condition")
	if err != nil {
		return false, err
	}
	holds, ok := Truth(v)
	if !ok {
		return false, Failuref("conditional not boolean")
	}
	return holds, nil
}

func biIf(f *frame) (Value, error) {
	holds, err := f.condition()
	if err != nil {
		return nil, err
	}
	if holds {
		return f.run("do", nil)
	}
	return f.run("else", nil)
}

func biForeach(f *frame) (Value, error) {
	in, err := f.one("in")
	if err != nil {
		return nil, err
	}
	names := f.names("counter")
	each := func(k, v Value) error {
		vars := map[string]Value{names[len(names)-1]: v}
		if len(names) > 1 {
			vars[names[0]] = k
		}
		_, err := f.run("do", vars)
		return err
	}
	arr, ok := in.(*Array)
	if !ok {
		if isNone(in) {
			return Nothing{}, nil
		}
		arr = List(in)
	}
	for i, v := range arr.List {
		if err := each(Number(i), v); err != nil {
			return nil, err
		}
	}
	for _, k := range arr.Keys() {
		if err := each(String(k), arr.Map[k]); err != nil {
			return nil, err
		}
	}
	return Nothing{}, nil
}

func biFor(f *frame) (Value, error) {
	var bounds [3]Number
	for i, name := range [...]string{"from", "to", "step"} {
		v, err := f.arg(name)
		if err != nil {
			return nil, err
		}
		n, ok := ToNumber(v)
		if !ok && f.has(name) {
			return nil, Failuref("invalid value for argument %s", name)
		}
		bounds[i] = n
	}
	if err := f.begin(); err != nil {
		return nil, err
	}
	from, to, by := bounds[0], bounds[1], bounds[2]
	if by == 0 {
		by = 1
		if from > to {
			by = -1
		}
	}
	for i := from; by > 0 && i <= to || by < 0 && i >= to; i += by {
		if err := f.ctx.Err(); err != nil {
			return nil, stopped{err}
		}
		if _, err := f.run("do", map[string]Value{f.names("counter")[0]: i}); err != nil {
			return nil, err
		}
	}
	return Nothing{}, nil
}

func biWhile(f *frame) (Value, error) {
	for {
		holds, err := f.condition()
		if err != nil {
			return nil, err
		}
		if !holds {
			return Nothing{}, nil
		}
		if _, err := f.run("do", nil); err != nil {
			return nil, err
		}
	}
}

func biDo(f *frame) (Value, error) {
	for {
		if err := f.begin(); err != nil {
			return nil, err
		}
		v, err := f.run("command", nil)
		var failure *Failure
		if errors.As(err, &failure) && f.has("on-error") {
			return f.run("on-error", nil)
		}
		if err != nil || !f.has("while") {
			return v, err
		}
		again, err := f.arg("while")
		if err != nil {
			return nil, err
		}
		if t, ok := Truth(again); !ok || !t {
			return v, nil
		}
	}
}

// biOnError answers whether there was an error.
func biOnError(f *frame) (Value, error) {
	if err := f.begin(); err != nil {
		return nil, err
	}
	_, err := f.run("in", nil)
	var failure *Failure
	if err == nil || !errors.As(err, &failure) {
		return Bool(false), err
	}
	_, err = f.run("do", map[string]Value{f.names("error-name")[0]: String(failure.Msg)})
	return Bool(true), err
}

func biReturn(f *frame) (Value, error) {
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	return nil, returned{value: v}
}

func biDelay(f *frame) (Value, error) {
	v, err := f.one("delay-time")
	if err != nil {
		return nil, err
	}
	var wait time.Duration
	switch v := v.(type) {
	case Duration:
		wait = time.Duration(v)
	case Number:
		wait = time.Duration(v) * time.Second
	}
	after := f.After
	if after == nil {
		after = time.After
	}
	select {
	case <-after(wait):
		return Nothing{}, nil
	case <-f.ctx.Done():
		return nil, stopped{f.ctx.Err()}
	}
}

func biNothing(f *frame) (Value, error) { return Nothing{}, f.begin() }

// biLog is accepted and goes nowhere.
func biLog(f *frame) (Value, error) {
	_, err := f.one("message")
	return Nothing{}, err
}

// biExecute starts a script in the background and answers its job's id.
func biExecute(f *frame) (Value, error) {
	v, err := f.one("script")
	switch code := v.(type) {
	case nil:
		return nil, err
	case *Code:
		return nil, Failuref("failure: a script in braces can not be simulated; give its text")
	default:
		if err != nil {
			return nil, err
		}
		if f.has("file") || f.Execute == nil {
			return nil, Failuref("failure: can not be simulated")
		}
		id, err := f.Execute(code.String())
		return ID(id), err
	}
}
