package rds

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxHolders is how many nodes may hold one volume, and that only while a
// virtual machine migrates from one to the other.
const MaxHolders = 2

// Publish decides what publishing the volume to a node changes. attached are the
// nodes that a live read of the cluster says are attached; they are looked at
// only where PublishNeedsCluster asks for them. Whether a second node may join is
// the caller's to decide beforehand; a third is ErrInUse whatever the caller thinks.
//
// The first holder gets a new NQN of the given prefix, so that a host cut off
// earlier cannot reconnect; a second one gets the current NQN. The NQN is kept,
// too, where the ledger had to be rebuilt (what the cluster does not know about
// may be connected) and where another plugin chose it.
func Publish(v Volume, node string, attached []string, now time.Time, nqnPrefix string) (Change, error) {
	ledger := Holders(v, node, attached, now)
	if err := writable("publish volume", v.Slot, ledger); err != nil {
		return Change{}, err
	}
	believed := v.Ledger.Known && !contradicted(v, node, attached)
	if ledger.Holds(node) && believed {
		return v.exportOn(), nil
	}
	holders := ledger.without(node).Nodes()
	if len(holders) >= MaxHolders {
		return Change{}, &Error{Kind: ErrInUse, Op: "publish volume", Slot: v.Slot,
			Err: fmt.Errorf("published to %s already; a third node never is", strings.Join(holders, " and "))}
	}
	// Of an export that is off the array hides the name: that none is seen says
	// nothing where somebody holds it.
	rotate := len(holders) == 0 && (v.NQN == "" || (believed && MadeHere(v.NQN, v.Slot)))
	ledger = ledger.with(node, now)
	change := v.exportOn()
	if rotate {
		ledger.Generation++
		change = Change{Export: ExportOn, NQN: NQN(nqnPrefix, v.Slot, ledger.Generation)}
	}
	change.Ledger = &ledger
	return change, ledger.Check()
}

// PublishNeedsCluster reports whether who holds the volume can only be told with
// a live read of the cluster's attachments: the ledger is unknown, or it names
// nobody while the export is on.
func PublishNeedsCluster(v Volume) bool {
	return !v.Ledger.Known || (v.Exported && len(v.Ledger.Publications) == 0)
}

// Holders is the ledger on which publishing to the node is decided: the volume's
// own, completed or rebuilt from the cluster where PublishNeedsCluster says so.
func Holders(v Volume, node string, attached []string, now time.Time) Ledger {
	if !PublishNeedsCluster(v) {
		return v.Ledger
	}
	if contradicted(v, node, attached) {
		v.Ledger.Known = false
	}
	ledger := Rebuild(v, attached, now)
	for _, other := range attached {
		if ledger.Known && other != node {
			ledger = ledger.with(other, now)
		}
	}
	return ledger
}

// contradicted reports whether the node is attached although a ledger that names
// nobody says otherwise. Such a ledger is not believed but rebuilt, so that a running
// virtual machine keeps its NQN.
func contradicted(v Volume, node string, attached []string) bool {
	return PublishNeedsCluster(v) && slices.Contains(attached, node)
}

// Unpublish decides what taking the volume from a node changes; an empty node
// means every node. attached are the nodes that a live read of the cluster says
// are still attached; the leaving node among them does not count.
//
// The export is switched off only when a known ledger named exactly the leaving
// node and the cluster knows of no other. A node that is not listed changes
// nothing.
func Unpublish(v Volume, node string, attached []string, now time.Time) (Change, error) {
	stay := slices.DeleteFunc(slices.Clone(attached), func(n string) bool {
		return n == node || (node == "" && v.Ledger.Holds(n))
	})
	if !v.Ledger.Known {
		ledger := Rebuild(v, stay, now)
		return Change{Ledger: &ledger}, ledger.Check()
	}
	if len(v.Ledger.Publications) == 0 || (node != "" && !v.Ledger.Holds(node)) {
		return Change{}, nil
	}
	ledger := v.Ledger.without(node)
	if node == "" {
		ledger.Publications = nil
	}
	if len(ledger.Publications) > 0 {
		return Change{Ledger: &ledger}, ledger.Check()
	}
	for _, other := range stay {
		ledger = ledger.with(other, now)
	}
	if len(stay) > 0 {
		return Change{Ledger: &ledger}, ledger.Check()
	}
	return Change{Ledger: &ledger, Export: ExportOff}, ledger.Check()
}

// UnpublishNeedsCluster reports whether unpublishing the node can only be decided with a
// live read of the cluster's attachments.
func UnpublishNeedsCluster(v Volume, node string) bool {
	if !v.Ledger.Known {
		return true
	}
	if node == "" {
		return len(v.Ledger.Publications) > 0
	}
	return v.Ledger.Holds(node) && len(v.Ledger.Publications) == 1
}

// Rebuild makes a known ledger for a volume that has none, from the nodes that
// a live read of the cluster says are attached. It keeps text that somebody else
// wrote behind it, unless that text is not ASCII: then it stays unknown, and
// Check says so.
func Rebuild(v Volume, attached []string, now time.Time) Ledger {
	if v.Ledger.Known || !printableASCII(v.Comment) {
		return v.Ledger
	}
	generation, _ := GenerationOf(v.NQN, v.Slot)
	ledger := Ledger{Known: true, Generation: generation, Foreign: v.Ledger.Foreign}
	for _, node := range attached {
		ledger = ledger.with(node, now)
	}
	return ledger
}

// Deletable reports why the volume may not be deleted, or nil.
func Deletable(v Volume) error {
	if !v.Ledger.Known {
		return &Error{Kind: ErrLedger, Op: "delete volume", Slot: v.Slot, Err: fmt.Errorf("%s", v.Ledger.Problem)}
	}
	if holders := v.Ledger.Nodes(); len(holders) > 0 {
		return &Error{Kind: ErrInUse, Op: "delete volume", Slot: v.Slot,
			Err: fmt.Errorf("published to %s", strings.Join(holders, " and ")), Hint: "it is deleted when its last VolumeAttachment is gone"}
	}
	return nil
}

// Expand decides what growing the volume to at least size bytes changes.
func Expand(v Volume, size int64) (Change, error) {
	if v.Ledger.Deleting {
		return Change{}, writable("expand volume", v.Slot, v.Ledger)
	}
	if len(v.Ledger.Publications) > 1 {
		return Change{}, &Error{Kind: ErrConflict, Op: "expand volume", Slot: v.Slot,
			Err: fmt.Errorf("it is attached to %s while a migration is under way", strings.Join(v.Ledger.Nodes(), " and ")), Hint: "it is retried when the migration is over"}
	}
	if size <= v.Size {
		return Change{}, nil
	}
	return Change{Size: size}, nil
}

// exportOn repairs an export that should be on, and changes nothing otherwise.
func (v Volume) exportOn() Change {
	if v.Exported {
		return Change{}
	}
	return Change{Export: ExportOn}
}

func writable(op, slot string, l Ledger) error {
	switch {
	case l.Deleting:
		return &Error{Kind: ErrInUse, Op: op, Slot: slot, Err: fmt.Errorf("its deletion has begun")}
	case !l.Known:
		return &Error{Kind: ErrLedger, Op: op, Slot: slot, Err: fmt.Errorf("%s", l.Problem)}
	}
	return nil
}
