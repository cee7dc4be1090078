package reconcile

import (
	"time"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
)

// Event is something that people may want to see: progress of a release, its
// outcome, drift. Events are told in order; nothing decides from them.
type Event struct {
	At      time.Time
	Kind    EventKind
	Release *ReleaseInfo // nil for drift between releases
	Phase   object.Phase
	Object  object.Ref
	Waiting []string
	Message string
	Drift   *v1alpha1.Drift
}

// EventKind says what an Event is about.
type EventKind string

// The kinds of events.
const (
	EventDetected EventKind = "detected" // a commit was seen and is being proved
	EventRendered EventKind = "rendered" // its objects are known
	EventBegan    EventKind = "began"    // the release is prepared: writes follow
	EventPhase    EventKind = "phase"    // a phase began
	EventApplied  EventKind = "applied"  // an object was written
	EventWaiting  EventKind = "waiting"  // something is not healthy yet
	EventAborting EventKind = "aborting" // the release is being undone, Message says why
	EventDecided  EventKind = "decided"  // this commit is last good
	EventEnded    EventKind = "ended"    // Release.Outcome says how
	EventDrift    EventKind = "drift"
	EventRebuilt  EventKind = "rebuilt" // the head of the journal was missing, and is there again
)

// ReleaseInfo is a release as people see it.
type ReleaseInfo struct {
	Number   int64
	Commit   string
	Kind     string
	By       string
	Subject  string
	Outcome  v1alpha1.Outcome // empty while it is open
	Reason   string           // CamelCase
	Message  string
	Object   string
	Findings []string
	Changes  map[string]int32
	Kept     []string
	Began    time.Time
	Ended    time.Time
}

func (r *Reconciler) tell(e Event) {
	e.At = r.Now()
	if r.Observe != nil {
		r.Observe(e)
	}
}
