package array

import (
	"context"
	"io"
	"slices"
	"strings"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/render"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// Console is one session's view of the array. It implements script.Host.
type Console struct {
	array *Array
	// CanWrite and CanRead are the user's policies.
	CanWrite, CanRead bool
	// printed numbers the items of the last print, by menu.
	printed map[string][]string
}

// NewConsole opens a session.
func (a *Array) NewConsole(canRead, canWrite bool) *Console {
	return &Console{array: a, CanRead: canRead, CanWrite: canWrite, printed: map[string][]string{}}
}

var errPolicy = script.Failuref("not enough permissions (9)")

// Call implements script.Host.
func (c *Console) Call(ctx context.Context, call *script.Call) (script.Value, error) {
	mutates := call.Menu.Commands[call.Command].Mutates
	if mutates && !c.CanWrite || !mutates && !c.CanRead {
		return nil, errPolicy
	}
	t, ok := c.array.tables[call.Menu.Path]
	if !ok {
		return nil, script.Failuref("failure: %s is not simulated", call.Menu.Path)
	}
	switch call.Command {
	case "print":
		return c.print(ctx, t, call)
	case "find":
		return c.find(t, call)
	case "get":
		return c.get(t, call)
	case "monitor-traffic":
		return c.monitorTraffic(ctx, t, call)
	}
	return c.change(t, call)
}

// snapshot takes the items under the lock; a where runs without it, because it
// may call other commands.
func (c *Console) snapshot(t table) ([]record, Style) {
	c.array.mu.Lock()
	defer c.array.mu.Unlock()
	return t.records(), c.array.cfg.Style
}

// indexed is a record with its place in the whole list, which where keeps.
type indexed struct {
	record
	index int
}

func selected(t table, records []record, where script.Filter) ([]indexed, error) {
	v := t.view()
	var out []indexed
	for i, r := range records {
		if where != nil {
			ok, err := where(func(name string) (script.Value, bool) { return r.lookup(v, name) })
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
		}
		out = append(out, indexed{r, i})
	}
	return out, nil
}

func (c *Console) find(t table, call *script.Call) (script.Value, error) {
	records, _ := c.snapshot(t)
	hits, err := selected(t, records, call.Where)
	if err != nil {
		return nil, err
	}
	out := &script.Array{}
	for _, r := range hits {
		out.List = append(out.List, script.ID(r.id))
	}
	return out, nil
}

// ids resolves the command's numbers; all items are known to exist.
func (c *Console) ids(t table, menu string, records []record, arg script.Value) ([]string, error) {
	printed, ok := c.printed[menu]
	if !ok {
		// Without a print before, numbers are as print would give them.
		for _, r := range records {
			printed = append(printed, r.id)
		}
	}
	return resolve(t, records, printed, arg)
}

func (c *Console) get(t table, call *script.Call) (script.Value, error) {
	records, style := c.snapshot(t)
	var found *record
	if _, ok := t.(single); ok {
		found = &records[0]
	} else {
		ids, err := c.ids(t, call.Menu.Path, records, call.Args["number"])
		switch {
		case err != nil:
			return nil, err
		case len(ids) == 0:
			return nil, errNoSuchItem
		case len(ids) > 1:
			return nil, script.Failuref("invalid internal item number")
		}
		for i := range records {
			if records[i].id == ids[0] {
				found = &records[i]
			}
		}
	}
	name := call.Text("value-name")
	if name == "" {
		return found.asValue(t.view(), style, nil), nil
	}
	val, known := found.lookup(t.view(), name)
	if !known && !call.Menu.Properties[name] {
		return nil, script.Failuref("unknown parameter %s", name)
	}
	if _, unset := val.(script.Nothing); unset {
		return script.String(""), nil
	}
	return val, nil
}

// change runs a command that alters items, under the lock.
func (c *Console) change(t table, call *script.Call) (script.Value, error) {
	a := c.array
	a.mu.Lock()
	defer a.mu.Unlock()
	if call.Command == "add" {
		id, err := t.add(call.Args)
		if err != nil {
			return nil, err
		}
		return script.ID(id), nil
	}
	if _, ok := t.(single); ok {
		return script.Nothing{}, t.set("", call.Args, call.Unset)
	}
	if call.Command == "copy" {
		return script.Nothing{}, c.copy(t, call)
	}
	ids, err := c.ids(t, call.Menu.Path, t.records(), call.Args["numbers"])
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if err := changeOne(t, call, id); err != nil {
			return nil, err
		}
	}
	return script.Nothing{}, nil
}

func changeOne(t table, call *script.Call, id string) error {
	args := map[string]script.Value{}
	switch call.Command {
	case "remove":
		return t.remove(id)
	case "set":
		for k, v := range call.Args {
			if k != "numbers" {
				args[k] = v
			}
		}
	case "comment":
		args["comment"] = script.String(call.Text("comment"))
	case "enable", "disable":
		args["disabled"] = script.Bool(call.Command == "disable")
	case "unset":
		names := strings.Split(call.Text("value-name"), ",")
		return t.set(id, nil, names)
	default:
		return script.Failuref("failure: %s/%s is not simulated", call.Menu.Path, call.Command)
	}
	return t.set(id, args, call.Unset)
}

// print shows or returns items.
func (c *Console) print(ctx context.Context, t table, call *script.Call) (script.Value, error) {
	for _, endless := range []string{"follow", "follow-only", "interval"} {
		if call.Has(endless) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
	records, style := c.snapshot(t)
	if _, ok := t.(single); ok {
		return printSingle(t, records[0], style, call)
	}
	rows, err := selected(t, records, call.Where)
	if err != nil {
		return nil, err
	}
	if call.Has("from") {
		if rows, err = c.from(t, call, records, rows); err != nil {
			return nil, err
		}
	}
	order(rows, t.view(), call.Text("order-by"))
	only := proplist(call)
	switch {
	case call.Has("count-only"):
		n := script.Number(len(rows))
		if !call.Bracketed {
			_, err = io.WriteString(call.Out, n.String()+"\r\n")
		}
		return n, err
	case call.Has("as-value"):
		return asValues(t.view(), rows, style, only, call.Has("detail")), nil
	}
	c.number(call.Menu.Path, rows)
	_, err = io.WriteString(call.Out, text(t.view(), rows, style, only, call))
	return script.Nothing{}, err
}

func proplist(call *script.Call) []string {
	v, ok := call.Args["proplist"]
	if !ok {
		return nil
	}
	return strings.FieldsFunc(v.String(), func(r rune) bool { return r == ',' || r == ';' })
}

// from limits a print to the given items.
func (c *Console) from(t table, call *script.Call, records []record, rows []indexed) ([]indexed, error) {
	ids, err := c.ids(t, call.Menu.Path, records, call.Args["from"])
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(r indexed) bool { return !slices.Contains(ids, r.id) }), nil
}

func order(rows []indexed, v render.View, by string) {
	if by == "" {
		return
	}
	slices.SortStableFunc(rows, func(x, y indexed) int {
		a, _ := x.lookup(v, by)
		b, _ := y.lookup(v, by)
		na, okA := script.ToNumber(a)
		nb, okB := script.ToNumber(b)
		if okA && okB {
			return int(max(-1, min(1, na-nb)))
		}
		return strings.Compare(a.String(), b.String())
	})
}

// number remembers which item got which number.
func (c *Console) number(menu string, rows []indexed) {
	var ids []string
	for _, r := range rows {
		for len(ids) <= r.index {
			ids = append(ids, "")
		}
		ids[r.index] = r.id
	}
	c.printed[menu] = ids
}

// asValues gives the values; without detail those of the brief table.
func asValues(v render.View, rows []indexed, style Style, only []string, detail bool) *script.Array {
	if only == nil && !detail && len(v.Columns) > 0 {
		only = append([]string{"comment"}, v.Columns...)
		for _, f := range v.Flags {
			only = append(only, f.Name)
		}
	}
	out := &script.Array{}
	for _, r := range rows {
		out.List = append(out.List, r.asValue(v, style, only))
	}
	return out
}

func text(v render.View, rows []indexed, style Style, only []string, call *script.Call) string {
	out := make([]render.Row, len(rows))
	for i, r := range rows {
		out[i] = render.Row{Index: r.index, ID: r.id, Flags: r.flags, Comment: r.comment, Values: r.values}
	}
	s := render.Style{Width: style.Width, ShowIDs: call.Has("show-ids"), Only: only}
	switch {
	case call.Has("terse"):
		return render.Terse(v, out, s)
	case call.Has("detail") || call.Has("value-list"):
		return render.Detail(v, out, s)
	}
	return render.Brief(v, out, s)
}

func printSingle(t table, r record, style Style, call *script.Call) (script.Value, error) {
	if call.Has("as-value") {
		return r.asValue(t.view(), style, nil), nil
	}
	_, err := io.WriteString(call.Out, render.Single(t.view(), r.values))
	return script.Nothing{}, err
}
