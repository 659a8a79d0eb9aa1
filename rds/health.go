package rds

import (
	"fmt"
	"strings"
)

// Problem is something that is wrong with a volume, as far as its array tells.
// What hosts see of it only they can tell.
type Problem struct {
	Fatal   bool   // no node can use the volume
	Reason  string // one word in CamelCase, unique among the problems of a volume
	Message string
}

// Health judges a volume and the pool it lies on. Nothing wrong is an empty list.
func Health(v Volume, p Pool) []Problem {
	var out []Problem
	if v.Size == 0 {
		out = append(out, Problem{true, "ImageMissing", fmt.Sprintf("the array shows no size of it; is the image %s there?", v.Path)})
	}
	if holders := v.Ledger.Nodes(); len(holders) > 0 && !v.Exported {
		out = append(out, Problem{true, "ExportOff", fmt.Sprintf("its export is off, although %s was told to hold it; the next publication switches it on", strings.Join(holders, " and "))})
	}
	if strings.Contains(strings.ToLower(p.State), "degraded") {
		out = append(out, Problem{false, "PoolDegraded", fmt.Sprintf("pool %s reads %q", p.MountPoint, p.State)})
	}
	return out
}
