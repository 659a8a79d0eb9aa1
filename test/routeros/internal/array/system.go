package array

import (
	"context"
	"io"
	"strconv"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/render"
	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

// systemTable is a one-item menu under /system.
type systemTable struct {
	*Array
	name string
}

func (systemTable) single() {}

func (systemTable) nameKey() string { return "" }

func (t systemTable) view() render.View {
	names := map[string][]string{
		"identity": {"name"},
		"clock":    {"time", "date", "time-zone-name", "gmt-offset"},
		"resource": {
			"uptime", "version", "build-time", "free-memory", "total-memory", "cpu", "cpu-count", "cpu-load",
			"architecture-name", "board-name", "platform",
		},
	}
	v := render.View{}
	for _, n := range names[t.name] {
		v.Properties = append(v.Properties, render.Property{Name: n})
	}
	return v
}

func (t systemTable) records() []record {
	now := t.cfg.Now()
	var values map[string]script.Value
	switch t.name {
	case "identity":
		values = map[string]script.Value{"name": script.String(t.cfg.Identity)}
	case "clock":
		values = map[string]script.Value{
			"date": script.String(now.Format("2006-01-02")), "time": script.String(now.Format("15:04:05")),
			"time-zone-name": script.String("UTC"), "gmt-offset": script.String("+00:00"),
		}
	default:
		values = map[string]script.Value{
			"uptime":  script.String(uptime(now.Sub(t.booted))),
			"version": script.String(t.cfg.Version), "board-name": script.String(t.cfg.Board),
			"build-time": script.String("2026-01-01 00:00:00"), "platform": script.String("MikroTik"),
			"architecture-name": script.String("arm64"), "cpu": script.String("ARM64"),
			"cpu-count": script.Number(16), "cpu-load": script.Number(1),
			"free-memory": script.Number(30 << 30), "total-memory": script.Number(32 << 30),
		}
	}
	return []record{{values: values}}
}

func (t systemTable) add(map[string]script.Value) (string, error) { return "", errNoSuchItem }

func (t systemTable) remove(string) error { return errNoSuchItem }

func (t systemTable) set(_ string, args map[string]script.Value, _ []string) error {
	if v, ok := args["name"]; ok && t.name == "identity" {
		t.cfg.Identity = v.String()
	}
	return nil
}

// uptime writes 1w2d3h4m5s.
func uptime(d time.Duration) string {
	left := int64(d / time.Second)
	out := ""
	for _, u := range []struct {
		name    string
		seconds int64
	}{{"w", 604800}, {"d", 86400}, {"h", 3600}, {"m", 60}} {
		if left >= u.seconds {
			out += strconv.FormatInt(left/u.seconds, 10) + u.name
			left %= u.seconds
		}
	}
	return out + strconv.FormatInt(left, 10) + "s"
}

// Boot restarts the uptime.
func (a *Array) Boot() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.booted = a.cfg.Now()
}

var trafficView = render.View{Properties: []render.Property{
	{Name: "read-ops", Kind: render.Grouped}, {Name: "read-ops-per-second"}, {Name: "read-bytes", Kind: render.Grouped},
	{Name: "read-rate"}, {Name: "read-time"}, {Name: "write-ops", Kind: render.Grouped},
	{Name: "write-ops-per-second"}, {Name: "write-bytes", Kind: render.Grouped}, {Name: "write-rate"},
	{Name: "write-time"}, {Name: "in-flight-ops"}, {Name: "active-time"}, {Name: "wait-time"},
}}

// monitorTraffic shows an idle disk; without once it never ends.
func (c *Console) monitorTraffic(ctx context.Context, t table, call *script.Call) (script.Value, error) {
	records, _ := c.snapshot(t)
	ids, err := c.ids(t, call.Menu.Path, records, call.Args["numbers"])
	if err != nil {
		return nil, err
	}
	values := &script.Array{}
	for _, p := range trafficView.Properties {
		values.Set(p.Name, idle(p.Name))
	}
	out := &script.Array{}
	for range ids {
		out.List = append(out.List, values)
		if call.Has("as-value") {
			continue
		}
		if _, err := io.WriteString(call.Out, render.Single(trafficView, values.Map)); err != nil {
			return nil, err
		}
	}
	if !call.Has("once") {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if !call.Has("as-value") {
		return script.Nothing{}, nil
	}
	return out, nil
}

func idle(name string) script.Value {
	switch name {
	case "read-rate", "write-rate":
		return script.String("0bps")
	case "read-time", "write-time", "active-time", "wait-time":
		return script.String("0ms")
	}
	return script.Number(0)
}
