package reconcile

import (
	"time"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/journal"
)

// Verb is what a pass does.
type Verb string

// The verbs of a pass.
const (
	Rest     Verb = "rest"     // nothing to release: look after drift
	Deploy   Verb = "deploy"   // bring the environment to a commit
	Resume   Verb = "resume"   // go on with the open release
	Undo     Verb = "undo"     // the open release is being taken back
	Finish   Verb = "finish"   // the open release is decided: forward only
	Return   Verb = "return"   // the last good commit fell ill while baking: back to the one before
	Rollback Verb = "rollback" // a person wants an older release
	Retry    Verb = "retry"    // a person lifts a quarantine
	Remove   Verb = "remove"   // the environment is being deleted: release the empty set
	Removed  Verb = "removed"  // that is done
)

// Sight is what Next looks at beside the head.
type Sight struct {
	Tip       string            // what the branch points at; empty if it could not be read
	Source    string            // what is rendered: repository, branch and path
	Request   *v1alpha1.Request // not yet carried out
	Suspended bool
	Remove    bool // the environment is being deleted with prune: onDelete
	Ill       bool // an object that was healthy at the decision has failed since
	Seen      bool // the tip was looked at by this process: refused, or it describes what is there already
	Now       time.Time
}

// Step is the one next thing to do.
type Step struct {
	Verb   Verb
	Commit string
	Why    string
}

// Next decides what a pass does. It is pure: the same head and the same sight give the same step.
func Next(h journal.Head, s Sight) Step {
	switch h.State {
	case journal.Committed:
		return Step{Verb: Finish, Commit: h.Release.Commit, Why: "the release is decided"}
	case journal.Aborting:
		return Step{Verb: Undo, Commit: h.Release.Commit, Why: "the release is being undone"}
	case journal.Prepared:
		return Step{Verb: Resume, Commit: h.Release.Commit, Why: "a release is open"}
	}
	if s.Remove {
		if h.Good == nil && h.Inventory == "" || h.Good != nil && h.Good.Commit == "" {
			return Step{Verb: Removed, Why: "nothing is deployed"}
		}
		return Step{Verb: Remove, Why: "the environment is being deleted"}
	}
	if s.Suspended {
		return Step{Verb: Rest, Why: "suspended"}
	}
	if s.Request != nil {
		switch s.Request.Verb {
		case v1alpha1.VerbRollback:
			return Step{Verb: Rollback, Commit: s.Request.Commit, Why: "asked for by " + s.Request.By}
		case v1alpha1.VerbRetry:
			return Step{Verb: Retry, Why: "asked for by " + s.Request.By}
		case v1alpha1.VerbApply:
			return applyRequest(s)
		}
	}
	return follow(h, s)
}

// applyRequest releases a commit that a person named, or the tip, whatever was decided about it before.
func applyRequest(s Sight) Step {
	commit := s.Request.Commit
	if commit == "" {
		commit = s.Tip
	}
	if commit == "" {
		return Step{Verb: Rest, Why: "the branch could not be read"}
	}
	return Step{Verb: Deploy, Commit: commit, Why: "asked for by " + s.Request.By}
}

// follow decides without a person: the branch is followed, except onto what failed here.
func follow(h journal.Head, s Sight) Step {
	if s.Ill && h.Previous != nil && h.Pin == nil && s.Now.Before(h.BakeUntil) {
		return Step{Verb: Return, Commit: h.Previous.Commit, Why: "the release fell ill while it baked"}
	}
	switch {
	case h.Pin != nil:
		return Step{Verb: Rest, Commit: s.Tip, Why: "pinned to " + h.Pin.Commit}
	case s.Tip == "":
		return Step{Verb: Rest, Why: "the branch could not be read"}
	case h.Good != nil && h.Good.Commit == s.Tip && h.Good.Source == s.Source:
		return Step{Verb: Rest, Commit: s.Tip, Why: "the tip is deployed"}
	case h.Quarantined(s.Tip):
		return Step{Verb: Rest, Commit: s.Tip, Why: "the tip failed here before"}
	case s.Seen:
		return Step{Verb: Rest, Commit: s.Tip, Why: "the tip was looked at before"}
	}
	return Step{Verb: Deploy, Commit: s.Tip, Why: "the branch moved"}
}
