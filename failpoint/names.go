// Package failpoint names every step boundary of the release protocol, so that tests can stop the program exactly there.
// Without the build tag failpoints, Here is an empty function that the compiler removes.
package failpoint

// Variable names what holds the plan in a build with failpoints: NAME=kill, or NAME=kill@N for the Nth time that
// the boundary is reached, counted from 1.
const Variable = "NEXUS_FAILPOINT"

// Name is a step boundary.
type Name string

// The step boundaries, in the order of a release.
const (
	StoreBefore  Name = "store-before"  // S1: before a bundle's Secret is written
	SwapBefore   Name = "swap-before"   // before any write of the head
	SwapAfter    Name = "swap-after"    // after any write of the head, before its answer is used
	PhaseBegin   Name = "phase-begin"   // a phase begins
	Barrier      Name = "barrier"       // S5: before what comes with its namespace or kind is proved
	ApplyBefore  Name = "apply-before"  // S5
	ApplyAfter   Name = "apply-after"   // S5
	CommitBefore Name = "commit-before" // S11
	CommitAfter  Name = "commit-after"  // S11: decided, nothing pruned
	PruneBefore  Name = "prune-before"  // S12
	DoneBefore   Name = "done-before"   // S13
	AbortBefore  Name = "abort-before"  // R1
	UndoBefore   Name = "undo-before"   // R2: before an object is restored
	UndoRemove   Name = "undo-remove"   // R2: before a newcomer is removed
	UndoneBefore Name = "undone-before" // R3
)

// All are all names.
var All = []Name{
	StoreBefore, SwapBefore, SwapAfter, PhaseBegin, Barrier, ApplyBefore, ApplyAfter, CommitBefore, CommitAfter,
	PruneBefore, DoneBefore, AbortBefore, UndoBefore, UndoRemove, UndoneBefore,
}
