package array

import (
	"strconv"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/render"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// record is a snapshot of one item.
type record struct {
	id      string
	comment string
	flags   map[byte]bool
	// values are what print shows; hidden ones are there for get and where only.
	values map[string]script.Value
	hidden map[string]script.Value
}

// table is a menu of items. Its methods are called with the lock held.
type table interface {
	view() render.View
	// nameKey is the property that can stand for an item's number.
	nameKey() string
	records() []record
	add(args map[string]script.Value) (id string, err error)
	set(id string, args map[string]script.Value, unset []string) error
	remove(id string) error
}

// single is a menu with one item and no numbers.
type single interface{ single() }

var errNoSuchItem = script.Failuref("no such item")

var errGone = script.Failuref("no such item (4)")

// lookup answers a property by name for where and get. known tells an unset
// property from a name the menu does not have.
func (r record) lookup(v render.View, name string) (val script.Value, known bool) {
	switch name {
	case ".id":
		return script.ID(r.id), true
	case "comment":
		if r.comment == "" {
			return script.Nothing{}, true
		}
		return script.String(r.comment), true
	}
	if val, ok := r.values[name]; ok {
		return val, true
	}
	if val, ok := r.hidden[name]; ok {
		return val, true
	}
	for _, f := range v.Flags {
		if f.Name == name {
			return script.Bool(r.flags[f.Letter]), true
		}
	}
	return script.Nothing{}, false
}

// asValue is the record as print as-value gives it: unset properties are left out.
func (r record) asValue(v render.View, style Style, only []string) *script.Array {
	out := &script.Array{}
	show := func(name string) bool {
		if only == nil {
			return true
		}
		for _, o := range only {
			if o == name {
				return true
			}
		}
		return false
	}
	if r.id != "" {
		out.Set(".id", script.ID(r.id))
	}
	for _, f := range v.Flags {
		if show(f.Name) && (r.flags[f.Letter] || style.FalseFlags) {
			out.Set(f.Name, script.Bool(r.flags[f.Letter]))
		}
	}
	for _, p := range v.Properties {
		val, ok := r.values[p.Name]
		if !ok || !show(p.Name) {
			continue
		}
		if n, isNum := val.(script.Number); isNum && p.Kind == render.Rounded && style.RoundedFileSize {
			val = script.String(render.RoundSize(int64(n)))
		}
		out.Set(p.Name, val)
	}
	if r.comment != "" && show("comment") {
		out.Set("comment", script.String(r.comment))
	}
	return out
}

// resolve turns a numbers argument into item ids: *1F, a name, an index of the
// last print, a list of them. An empty list is no item and no error.
func resolve(t table, records []record, printed []string, arg script.Value) ([]string, error) {
	if arr, ok := arg.(*script.Array); ok {
		var ids []string
		for _, v := range arr.List {
			more, err := resolve(t, records, printed, v)
			if err != nil {
				return nil, err
			}
			ids = append(ids, more...)
		}
		return ids, nil
	}
	text := arg.String()
	if id, err := resolveOne(t, records, printed, text); err == nil {
		return []string{id}, nil
	} else if !strings.Contains(text, ",") {
		return nil, err
	}
	var ids []string
	for _, part := range strings.Split(text, ",") {
		id, err := resolveOne(t, records, printed, part)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func resolveOne(t table, records []record, printed []string, text string) (string, error) {
	if strings.HasPrefix(text, "*") {
		want := "*" + strings.ToUpper(text[1:])
		for _, r := range records {
			if r.id == want {
				return want, nil
			}
		}
		return "", errGone
	}
	if key := t.nameKey(); key != "" && text != "" {
		for _, r := range records {
			if v, ok := r.values[key]; ok && v.String() == text {
				return r.id, nil
			}
		}
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < len(printed) {
		id := printed[n]
		for _, r := range records {
			if r.id == id {
				return id, nil
			}
		}
		return "", errGone
	}
	if t.nameKey() == "" {
		return "", script.Failuref("invalid internal item number")
	}
	return "", errNoSuchItem
}
