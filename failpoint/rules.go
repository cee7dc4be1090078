package failpoint

// Rule is one rule of the release protocol (ARCHITECTURE.md, Rules). A build with failpoints can be run without one of them, to
// see that the fault sweep notices: a sweep that does not would prove nothing.
type Rule string

// MutantVariable names the rule that a build with failpoints leaves out.
const MutantVariable = "NEXUS_MUTANT"

// ClockVariable moves the clock of a build with failpoints: a duration, which may be negative.
const ClockVariable = "NEXUS_CLOCK"

// The rules.
const (
	JournalFirst     Rule = "journal-first"      // 1: bundles are durable before the head names them
	HeadFirst        Rule = "head-first"         // 1: no object is written before the head says that a release is open
	OneDecision      Rule = "one-decision"       // 2: a decision whose answer was lost is read again, not taken for made
	Reread           Rule = "reread"             // 3: a process reads the head after every error, and decides nothing from memory
	CompareAndSwap   Rule = "compare-and-swap"   // 2, 4: the head is written only as it was read
	UIDPrecondition  Rule = "uid-precondition"   // 5: an update names the uid and the resourceVersion that were planned
	CreateOnly       Rule = "create-only"        // 5: a create never changes what is there already
	Stamp            Rule = "stamp"              // 5: what a release creates carries its stamp
	MoveOn           Rule = "move-on"            // 6: what is given back is moved on, so that a late adoption fails
	Sweep            Rule = "sweep"              // 6: a late create of an older epoch is found and removed
	DestroyLate      Rule = "destroy-late"       // 8: what left Git is deleted after the decision
	Quarantine       Rule = "quarantine"         // 9: what failed here is not tried again by itself
	TellAfterDurable Rule = "tell-after-durable" // 10: an outcome is told after the head says so
	NoOlderHead      Rule = "no-older-head"      // a lost head is rebuilt only if no release was opened since its spare
	HealthOfApplied  Rule = "health-of-applied"  // I8: health is judged at the generation that was applied
)

// Rules are all rules.
var Rules = []Rule{
	JournalFirst, HeadFirst, OneDecision, Reread, CompareAndSwap, UIDPrecondition, CreateOnly, Stamp, MoveOn, Sweep, DestroyLate, Quarantine,
	TellAfterDurable, NoOlderHead, HealthOfApplied,
}
