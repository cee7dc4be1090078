package object

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The labels and annotations that the reconciler reads and writes.
const (
	// Domain prefixes every label and annotation of ours.
	Domain = "nexus.dev/"

	// EnvironmentLabel marks what an environment owns; its value is the environment's UID.
	EnvironmentLabel = Domain + "environment"
	// BornAnnotation stamps what a release created: "<environment uid>/<epoch>". It
	// stands outside the digests and never changes (protocol rule 5).
	BornAnnotation = Domain + "born"

	// MovedAnnotation comes and goes when an object is given back that its adoption had not reached, to move its resourceVersion.
	MovedAnnotation = Domain + "moved"

	// PhaseAnnotation overrides the phase of an object, by name.
	PhaseAnnotation = Domain + "phase"
	// PruneAnnotation says when an object that left Git goes: "before" (its successor comes), "allow" (although its kind bears data) or "never".
	PruneAnnotation = Domain + "prune"
	// AdoptAnnotation "true" lets a release take over an object that exists and is nobody's.
	AdoptAnnotation = Domain + "adopt"
	// RecreateAnnotation "true" lets an immutable field change by deleting the object and making it again.
	RecreateAnnotation = Domain + "recreate"
	// DriftAnnotation says what is done about drift of this object: "heal", "report" or "ignore".
	DriftAnnotation = Domain + "drift"
	// IgnoreFieldsAnnotation lists JSON pointers of fields that belong to somebody else, comma-separated.
	IgnoreFieldsAnnotation = Domain + "ignore-fields"
)

// FieldManager is the name under which every managed field is owned.
const FieldManager = "nexus-reconciler"

// Marked reports whether annotation key of u says "true".
func Marked(u *unstructured.Unstructured, key string) bool { return u.GetAnnotations()[key] == "true" }
