package main

import (
	"context"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

const gib = 1 << 30

// An op is what one RPC does on the array. The table below is a volume's whole
// life in order; another level, for example the RPCs themselves, can be measured by
// another table.
type op struct {
	name   string
	do     func(ctx context.Context, array *routeros.Array, slot string) error
	exempt bool // from the budget
}

var life = []op{
	{name: "create", do: func(ctx context.Context, array *routeros.Array, slot string) error {
		_, err := array.Create(ctx, rds.NewVolume{Slot: slot, Size: gib})
		return err
	}},
	{name: "publish first", do: publish("node-a")},
	{name: "publish second", do: publish("node-b")},
	{name: "unpublish one of two", do: unpublish("node-a")},
	{name: "unpublish last", do: unpublish("node-b")},
	{name: "expand", do: update(func(v rds.Volume) (rds.Change, error) { return rds.Expand(v, 2*gib) })},
	{name: "delete", exempt: true, do: func(ctx context.Context, array *routeros.Array, slot string) error {
		return array.Delete(ctx, slot)
	}},
}

func publish(node string) func(context.Context, *routeros.Array, string) error {
	return update(func(v rds.Volume) (rds.Change, error) {
		return rds.Publish(v, node, v.Ledger.Nodes(), time.Now(), rds.DefaultNQNPrefix)
	})
}

func unpublish(node string) func(context.Context, *routeros.Array, string) error {
	return update(func(v rds.Volume) (rds.Change, error) { return rds.Unpublish(v, node, nil, time.Now()) })
}

func update(decide func(rds.Volume) (rds.Change, error)) func(context.Context, *routeros.Array, string) error {
	return func(ctx context.Context, array *routeros.Array, slot string) error {
		_, err := array.Update(ctx, slot, func(_ context.Context, v rds.Volume) (rds.Change, error) { return decide(v) })
		return err
	}
}
