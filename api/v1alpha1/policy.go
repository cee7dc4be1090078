package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ReleasePolicy says how to deploy. It is the file release.yaml beside the overlay's
// kustomization.yaml, in Git, reviewed as any change; every field has a default. It can
// only tighten what the Environment allows.
type ReleasePolicy struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec            PolicySpec        `json:"spec,omitempty"`
}

// PolicySpec holds the rules.
type PolicySpec struct {
	// Phases sets time-outs, by name. Default 5m each; database and application 10m.
	Phases map[string]PhasePolicy `json:"phases,omitempty"`
	// Settle is how long all objects must be healthy at once before the decision. Default 5s.
	Settle *metav1.Duration `json:"settle,omitempty"`
	// Bake is how long health is watched on after the decision; a failure releases the previous commit. Default 5m.
	Bake *metav1.Duration `json:"bake,omitempty"`
	// Patience is how long a release stays open when the world is at fault (API server away). Default 30m.
	Patience *metav1.Duration `json:"patience,omitempty"`
	// Health says how objects are judged.
	Health HealthPolicy `json:"health,omitempty"`
	// Drift says what is done about drift.
	Drift DriftPolicy `json:"drift,omitempty"`
	// Prune guards deletions.
	Prune PrunePolicy `json:"prune,omitempty"`
	// Checks run in phase 8; all must pass.
	Checks []Check `json:"checks,omitempty"`
	// Adopt lists objects that exist and may be taken over, as Kind/namespace/name or Kind/name; "*" in place of a part stands for all.
	Adopt []string `json:"adopt,omitempty"`
	// DataKinds are further kinds that bear data and are never deleted without an explicit allowance, as Kind or Kind.group.
	DataKinds []string `json:"dataKinds,omitempty"`
}

// PhasePolicy bounds one phase.
type PhasePolicy struct {
	Timeout metav1.Duration `json:"timeout,omitempty"`
}

// HealthPolicy says how objects are judged.
type HealthPolicy struct {
	// CrashTolerance is how many restarts of a container are forgiven. Default 2.
	CrashTolerance *int32 `json:"crashTolerance,omitempty"`
	// FirstCrashTolerance is the same on a workload's first release. Default 5.
	FirstCrashTolerance *int32 `json:"firstCrashTolerance,omitempty"`
	// PendingGrace is how long a Pod may be unschedulable. Default 30s.
	PendingGrace *metav1.Duration `json:"pendingGrace,omitempty"`
	// Rules judge kinds that the reconciler does not know.
	Rules []HealthRule `json:"rules,omitempty"`
}

// HealthRule judges one kind by CEL expressions over the variable object.
type HealthRule struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind"`
	// Healthy is true when the object has become what it was asked to be.
	Healthy string `json:"healthy"`
	// Failed is true when waiting any longer is pointless.
	Failed string `json:"failed,omitempty"`
	// Message is a string that says why.
	Message string `json:"message,omitempty"`
}

// DriftPolicy says what is done about drift.
type DriftPolicy struct {
	// Mode is heal (default), report or ignore.
	Mode string `json:"mode,omitempty"`
	// Rules make exceptions; the first that matches counts.
	Rules []DriftRule `json:"rules,omitempty"`
}

// DriftRule makes an exception for some objects.
type DriftRule struct {
	Kind      string `json:"kind,omitempty"` // Kind or Kind.group; empty: every kind
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Fields are JSON pointers that belong to somebody else: they are not compared, and not applied once they are there.
	Fields []string `json:"fields,omitempty"`
	// Mode for the whole object, where Fields is empty.
	Mode string `json:"mode,omitempty"`
}

// PrunePolicy guards deletions. A release that would delete more is refused.
type PrunePolicy struct {
	// MaxCount is the most objects that one release may delete. Default 50.
	MaxCount *int32 `json:"maxCount,omitempty"`
	// MaxPercent of the managed objects that one release may delete, if that is more than 5 objects. Default 30.
	MaxPercent *int32 `json:"maxPercent,omitempty"`
}

// Check asks the running release a question. Exactly one of http and tcp is set.
type Check struct {
	Name string     `json:"name"`
	HTTP *HTTPCheck `json:"http,omitempty"`
	TCP  *TCPCheck  `json:"tcp,omitempty"`
	// Timeout of one try. Default 5s.
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// Retry: a check that fails is tried again until it passes or this is over. Default 1m.
	Retry *metav1.Duration `json:"retry,omitempty"`
}

// HTTPCheck sends one GET.
type HTTPCheck struct {
	URL string `json:"url"`
	// Status that counts as an answer. Default: 200 to 299.
	Status []int32 `json:"status,omitempty"`
	// Contains must be in the first 64 KiB of the body.
	Contains string `json:"contains,omitempty"`
}

// TCPCheck opens one connection.
type TCPCheck struct {
	Address string `json:"address"` // host:port
}
