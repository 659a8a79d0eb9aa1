package gather

import (
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Source is the last view of one array, kept by a poller.
type Source interface {
	Last() rds.View
	Stale(now time.Time) bool
}

// Arrays are the last views by the array's name; the default array's is "".
type Arrays map[string]Source

// Ledger is what the array was told about the volume of a handle. It is unknown
// where the view is missing or stale, or the volume is not in it: none of these
// ever means "nobody".
func (a Arrays) Ledger(handle string, now time.Time) rds.Ledger {
	h, err := rds.ParseHandle(handle)
	if err != nil {
		return rds.Ledger{Problem: err.Error()}
	}
	source, ok := a[h.Array]
	switch {
	case !ok:
		return rds.Ledger{Problem: "no array " + h.Array + " is configured"}
	case source.Stale(now):
		return rds.Ledger{Problem: "the array has not been observed lately"}
	}
	volume, ok := source.Last().Volumes[h.Slot]
	if !ok {
		return rds.Ledger{Problem: "the array's last view does not show the volume"}
	}
	return volume.Ledger
}
