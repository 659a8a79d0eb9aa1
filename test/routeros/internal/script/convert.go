package script

import (
	"strings"
	"unicode/utf8"
)

func biLen(f *frame) (Value, error) {
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	if arr, ok := v.(*Array); ok {
		return Number(arr.Len()), nil
	}
	return Number(len(v.String())), nil
}

func biToStr(f *frame) (Value, error) {
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	return String(v.String()), nil
}

func biToNum(f *frame) (Value, error) {
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	if n, ok := ToNumber(v); ok {
		return n, nil
	}
	return Nil{}, nil
}

func biToArray(f *frame) (Value, error) {
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	if arr, ok := v.(*Array); ok {
		return arr, nil
	}
	arr := &Array{}
	if isNone(v) || v.String() == "" {
		return arr, nil
	}
	for _, part := range strings.FieldsFunc(v.String(), func(r rune) bool { return r == ',' || r == ';' }) {
		arr.List = append(arr.List, literal(part))
	}
	return arr, nil
}

func biToBool(f *frame) (Value, error) {
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	if t, ok := Truth(v); ok {
		return Bool(t), nil
	}
	if n, ok := v.(Number); ok {
		return Bool(n != 0), nil
	}
	return Nil{}, nil
}

func biToID(f *frame) (Value, error) {
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	if id, ok := literal(v.String()).(ID); ok {
		return id, nil
	}
	return Nil{}, nil
}

func biToTime(f *frame) (Value, error) {
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	if d, ok := parseDuration(v.String()); ok {
		return Duration(d), nil
	}
	return Nil{}, nil
}

func biTypeOf(f *frame) (Value, error) {
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	return String(v.TypeName()), nil
}

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
