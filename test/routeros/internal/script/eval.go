package script

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"strings"
)

// eval computes an expression.
func (m *Machine) eval(ctx context.Context, e Expr, s *scope) (Value, error) {
	switch n := e.(type) {
	case literalNode:
		return n.value, nil
	case stringNode:
		return m.interpolated(ctx, n, s)
	case varNode:
		if c := s.find(n.name); c != nil {
			return c.get(), nil
		}
		return Nothing{}, nil
	case propNode:
		return s.property(n.name), nil
	case deadNode:
		return Nil{}, nil
	case codeNode:
		return &Code{body: n.body}, nil
	case arrayNode:
		return m.array(ctx, n, s)
	case substNode:
		return m.substitution(ctx, n, s)
	case unaryNode:
		return m.unary(ctx, n, s)
	case binaryNode:
		return m.binary(ctx, n, s)
	case indexNode:
		return m.index(ctx, n, s)
	}
	return nil, Failuref("cannot evaluate")
}

// property answers for the item that the innermost where looks at.
func (s *scope) property(name string) Value {
	for ; s != nil; s = s.parent {
		if s.lookup != nil {
			if v, ok := s.lookup(name); ok {
				return v
			}
			return Nothing{}
		}
	}
	return String(name)
}

func (m *Machine) interpolated(ctx context.Context, n stringNode, s *scope) (Value, error) {
	var b strings.Builder
	for _, part := range n.parts {
		v, err := m.eval(ctx, part, s)
		if err != nil {
			return nil, err
		}
		b.WriteString(v.String())
	}
	return String(b.String()), nil
}

// substitution runs [ … ]; a :return inside ends only it.
func (m *Machine) substitution(ctx context.Context, n substNode, s *scope) (Value, error) {
	v, err := m.block(ctx, n.body, s, true)
	var ret returned
	if errors.As(err, &ret) {
		return ret.value, nil
	}
	return v, err
}

func (m *Machine) array(ctx context.Context, n arrayNode, s *scope) (Value, error) {
	arr := &Array{}
	for _, item := range n.items {
		v, err := m.eval(ctx, item.value, s)
		if err != nil {
			return nil, err
		}
		if item.key == nil {
			arr.List = append(arr.List, v)
			continue
		}
		k, err := m.eval(ctx, item.key, s)
		if err != nil {
			return nil, err
		}
		arr.Set(k.String(), v)
	}
	return arr, nil
}

func (m *Machine) index(ctx context.Context, n indexNode, s *scope) (Value, error) {
	x, err := m.eval(ctx, n.x, s)
	if err != nil {
		return nil, err
	}
	key, err := m.eval(ctx, n.key, s)
	if err != nil {
		return nil, err
	}
	if arr, ok := x.(*Array); ok {
		return arr.Get(key), nil
	}
	return Nothing{}, nil
}

func (m *Machine) unary(ctx context.Context, n unaryNode, s *scope) (Value, error) {
	x, err := m.eval(ctx, n.x, s)
	if err != nil {
		return nil, err
	}
	switch n.op {
	case "!":
		t, ok := Truth(x)
		if !ok {
			t = !isNone(x) && x.String() != ""
		}
		return Bool(!t), nil
	case "-":
		if num, ok := ToNumber(x); ok {
			return -num, nil
		}
	case "~":
		if num, ok := ToNumber(x); ok {
			return ^num, nil
		}
	}
	return nil, Failuref("cannot apply %s to %s", n.op, x.TypeName())
}

func (m *Machine) binary(ctx context.Context, n binaryNode, s *scope) (Value, error) {
	x, err := m.eval(ctx, n.x, s)
	if err != nil {
		return nil, err
	}
	switch n.op {
	case "&&", "and", "||", "or":
		return m.logic(ctx, n, x, s)
	}
	if isDead(n.x) || isDead(n.y) {
		return Bool(false), nil
	}
	y, err := m.eval(ctx, n.y, s)
	if err != nil {
		return nil, err
	}
	switch n.op {
	case "=", "!=":
		eq := Equal(x, y) || inWhereEqual(n, x)
		return Bool(eq == (n.op == "=")), nil
	case "<", ">", "<=", ">=":
		return compare(n.op, x, y)
	case "~":
		return matches(x, y)
	case "in":
		return Bool(contains(y, x)), nil
	case ".":
		return concat(x, y), nil
	case ",":
		return join(x, y), nil
	}
	return arithmetic(n.op, x, y)
}

func isDead(e Expr) bool { _, ok := e.(deadNode); return ok }

// inWhereEqual compares a property with a bare word as it was written, so that
// comment=yes finds the comment "yes". An unset property equals no word.
func inWhereEqual(n binaryNode, x Value) bool {
	_, isProp := n.x.(propNode)
	lit, isLit := n.y.(literalNode)
	if !isProp || !isLit {
		return false
	}
	if isNone(x) {
		return lit.value.String() == ""
	}
	return lit.raw != "" && x.String() == lit.raw
}

func (m *Machine) logic(ctx context.Context, n binaryNode, x Value, s *scope) (Value, error) {
	and := n.op == "&&" || n.op == "and"
	left := truthy(x)
	if left != and {
		return Bool(left), nil
	}
	y, err := m.eval(ctx, n.y, s)
	if err != nil {
		return nil, err
	}
	return Bool(truthy(y)), nil
}

func truthy(v Value) bool {
	if t, ok := Truth(v); ok {
		return t
	}
	if n, ok := v.(Number); ok {
		return n != 0
	}
	return !isNone(v) && v.String() != ""
}

func compare(op string, x, y Value) (Value, error) {
	if isNone(x) || isNone(y) {
		return Bool(false), nil
	}
	c := strings.Compare(x.String(), y.String())
	if a, ok := ToNumber(x); ok {
		if b, ok := ToNumber(y); ok {
			c = cmp.Compare(a, b)
		}
	}
	switch op {
	case "<":
		return Bool(c < 0), nil
	case ">":
		return Bool(c > 0), nil
	case "<=":
		return Bool(c <= 0), nil
	}
	return Bool(c >= 0), nil
}

func matches(x, y Value) (Value, error) {
	re, err := regexp.Compile(y.String())
	if err != nil {
		return nil, Failuref("invalid regular expression")
	}
	return Bool(re.MatchString(x.String())), nil
}

func contains(set, x Value) bool {
	arr, ok := set.(*Array)
	if !ok {
		return Equal(set, x)
	}
	for _, v := range arr.List {
		if Equal(v, x) {
			return true
		}
	}
	return false
}

// concat is the dot: text, or one array after the other.
func concat(x, y Value) Value {
	a, okA := x.(*Array)
	b, okB := y.(*Array)
	if okA && okB {
		return join(a, b)
	}
	return String(x.String() + y.String())
}

// join is the comma: lists become one.
func join(x, y Value) Value {
	out := &Array{}
	for _, v := range [...]Value{x, y} {
		arr, ok := v.(*Array)
		if !ok {
			out.List = append(out.List, v)
			continue
		}
		out.List = append(out.List, arr.List...)
		for k, v := range arr.Map {
			out.Set(k, v)
		}
	}
	return out
}

func arithmetic(op string, x, y Value) (Value, error) {
	a, okA := ToNumber(x)
	b, okB := ToNumber(y)
	if !okA || !okB {
		return nil, Failuref("cannot apply %s to %s and %s", op, x.TypeName(), y.TypeName())
	}
	switch op {
	case "+":
		return a + b, nil
	case "-":
		return a - b, nil
	case "*":
		return a * b, nil
	case "|":
		return a | b, nil
	case "&":
		return a & b, nil
	case "^":
		return a ^ b, nil
	case "<<":
		return a << uint64(b&63), nil
	case ">>":
		return a >> uint64(b&63), nil
	}
	if b == 0 {
		return nil, Failuref("division by zero")
	}
	if op == "%" {
		return a % b, nil
	}
	return a / b, nil
}
