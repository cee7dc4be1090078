// Package fault turns what an API server answers into typed errors that say what happened, and never quote a Secret.
package fault

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/kube/fields"
	"github.com/nexus-platform/reconciler/object"
)

// The texts of these errors name neither the operation nor the object: the caller
// knows both and says them once. No text and no cause holds a value of a Secret.

// NotFoundError says that the object is not there. Namespace is set if it is its namespace that is missing.
type NotFoundError struct {
	Ref       object.Ref
	Namespace string
	Cause     error
}

func (e *NotFoundError) Error() string {
	if e.Namespace != "" {
		return "namespace " + e.Namespace + " is not in the cluster"
	}
	return "is not in the cluster"
}

func (e *NotFoundError) Unwrap() error { return e.Cause }

// NoKindError says that the cluster does not serve a kind, or not yet.
type NoKindError struct{ Kind schema.GroupVersionKind }

func (e *NoKindError) Error() string {
	return fmt.Sprintf("the cluster does not serve %s %s; is its CustomResourceDefinition installed?", e.Kind.GroupVersion(), e.Kind.Kind)
}

// ExistsError says that an object which was to be created is there already.
type ExistsError struct {
	Ref      object.Ref
	Owners   []string // who manages it, as far as its marks and field managers tell
	Ours     bool     // it carries the label of this environment
	Deleting bool     // it is on its way out
	Object   *unstructured.Unstructured
}

func (e *ExistsError) Error() string {
	switch {
	case e.Deleting:
		return "exists already and is being deleted"
	case len(e.Owners) == 0:
		return "exists already"
	}
	return "exists already, managed by " + strings.Join(e.Owners, ", ")
}

// UID of what is there.
func (e *ExistsError) UID() types.UID { return e.Object.GetUID() }

// Exists makes the error of a create that found an object.
func Exists(ref object.Ref, live *unstructured.Unstructured, environment types.UID) *ExistsError {
	return &ExistsError{
		Ref: ref, Owners: owners(live), Object: live, Deleting: live.GetDeletionTimestamp() != nil,
		Ours: live.GetLabels()[object.EnvironmentLabel] == string(environment),
	}
}

// owners names who manages an object: by the marks that known tools leave, else by field managers.
func owners(live *unstructured.Unstructured) []string {
	labels, notes := live.GetLabels(), live.GetAnnotations()
	var names []string
	add := func(what, value string) {
		if value != "" {
			names = append(names, what+" "+value)
		}
	}
	add("environment", labels[object.EnvironmentLabel])
	add("Helm release", notes["meta.helm.sh/release-name"])
	add("Flux Kustomization", labels["kustomize.toolkit.fluxcd.io/name"])
	add("Flux HelmRelease", labels["helm.toolkit.fluxcd.io/name"])
	add("Argo CD application", notes["argocd.argoproj.io/tracking-id"])
	if len(names) > 0 {
		return names
	}
	for _, e := range live.GetManagedFields() {
		if e.Subresource == "" && e.Manager != object.FieldManager && !slices.Contains(names, e.Manager) {
			names = append(names, e.Manager)
		}
	}
	return names
}

// FieldConflict is a field that another manager owns.
type FieldConflict struct{ Field, Manager string }

// ConflictError says that the object is not as it was when the write was planned: fields
// belong to others (Fields), or it was changed or replaced meanwhile (no Fields).
type ConflictError struct {
	Ref      object.Ref
	Fields   []FieldConflict
	Replaced bool // another object has taken its name
	Cause    error
}

func (e *ConflictError) Error() string {
	switch {
	case len(e.Fields) > 0:
		parts := make([]string, 0, len(e.Fields))
		for _, f := range e.Fields {
			parts = append(parts, f.Field+" (owned by "+f.Manager+")")
		}
		return "fields belong to others: " + shortList(parts)
	case e.Replaced:
		return "was deleted and made again by somebody else"
	}
	return "was changed by somebody else since it was read"
}

func (e *ConflictError) Unwrap() error { return e.Cause }

// Managers names, each once, who owns the fields.
func (e *ConflictError) Managers() []string {
	var names []string
	seen := map[string]bool{}
	for _, f := range e.Fields {
		if !seen[f.Manager] {
			seen[f.Manager] = true
			names = append(names, f.Manager)
		}
	}
	return names
}

// InvalidField is one fault that the API server found.
type InvalidField struct{ Path, Message string }

// InvalidError says that the API server will never accept the object as it is.
type InvalidError struct {
	Ref       object.Ref
	Fields    []InvalidField
	Immutable bool // a field that cannot change was to be changed
	Cause     error
}

func (e *InvalidError) Error() string {
	parts := make([]string, 0, len(e.Fields))
	for _, f := range e.Fields {
		if f.Path == "" {
			parts = append(parts, f.Message)
		} else {
			parts = append(parts, f.Path+": "+f.Message)
		}
	}
	return "is not valid: " + shortList(parts)
}

func (e *InvalidError) Unwrap() error { return e.Cause }

// Invalid makes the error of one field.
func Invalid(ref object.Ref, path, message string) *InvalidError {
	return &InvalidError{Ref: ref, Fields: []InvalidField{{Path: path, Message: message}}}
}

// ForbiddenError says that the API server refuses: by access rights, a quota, Pod Security, or because the namespace is going.
type ForbiddenError struct {
	Ref         object.Ref
	Message     string
	Terminating bool // the namespace, or the definition of the kind, is being deleted
	Cause       error
}

func (e *ForbiddenError) Error() string { return "is forbidden: " + e.Message }

func (e *ForbiddenError) Unwrap() error { return e.Cause }

// DeniedError says that an admission webhook or policy refuses the object.
type DeniedError struct {
	Ref     object.Ref
	By      string // name of the webhook or policy
	Message string
	Cause   error
}

func (e *DeniedError) Error() string { return "is denied by " + e.By + ": " + e.Message }

func (e *DeniedError) Unwrap() error { return e.Cause }

// ThrottledError says that the API server asks for patience, and went on asking.
type ThrottledError struct {
	After time.Duration
	Cause error
}

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("the API server is overloaded and asks to wait %s", e.After)
}

func (e *ThrottledError) Unwrap() error { return e.Cause }

// UnavailableError says that the API server, or a webhook that it needs, did not do its work. Nothing was written.
type UnavailableError struct{ Cause error }

func (e *UnavailableError) Error() string {
	return "the API server is not available: " + causeText(e.Cause)
}

func (e *UnavailableError) Unwrap() error { return e.Cause }

// LostAnswerError says that a write was sent and nobody knows whether it was carried out: read the object.
type LostAnswerError struct{ Cause error }

func (e *LostAnswerError) Error() string {
	return "the answer of the API server was lost: " + causeText(e.Cause)
}

func (e *LostAnswerError) Unwrap() error { return e.Cause }

// shortList joins the first of many faults.
func shortList(parts []string) string {
	const most = 5
	if len(parts) <= most {
		return strings.Join(parts, "; ")
	}
	return strings.Join(parts[:most], "; ") + fmt.Sprintf("; and %d more", len(parts)-most)
}

func causeText(err error) string {
	if err == nil {
		return "unknown"
	}
	return fields.Redact(err.Error())
}
