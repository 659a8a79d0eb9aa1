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
	// MayShare returns nil to grant; handles are the spellings of the volume's. A
	// refusal wraps rds.ErrInUse and says who holds the volume and why; any other
	// error means that the cluster could not be asked.
	MayShare(ctx context.Context, node, holder string, handles ...string) error
}

// RefuseSecond never lets a second node join.
type RefuseSecond struct{}

// MayShare always refuses.
func (RefuseSecond) MayShare(_ context.Context, _, holder string, _ ...string) error {
	return fmt.Errorf("%w by node %s, and sharing is switched off", rds.ErrInUse, holder)
}
