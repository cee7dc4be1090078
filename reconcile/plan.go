package reconcile

import (
	"github.com/nexus-platform/reconciler/health"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
	"k8s.io/apimachinery/pkg/types"
)

// Do is what an action does to one object.
type Do string

// The actions of a plan.
const (
	Create   Do = "create"
	Change   Do = "change"
	Adopt    Do = "adopt"
	Recreate Do = "recreate" // delete and make again: an immutable field changes
	Prune    Do = "prune"
	Keep     Do = "keep" // left Git but bears data: stays, and is no longer managed
)

// Action is one step of a plan.
type Action struct {
	Do      Do           `json:"do"`
	Ref     object.Ref   `json:"ref"`
	Version string       `json:"version"` // API version without the group
	Phase   object.Phase `json:"phase"`
	UID     types.UID    `json:"uid,omitempty"` // of what is there, as planned
	// Early: pruned in its phase before its successor comes, and so before the decision.
	Early bool `json:"early,omitempty"`
	// Late: its namespace or its kind comes with this release, so that the API server can judge it only at the barrier of phase 1.
	Late    bool               `json:"late,omitempty"`
	Repair  bool               `json:"repair,omitempty"`  // Git did not change it; it drifted
	Restart bool               `json:"restart,omitempty"` // its pods are replaced
	Note    string             `json:"note,omitempty"`
	Fields  []kube.FieldChange `json:"fields,omitempty"` // values of Secrets are masked
}

// Plan is all that a release would do, as data.
type Plan struct {
	Environment string   `json:"environment"`
	Number      int64    `json:"number"` // of the release that it would be
	Commit      string   `json:"commit"`
	Base        string   `json:"base,omitempty"` // the last good commit
	Set         string   `json:"set"`            // digest of the rendered set
	Actions     []Action `json:"actions"`        // in the order in which they are carried out
	Unchanged   int      `json:"unchanged"`
	Warnings    []string `json:"warnings,omitempty"`
	// Baseline says what was unhealthy before: it only warns unless it is changed or becomes worse.
	Baseline map[string]health.State `json:"baseline,omitempty"`
}

// Empty reports that there is nothing to do.
func (p *Plan) Empty() bool { return len(p.Actions) == 0 }

// Counts is the number of actions by what they do.
func (p *Plan) Counts() map[string]int32 {
	n := map[string]int32{}
	for _, a := range p.Actions {
		n[string(a.Do)]++
	}
	return n
}

// Lean is the plan as the journal keeps it: without the field diffs, which only people read.
func (p *Plan) Lean() *Plan {
	lean := *p
	lean.Actions = make([]Action, len(p.Actions))
	for i, a := range p.Actions {
		a.Fields = nil
		lean.Actions[i] = a
	}
	return &lean
}

// in returns the actions of one phase that are not prunes.
func (p *Plan) in(phase object.Phase) []Action {
	var out []Action
	for _, a := range p.Actions {
		if a.Phase == phase && a.Do != Prune && a.Do != Keep {
			out = append(out, a)
		}
	}
	return out
}

// byRef indexes the actions.
func (p *Plan) byRef() map[object.Ref]Action {
	m := make(map[object.Ref]Action, len(p.Actions))
	for _, a := range p.Actions {
		m[a.Ref] = a
	}
	return m
}
