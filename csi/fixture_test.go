package csi_test

import (
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// fixture is an array and what an administrator could do to it.
type fixture struct {
	array      rds.Array
	put        func(t *testing.T, v rds.Volume) // a disk that somebody else made
	setComment func(t *testing.T, slot, comment string)
}

// volume reads what the array has, past the plugin.
func (f fixture) volume(t *testing.T, slot string) rds.Volume {
	t.Helper()
	v, err := f.array.Volume(t.Context(), slot)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var fixtures = map[string]func(*testing.T) fixture{
	"memory": func(*testing.T) fixture {
		m := newMemory()
		return fixture{
			array: m,
			put:   func(_ *testing.T, v rds.Volume) { m.put(v) },
			setComment: func(_ *testing.T, slot, comment string) {
				v := m.volumes[slot]
				v.Comment = comment
				m.put(v)
			},
		}
	},
	"simulator": simulated,
}

// forEach runs a test on every kind of array.
func forEach(t *testing.T, test func(t *testing.T, e *env, f fixture)) {
	t.Helper()
	for name, make := range fixtures {
		t.Run(name, func(t *testing.T) {
			f := make(t)
			test(t, serve(t, map[string]rds.Array{"main": f.array}, []string{"main"}, nil), f)
		})
	}
}
