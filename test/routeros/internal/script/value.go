package script

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Value is anything a script can hold. String gives the text that :put shows.
type Value interface {
	// TypeName is what :typeof answers.
	TypeName() string
	String() string
}

// The scalar types.
type (
	// Nothing is the value of a variable that was never given one.
	Nothing struct{}
	// Nil is what :find and :pick answer when there is nothing to answer.
	Nil struct{}
	// String is text.
	String string
	// Number is the language's only number, a signed 64 bit integer.
	Number int64
	// Bool is true or false.
	Bool bool
	// ID is an internal item number such as *1F.
	ID string
	// Duration is a time interval.
	Duration time.Duration
	// Address is an IPv4 address or prefix, kept as written.
	Address string
)

// Array is an ordered list, a dictionary, or both at once.
type Array struct {
	List []Value
	Map  map[string]Value
}

// Code is a block that can be called later.
type Code struct{ body *Block }

// TypeName implements Value.
func (Nothing) TypeName() string { return "nothing" }

// TypeName implements Value.
func (Nil) TypeName() string { return "nil" }

// TypeName implements Value.
func (String) TypeName() string { return "str" }

// TypeName implements Value.
func (Number) TypeName() string { return "num" }

// TypeName implements Value.
func (Bool) TypeName() string { return "bool" }

// TypeName implements Value.
func (ID) TypeName() string { return "id" }

// TypeName implements Value.
func (Duration) TypeName() string { return "time" }

// TypeName implements Value.
func (a Address) TypeName() string {
	if strings.Contains(string(a), "/") {
		return "ip-prefix"
	}
	return "ip"
}

// TypeName implements Value.
func (*Array) TypeName() string { return "array" }

// TypeName implements Value.
func (*Code) TypeName() string { return "code" }

func (Nothing) String() string   { return "" }
func (Nil) String() string       { return "" }
func (s String) String() string  { return string(s) }
func (n Number) String() string  { return strconv.FormatInt(int64(n), 10) }
func (id ID) String() string     { return string(id) }
func (a Address) String() string { return string(a) }
func (*Code) String() string     { return "(code)" }

func (b Bool) String() string {
	if b {
		return "true"
	}
	return "false"
}

// String writes the clock form the console uses: 1w2d03:04:05.
func (d Duration) String() string {
	t := time.Duration(d)
	sign := ""
	if t < 0 {
		sign, t = "-", -t
	}
	days := t / (24 * time.Hour)
	t -= days * 24 * time.Hour
	var b strings.Builder
	b.WriteString(sign)
	if w := days / 7; w > 0 {
		fmt.Fprintf(&b, "%dw", w)
	}
	if d := days % 7; d > 0 {
		fmt.Fprintf(&b, "%dd", d)
	}
	fmt.Fprintf(&b, "%02d:%02d:%02d", int(t.Hours()), int(t.Minutes())%60, int(t.Seconds())%60)
	if rest := t % time.Second; rest != 0 {
		fmt.Fprintf(&b, ".%09d", rest)
	}
	return b.String()
}

// String joins the elements with semicolons, positional ones first; nested
// arrays are flattened, as :put shows them.
func (a *Array) String() string {
	parts := make([]string, 0, a.Len())
	for _, v := range a.List {
		parts = append(parts, v.String())
	}
	for _, k := range a.Keys() {
		parts = append(parts, k+"="+a.Map[k].String())
	}
	return strings.Join(parts, ";")
}

// Len counts positional and named elements.
func (a *Array) Len() int { return len(a.List) + len(a.Map) }

// Keys returns the names of the named elements in RouterOS's order.
func (a *Array) Keys() []string {
	keys := make([]string, 0, len(a.Map))
	for k := range a.Map {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Set gives a named element a value.
func (a *Array) Set(key string, v Value) {
	if a.Map == nil {
		a.Map = map[string]Value{}
	}
	a.Map[key] = v
}

// Get is the -> operator: by position for a number, by name for anything else.
func (a *Array) Get(key Value) Value {
	if n, ok := key.(Number); ok {
		if n >= 0 && int(n) < len(a.List) {
			return a.List[n]
		}
		return Nothing{}
	}
	if v, ok := a.Map[key.String()]; ok {
		return v
	}
	return Nothing{}
}

// List makes an array of values.
func List(values ...Value) *Array { return &Array{List: values} }

// Truth reports the boolean a value stands for; ok is false when it is none.
func Truth(v Value) (truth, ok bool) {
	switch v := v.(type) {
	case Bool:
		return bool(v), true
	case String:
		switch v {
		case "true", "yes":
			return true, true
		case "false", "no":
			return false, true
		}
	}
	return false, false
}

// ToNumber converts as :tonum does.
func ToNumber(v Value) (Number, bool) {
	switch v := v.(type) {
	case Number:
		return v, true
	case Bool:
		if v {
			return 1, true
		}
		return 0, true
	case String:
		n, err := strconv.ParseInt(strings.TrimSpace(string(v)), 0, 64)
		if err != nil || strings.HasPrefix(string(v), "0o") || strings.HasPrefix(string(v), "0b") {
			return 0, false
		}
		return Number(n), true
	case Duration:
		return Number(time.Duration(v) / time.Second), true
	}
	return 0, false
}

// Equal is the = operator. Values of different types are equal when their
// texts are; nothing equals only nothing.
func Equal(a, b Value) bool {
	if isNone(a) || isNone(b) {
		return isNone(a) && isNone(b)
	}
	if ta, ok := a.(Bool); ok {
		if tb, ok := Truth(b); ok {
			return bool(ta) == tb
		}
	}
	if tb, ok := b.(Bool); ok {
		if ta, ok := Truth(a); ok {
			return ta == bool(tb)
		}
	}
	return a.String() == b.String()
}

func isNone(v Value) bool {
	switch v.(type) {
	case Nothing, Nil, nil:
		return true
	}
	return false
}
