package unexplained

// Kind is what can be the matter with a volume's attachments, a closed set.
type Kind int

// The kinds. Those from NotAttached on compare the cluster with the array.
const (
	// DualAttach: live pods on two attached nodes, of different owners, or of one
	// VM that is not migrating.
	DualAttach Kind = iota + 1
	// Lingering: attached on a node where no live pod uses the volume, and none that
	// still has time to end.
	Lingering
	// TooMany: attached on more nodes than may ever hold the volume.
	TooMany
	// NodeGone: attached on a node that the cluster does not have.
	NodeGone
	// NotAttached: the ledger names a node for which there is no VolumeAttachment.
	NotAttached
	// NotPublished: attached on a node that the ledger does not name.
	NotPublished
	// Exported: the ledger names nobody, and the export is on.
	Exported
	// NotExported: the ledger names somebody, and the export is off.
	NotExported
)

// Reasons of events on PersistentVolumeClaims.
const (
	EventDualAttach = "UnexplainedDualAttach"
	EventLingering  = "LingeringAttachment"
	EventTooMany    = "TooManyAttachments"
	EventNodeGone   = "AttachedToMissingNode"
	EventDivergence = "ArrayDivergence"
	EventResolved   = "DualAttachResolved"
	EventAgree      = "ArrayDivergenceResolved"
)

var kinds = map[Kind]struct{ label, reason string }{
	DualAttach:   {"unexplained_dual_attach", EventDualAttach},
	Lingering:    {"lingering", EventLingering},
	TooMany:      {"too_many_nodes", EventTooMany},
	NodeGone:     {"node_gone", EventNodeGone},
	NotAttached:  {"not_attached", EventDivergence},
	NotPublished: {"not_published", EventDivergence},
	Exported:     {"exported", EventDivergence},
	NotExported:  {"not_exported", EventDivergence},
}

// Divergences lists the kinds that make attachments and the array differ from what
// they should be; DualAttach has a series of its own.
func Divergences() []Kind {
	return []Kind{Lingering, TooMany, NodeGone, NotAttached, NotPublished, Exported, NotExported}
}

// String is the kind's name, as metrics carry it.
func (k Kind) String() string { return kinds[k].label }

// OfArray reports a kind that takes a fresh view of the array.
func (k Kind) OfArray() bool { return k >= NotAttached }
