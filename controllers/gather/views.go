package gather

import (
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/unexplained"
	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Source is the last view of one array, kept by a poller.
type Source interface {
	Last() rds.View
	Stale(now time.Time) bool
}

// Arrays are the last views by the array's name; the default array's is "".
type Arrays map[string]Source

// Add adds the view of an array.
func (a Arrays) Add(name string, isDefault bool, view Source) {
	a[name] = view
	if isDefault {
		a[""] = view
	}
}

// Told is what the array was told about the volume of a handle. The ledger is
// unknown where the view is missing or stale, or the volume is not in it: none of
// these ever means "nobody".
func (a Arrays) Told(handle string, now time.Time) unexplained.Told {
	h, err := rds.ParseHandle(handle)
	if err != nil {
		return unknown(err.Error())
	}
	source, ok := a[h.Array]
	switch {
	case !ok:
		return unknown("no array " + h.Array + " is configured")
	case source.Stale(now):
		return unknown("the array has not been observed lately")
	}
	view := source.Last()
	volume, ok := view.Volumes[h.Slot]
	if !ok {
		told := unknown("the array's last view does not show the volume")
		told.ObservedAt = view.ObservedAt
		return told
	}
	return unexplained.Told{ObservedAt: view.ObservedAt, Ledger: volume.Ledger, Exported: volume.Exported}
}

func unknown(problem string) unexplained.Told {
	return unexplained.Told{Ledger: rds.Ledger{Problem: problem}}
}
