package proxy

import (
	"strings"

	"github.com/nexus-platform/reconciler/journal"
)

// Step is the step of the release protocol (ARCHITECTURE.md) that a write belongs to.
type Step string

// The steps, as far as they write.
const (
	Unnumbered Step = ""           // Leases and events: their number depends on time
	S1         Step = "S1"         // bundles
	S2         Step = "S2"         // dry-runs
	S3         Step = "S3"         // head: idle to prepared
	S5         Step = "S5"         // objects, and the barrier's dry-runs
	S7         Step = "S7"         // head: what is waited for, and taking over
	S11        Step = "S11"        // head: prepared to committed
	S12        Step = "S12"        // deletions after the decision
	S13        Step = "S13"        // head: committed to idle, its spare, and the inventory that it names
	R1         Step = "R1"         // head: prepared to aborting
	R2         Step = "R2"         // objects are taken back
	R3         Step = "R3"         // head: aborting to idle, its spare, and the inventory that it names
	Rest       Step = "rest"       // what the head itself does while it rests, and garbage of the journal
	Repair     Step = "repair"     // objects while no release is open
	Projection Step = "projection" // Environment status and Release resources
)

// Steps are those that a fault can be done to, in order.
var Steps = []Step{S1, S2, S3, S5, S7, S11, S12, S13, R1, R2, R3, Rest, Repair, Projection}

// step tells from the request and the head at that time where in the protocol a write belongs.
func step(w *Write, system string, h journal.Head) Step {
	resource, _, _ := strings.Cut(w.Resource, "/")
	switch {
	case resource == "leases.coordination.k8s.io", strings.HasPrefix(resource, "events"):
		return Unnumbered
	case strings.HasSuffix(resource, ".nexus.dev"):
		return Projection
	case w.Head != nil:
		return headStep(h.State, w.Head.State)
	case w.Spare:
		return map[journal.State]Step{journal.Committed: S13, journal.Aborting: R3}[h.State].or(Rest)
	case w.Namespace == system && resource == "secrets" && w.Verb == "create":
		return map[journal.State]Step{journal.Committed: S13, journal.Aborting: R3}[h.State].or(S1)
	case w.Namespace == system && resource == "secrets":
		return Rest
	}
	open := map[journal.State]Step{journal.Prepared: S5, journal.Committed: S12, journal.Aborting: R2}[h.State]
	if w.DryRun {
		return open.or(S2)
	}
	return open.or(Repair)
}

// class tells what shows a release, whose number depends on time, from what carries it out.
func (s Step) class() int {
	if s == Projection {
		return 1
	}
	return 0
}

func (s Step) or(other Step) Step {
	if s == "" {
		return other
	}
	return s
}

// headStep names a transition of the head.
func headStep(from, to journal.State) Step {
	switch {
	case from == journal.Prepared && to == journal.Prepared:
		return S7
	case to == journal.Prepared:
		return S3
	case from == journal.Prepared && to == journal.Committed:
		return S11
	case from == journal.Committed:
		return S13
	case from == journal.Aborting && to == journal.Idle:
		return R3
	case to == journal.Aborting:
		return R1
	}
	return Rest
}
