package csi

import (
	"context"
	"fmt"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Guard decides whether a second node may join a volume that another node
// holds. It is asked for ReadWriteMany block volumes with `dualAttach:
// LiveMigration` only, and never about a third node: there is none.
type Guard interface {
	// MayShare returns nil to grant. A refusal wraps rds.ErrInUse and says who
	// holds the volume and why; any other error means that nobody could tell.
	MayShare(ctx context.Context, handle, node, holder string) error
}

// AllowSecond is a placeholder: it grants every second node, so that live
// migration works before the guard that recognizes one exists. It does not
// protect against two unrelated pods that open one ReadWriteMany volume.
type AllowSecond struct{}

// MayShare always grants.
func (AllowSecond) MayShare(context.Context, string, string, string) error { return nil }

// RefuseSecond never lets a second node join.
type RefuseSecond struct{}

// MayShare always refuses.
func (RefuseSecond) MayShare(_ context.Context, _, _, holder string) error {
	return fmt.Errorf("%w by node %s, and sharing is switched off", rds.ErrInUse, holder)
}
