package script

import (
	"strings"
	"unicode/utf8"
)

// ofValue makes a built-in command of a function of its value.
func ofValue(convert func(Value) Value) func(*frame) (Value, error) {
	return func(f *frame) (Value, error) {
		v, err := f.one("value")
		if err != nil {
			return nil, err
		}
		return convert(v), nil
	}
}

func length(v Value) Value {
	if arr, ok := v.(*Array); ok {
		return Number(arr.Len())
	}
	return Number(len(v.String()))
}

func toStr(v Value) Value { return String(v.String()) }

func toNum(v Value) Value {
	if n, ok := ToNumber(v); ok {
		return n
	}
	return Nil{}
}

func toArray(v Value) Value {
	if arr, ok := v.(*Array); ok {
		return arr
	}
	arr := &Array{}
	if isNone(v) || v.String() == "" {
		return arr
	}
	for _, part := range strings.FieldsFunc(v.String(), func(r rune) bool { return r == ',' || r == ';' }) {
		arr.List = append(arr.List, literal(part))
	}
	return arr
}

func toBool(v Value) Value {
	if t, ok := Truth(v); ok {
		return Bool(t)
	}
	if n, ok := v.(Number); ok {
		return Bool(n != 0)
	}
	return Nil{}
}

func toID(v Value) Value {
	if id, ok := literal(v.String()).(ID); ok {
		return id
	}
	return Nil{}
}

func toTime(v Value) Value {
	if d, ok := parseDuration(v.String()); ok {
		return Duration(d)
	}
	return Nil{}
}

func typeOf(v Value) Value { return String(v.TypeName()) }

// biPick takes elements [begin, end) of text or a list; one without an end.
func biPick(f *frame) (Value, error) {
	v, err := f.arg("value")
	if err != nil {
		return nil, err
	}
	b, err := f.arg("begin")
	if err != nil {
		return nil, err
	}
	e, err := f.one("end")
	if err != nil {
		return nil, err
	}
	begin, ok := ToNumber(b)
	if !ok {
		return nil, Failuref("invalid value for argument begin")
	}
	end, ok := ToNumber(e)
	if !ok {
		end = begin + 1
	}
	arr, isArray := v.(*Array)
	size := Number(len(v.String()))
	if isArray {
		size = Number(len(arr.List))
	}
	begin, end = max(begin, 0), min(end, size)
	switch {
	case begin >= end:
		return Nil{}, nil
	case !isArray:
		return String(v.String()[begin:end]), nil
	case !f.has("end"):
		return arr.List[begin], nil
	}
	return List(arr.List[begin:end]...), nil
}

// biFind finds a position in text or in a list, after the given one.
func biFind(f *frame) (Value, error) {
	v, err := f.arg("value")
	if err != nil {
		return nil, err
	}
	key, err := f.arg("key")
	if err != nil {
		return nil, err
	}
	after, err := f.one("from")
	if err != nil {
		return nil, err
	}
	start := 0
	if n, ok := ToNumber(after); ok && n >= -1 {
		start = int(min(n, 1<<30)) + 1
	}
	if arr, ok := v.(*Array); ok {
		for i := start; i < len(arr.List); i++ {
			if Equal(arr.List[i], key) {
				return Number(i), nil
			}
		}
		return Nil{}, nil
	}
	text := v.String()
	if start <= len(text) {
		if i := strings.Index(text[start:], key.String()); i >= 0 {
			return Number(start + i), nil
		}
	}
	return Nil{}, nil
}

// printable makes text valid for JSON: RouterOS strings are bytes.
func printable(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		b.WriteRune(rune(s[i])) // as Latin-1
	}
	return b.String()
}
