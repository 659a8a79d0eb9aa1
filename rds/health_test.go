package rds

import (
	"slices"
	"testing"
)

func TestHealth(t *testing.T) {
	held := vol("rds1 g4 n=50", ours(4), true)
	off, empty := held, held
	off.Exported, empty.Size = false, 0
	for name, tc := range map[string]struct {
		v     Volume
		state string
		fatal []string
		other []string
	}{
		"well":          {v: held, state: "clean"},
		"resync":        {v: held, state: "clean, sync:repair, resync = 3.1%"},
		"nobody, off":   {v: vol("rds1 g4", ours(4), false)},
		"held, off":     {v: off, fatal: []string{"ExportOff"}},
		"no image":      {v: empty, fatal: []string{"ImageMissing"}},
		"degraded":      {v: held, state: "active, degraded", other: []string{"PoolDegraded"}},
		"all at once":   {v: Volume{Ledger: held.Ledger}, state: "degraded", fatal: []string{"ImageMissing", "ExportOff"}, other: []string{"PoolDegraded"}},
		"ledger erased": {v: vol("", ours(4), false)},
	} {
		t.Run(name, func(t *testing.T) {
			var fatal, other []string
			for _, p := range Health(tc.v, Pool{State: tc.state}) {
				if p.Message == "" {
					t.Errorf("%s says nothing", p.Reason)
				}
				if p.Fatal {
					fatal = append(fatal, p.Reason)
				} else {
					other = append(other, p.Reason)
				}
			}
			if !slices.Equal(fatal, tc.fatal) || !slices.Equal(other, tc.other) {
				t.Errorf("fatal %v, other %v; want %v, %v", fatal, other, tc.fatal, tc.other)
			}
		})
	}
}
