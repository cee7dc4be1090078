// Package failpoint names every step boundary of the release protocol, so that tests can stop the program exactly there.
// Without the build tag failpoints, Here is an empty function that the compiler removes.
package failpoint

// Environment variables of a build with failpoints.
const (
	// Variable holds the plan: NAME=kill (SIGKILL) or NAME=stop (SIGSTOP), for the Nth time that the boundary is reached
	// NAME=kill@N, counted from 1. @FILE is a file that holds the plan, now or later.
	Variable = "NEXUS_FAILPOINT"
	// TraceVariable names a file that gets the name of every boundary that is reached, one a line.
	TraceVariable = "NEXUS_FAILPOINT_TRACE"
)

// Name is a step boundary.
type Name string

// The step boundaries, in the order of a release.
const (
	PlanBegin    Name = "plan-begin"    // S2: a commit is admitted and rendered, nothing is asked of the cluster yet
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
	SpareBefore  Name = "spare-before"  // S13, R3: before the spare of the head is written
)

// All are all names.
var All = []Name{
	PlanBegin, StoreBefore, SwapBefore, SwapAfter, PhaseBegin, Barrier, ApplyBefore, ApplyAfter, CommitBefore, CommitAfter,
	PruneBefore, DoneBefore, AbortBefore, UndoBefore, UndoRemove, UndoneBefore, SpareBefore,
}

// Steps are the steps of the release protocol (ARCHITECTURE.md) that write or decide, each with the boundaries that lie around it.
var Steps = map[string][]Name{
	"S1": {StoreBefore}, "S2": {PlanBegin}, "S3": {SwapBefore, SwapAfter}, "S5": {PhaseBegin, Barrier, ApplyBefore, ApplyAfter},
	"S7": {SwapBefore, SwapAfter}, "S11": {CommitBefore, CommitAfter}, "S12": {PruneBefore}, "S13": {DoneBefore, SpareBefore},
	"R1": {AbortBefore}, "R2": {UndoBefore, UndoRemove}, "R3": {UndoneBefore, SpareBefore},
}
