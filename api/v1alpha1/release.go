package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Outcome is how a release ended.
type Outcome string

// The outcomes. An open release has none.
const (
	Succeeded  Outcome = "Succeeded"
	Reverted   Outcome = "Reverted"
	Refused    Outcome = "Refused"
	Superseded Outcome = "Superseded"
	Halted     Outcome = "Halted"
)

// Release shows one numbered attempt to bring an environment to a commit. It is a
// projection of the journal; nothing decides from it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=nxrel,categories=nexus
// +kubebuilder:printcolumn:name="Environment",type=string,JSONPath=`.spec.environment`
// +kubebuilder:printcolumn:name="Number",type=integer,JSONPath=`.spec.number`
// +kubebuilder:printcolumn:name="Commit",type=string,JSONPath=`.status.shortCommit`
// +kubebuilder:printcolumn:name="Outcome",type=string,JSONPath=`.status.outcome`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
type Release struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ReleaseSpec   `json:"spec"`
	Status ReleaseStatus `json:"status,omitempty"`
}

// ReleaseList is a list of releases.
//
// +kubebuilder:object:root=true
type ReleaseList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Release `json:"items"`
}

// ReleaseSpec says what was tried. It never changes.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the spec of a release never changes"
type ReleaseSpec struct {
	Environment string `json:"environment"`
	// Number counts the environment's releases from 1. Refused attempts have the number that they would have had.
	Number int64  `json:"number"`
	Commit string `json:"commit"`
	// Kind is deploy, rollback, return (to the previous good commit, after a bad bake) or delete.
	Kind string `json:"kind"`
	// By is who asked for it: a person for rollback and apply, else the author of the commit.
	// +optional
	By string `json:"by,omitempty"`
	// Subject is the first line of the commit's message.
	// +optional
	Subject string `json:"subject,omitempty"`
}

// ReleaseStatus says what became of it.
type ReleaseStatus struct {
	// Outcome is empty while the release is open.
	// +optional
	Outcome Outcome `json:"outcome,omitempty"`
	// +optional
	ShortCommit string `json:"shortCommit,omitempty"`
	// Phase that is running, or the one that failed.
	// +optional
	Phase string `json:"phase,omitempty"`
	// Object that failed.
	// +optional
	Object string `json:"object,omitempty"`
	// Reason in one CamelCase word.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message says what happened and, where something is to be done, what.
	// +optional
	Message string `json:"message,omitempty"`
	// Findings are all that is wrong with a refused commit, at most 100.
	// +optional
	Findings []string `json:"findings,omitempty"`
	// Changes counts the plan's actions by verb: create, change, recreate, prune.
	// +optional
	Changes map[string]int32 `json:"changes,omitempty"`
	// Kept names newcomers that the undo left in place.
	// +optional
	Kept []string `json:"kept,omitempty"`
	// Waiting says what the open release waits for.
	// +optional
	Waiting []string `json:"waiting,omitempty"`
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
	// Phases says how long each took.
	// +optional
	Phases []PhaseStatus `json:"phases,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PhaseStatus is the record of one phase.
type PhaseStatus struct {
	Name    string      `json:"name"`
	Started metav1.Time `json:"started"`
	// +optional
	Finished *metav1.Time `json:"finished,omitempty"`
}
