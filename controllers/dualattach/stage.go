package dualattach

// Stage is how far the storage side of a migration has come.
type Stage int

// The stages, a closed set. Those from Completed on are final: they are never left.
const (
	// Undecided is the zero value: nothing was decided, nothing is to be done.
	Undecided Stage = iota
	// NotInvolved: no shared volume of ours, or a migration that copies blocks
	// instead of sharing them. Nothing is written, unless that shows late: then what
	// was begun is taken back, once and for all.
	NotInvolved
	// AttachingTarget: under way, and some shared volume is not yet attached on
	// the target, which may not even be known yet.
	AttachingTarget
	// DualAttached: under way, and every shared volume is attached on both nodes.
	DualAttached
	// ReleasingSource: the guest has moved, or the source has begun to let go,
	// and the migration or the release is not over yet.
	ReleasingSource
	// ReleasingTarget: the migration failed, was cancelled or is gone, and the
	// target still holds some shared volume.
	ReleasingTarget
	// Completed: succeeded, and the source holds nothing any more.
	Completed
	// RolledBack: failed or gone, and the target holds nothing any more.
	RolledBack
	// Detached: over, and nobody holds anything.
	Detached
	// Superseded: over, and a newer migration, or the VM when it was started anew,
	// re-uses the node this one was releasing, so its release will never be seen.
	Superseded
)

var stageNames = map[Stage]string{
	Undecided: "Undecided", NotInvolved: "NotInvolved",
	AttachingTarget: "AttachingTarget", DualAttached: "DualAttached",
	ReleasingSource: "ReleasingSource", ReleasingTarget: "ReleasingTarget",
	Completed: "Completed", RolledBack: "RolledBack", Detached: "Detached", Superseded: "Superseded",
}

// String is the stage's name, as conditions and metrics carry it.
func (s Stage) String() string { return stageNames[s] }

// Final reports whether a migration stays in this stage for ever.
func (s Stage) Final() bool { return s >= Completed }

// UnderWay lists the stages that have a clock, in the order of a migration.
func UnderWay() []Stage {
	return []Stage{AttachingTarget, DualAttached, ReleasingSource, ReleasingTarget}
}

// Phase is what KubeVirt says of the migration, reduced to what matters here.
type Phase int

// The phases.
const (
	Active    Phase = iota // neither succeeded nor failed, as far as KubeVirt says
	Succeeded              // VMIM phase Succeeded
	Ended                  // VMIM phase Failed, or the VMIM vanished without success
)

// Extent is how many of the shared volumes are attached on a node.
type Extent int

// The extents.
const (
	None Extent = iota
	Some
	All
)

// Facts are all that a stage depends on.
type Facts struct {
	Involved     bool // shared volumes of ours, on a migration that shares them
	InstanceLive bool // the VMI exists and is not final
	Phase        Phase
	Source       Extent
	Target       Extent
	// Superseded: the node this one releases is a newer migration's target, or where
	// the VM was started anew.
	Superseded bool
}

// StageOf tells the stage. Which attachment leaves decides the outcome; what
// KubeVirt says only tells whether one is to leave at all.
func StageOf(f Facts) Stage {
	switch {
	case !f.Involved:
		return NotInvolved
	case !f.InstanceLive && f.Source == None && f.Target == None:
		return Detached
	case f.Phase == Active && f.Target != All:
		return AttachingTarget
	case f.Phase == Active && f.Source == All:
		return DualAttached
	case f.Phase == Active:
		return ReleasingSource
	case f.Superseded && releasing(f) != None:
		return Superseded
	case f.Phase == Succeeded && f.Source != None:
		return ReleasingSource
	case f.Phase == Ended && f.Target != None:
		return ReleasingTarget
	case f.Source == None && f.Target == None:
		return Detached
	case f.Phase == Succeeded:
		return Completed
	default:
		return RolledBack
	}
}

// releasing is what the node still holds that an ended migration must release.
func releasing(f Facts) Extent {
	if f.Phase == Succeeded {
		return f.Source
	}
	return f.Target
}
