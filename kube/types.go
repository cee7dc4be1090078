package kube

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nexus-platform/reconciler/kube/cache"
	"github.com/nexus-platform/reconciler/kube/fault"
	"github.com/nexus-platform/reconciler/kube/fields"
)

// Aliases of the errors of this package; fault says what each means.
type (
	ConflictError    = fault.ConflictError
	DeniedError      = fault.DeniedError
	ExistsError      = fault.ExistsError
	ForbiddenError   = fault.ForbiddenError
	InvalidError     = fault.InvalidError
	LostAnswerError  = fault.LostAnswerError
	NoKindError      = fault.NoKindError
	NotFoundError    = fault.NotFoundError
	ThrottledError   = fault.ThrottledError
	UnavailableError = fault.UnavailableError
)

// Live is an object as the watch cache has it.
type Live = cache.Live

// FieldChange is one field that differs; what must not be shown is masked.
type FieldChange = fields.Change

// Diff lists the fields in which two states of one object differ; see fields.Diff.
func Diff(old, new *unstructured.Unstructured) []FieldChange { return fields.Diff(old, new) }

// LiveDigest is the digest of a live object over a field set; see fields.Digest.
func LiveDigest(live *unstructured.Unstructured, set []byte) (string, error) {
	return fields.Digest(live, set)
}

// Strip prepares body for an apply that leaves the fields of others to them; see fields.Strip.
func Strip(body *unstructured.Unstructured, pointers []string, live *unstructured.Unstructured) *unstructured.Unstructured {
	return fields.Strip(body, pointers, live)
}
