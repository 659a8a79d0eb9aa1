package script

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
)

// jsonWriter writes values as :serialize to=json does: names sorted, an empty
// array as [].
type jsonWriter struct {
	strings.Builder
	style JSONStyle
	// convert writes text that looks like a number or boolean as one.
	convert bool
	pretty  bool
}

func (w *jsonWriter) value(v Value, depth int) {
	switch v := v.(type) {
	case *Array:
		w.array(v, depth)
	case Number:
		w.number(int64(v))
	case Bool:
		w.WriteString(v.String())
	case Nothing, Nil, nil:
		w.WriteString("null")
	default:
		w.text(v.String())
	}
}

func (w *jsonWriter) number(n int64) {
	w.WriteString(strconv.FormatInt(n, 10))
	if w.style.FloatNumbers {
		w.WriteString(".000000")
	}
}

func (w *jsonWriter) text(s string) {
	if w.style.EmptyAsNull && s == "" {
		w.WriteString("null")
		return
	}
	if w.convert {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			w.number(n)
			return
		}
		if s == "true" || s == "false" {
			w.WriteString(s)
			return
		}
	}
	w.quote(s)
}

func (w *jsonWriter) quote(s string) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(printable(s)); err == nil { // a string always encodes
		w.WriteString(strings.TrimSuffix(b.String(), "\n"))
	}
}

func (w *jsonWriter) array(a *Array, depth int) {
	opener, closer := "[", "]"
	if len(a.Map) > 0 {
		opener, closer = "{", "}"
	}
	w.WriteString(opener)
	n := 0
	next := func() {
		if n++; n > 1 {
			w.WriteByte(',')
		}
		w.newline(depth + 1)
	}
	for i, v := range a.List {
		next()
		if len(a.Map) > 0 {
			w.quote(strconv.Itoa(i))
			w.WriteByte(':')
		}
		w.value(v, depth+1)
	}
	for _, k := range a.Keys() {
		next()
		w.quote(k)
		w.WriteByte(':')
		w.value(a.Map[k], depth+1)
	}
	if n > 0 {
		w.newline(depth)
	}
	w.WriteString(closer)
}

func (w *jsonWriter) newline(depth int) {
	if w.pretty {
		w.WriteString("\r\n" + strings.Repeat("    ", depth))
	}
}

func biSerialize(f *frame) (Value, error) {
	to, err := f.arg("to")
	if err != nil {
		return nil, err
	}
	options, err := f.arg("options")
	if err != nil {
		return nil, err
	}
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	if to.String() != "json" {
		return nil, Failuref("input does not match any value of to")
	}
	w := &jsonWriter{style: f.JSON, convert: true}
	if !isNone(options) {
		for _, o := range strings.FieldsFunc(options.String(), func(r rune) bool { return r == ',' || r == ';' }) {
			switch o {
			case "json.no-string-conversion":
				w.convert = false
			case "json.pretty":
				w.pretty = true
			default:
				return nil, Failuref("input does not match any value of options")
			}
		}
	}
	w.value(v, 0)
	return String(w.String()), nil
}

func biDeserialize(f *frame) (Value, error) {
	from, err := f.arg("from")
	if err != nil {
		return nil, err
	}
	v, err := f.one("value")
	if err != nil {
		return nil, err
	}
	if from.String() != "json" {
		return nil, Failuref("input does not match any value of from")
	}
	dec := json.NewDecoder(strings.NewReader(v.String()))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return nil, Failuref("failure: cannot deserialize value")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, Failuref("failure: cannot deserialize value")
	}
	return fromJSON(doc), nil
}

func fromJSON(doc any) Value {
	switch d := doc.(type) {
	case bool:
		return Bool(d)
	case string:
		return String(d)
	case json.Number:
		if f, err := d.Float64(); err == nil && !strings.ContainsAny(string(d), ".eE") {
			n, err := d.Int64()
			if err == nil {
				return Number(n)
			}
			return Number(f)
		}
		return String(d)
	case []any:
		out := &Array{}
		for _, e := range d {
			out.List = append(out.List, fromJSON(e))
		}
		return out
	case map[string]any:
		out := &Array{}
		for k, e := range d {
			out.Set(k, fromJSON(e))
		}
		return out
	}
	return Nothing{}
}
