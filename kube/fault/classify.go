package fault

import (
	"context"
	"errors"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nexus-platform/reconciler/kube/fields"
	"github.com/nexus-platform/reconciler/object"
)

// Request is what was asked of the API server, as far as the meaning of its answer depends on it.
type Request struct {
	Ref   object.Ref
	Kind  schema.GroupVersionKind
	Write bool
}

// Classify turns what client-go returned into one of the errors of this package.
func (q Request) Classify(err error) error {
	if err == nil {
		return nil
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return q.refused(status.Status())
	}
	var dial *net.OpError
	switch {
	case errors.As(err, &dial) && dial.Op == "dial": // never reached the server
		return &UnavailableError{Cause: err}
	case q.Write:
		return &LostAnswerError{Cause: err}
	case errors.Is(err, context.Canceled):
		return err
	}
	return &UnavailableError{Cause: err}
}

// refused turns a status of the API server into an error.
func (q Request) refused(s metav1.Status) error {
	cause := q.scrub(s)
	message := cause.ErrStatus.Message
	if by := deniedBy(s.Message); by != "" && s.Code < http.StatusInternalServerError {
		return &DeniedError{Ref: q.Ref, By: by, Message: message, Cause: cause}
	}
	switch s.Code {
	case http.StatusNotFound:
		return q.missing(s, cause)
	case http.StatusConflict:
		return q.conflict(s, cause)
	case http.StatusForbidden:
		return &ForbiddenError{Ref: q.Ref, Message: message, Terminating: terminating(s), Cause: cause}
	case http.StatusTooManyRequests:
		return &ThrottledError{After: retryAfter(s), Cause: cause}
	case http.StatusGatewayTimeout:
		if q.Write {
			return &LostAnswerError{Cause: cause}
		}
		return &UnavailableError{Cause: cause}
	case http.StatusInternalServerError:
		if at := unappliable.FindStringSubmatchIndex(s.Message); at != nil && s.Reason == "" {
			return q.untyped(s.Message[at[1]:], cause)
		}
		return &UnavailableError{Cause: cause}
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusGone:
		return &UnavailableError{Cause: cause}
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return q.invalid(s, cause)
	}
	return &UnavailableError{Cause: cause}
}

// terminating reports that what the object is to be in, or is one of, is being deleted: that passes.
func terminating(s metav1.Status) bool {
	return apierrors.HasStatusCause(&apierrors.StatusError{ErrStatus: s}, "NamespaceTerminating") ||
		strings.Contains(s.Message, "create not allowed while custom resource definition is terminating")
}

func (q Request) missing(s metav1.Status, cause error) error {
	if s.Details == nil || s.Details.Name == "" { // the path itself is unknown
		return &NoKindError{Kind: q.Kind}
	}
	e := &NotFoundError{Ref: q.Ref, Cause: cause}
	if s.Details.Kind == "namespaces" && q.Ref.Kind != "Namespace" {
		e.Namespace = s.Details.Name
	}
	return e
}

// conflictManager reads the manager out of `conflict with "kubectl" using v1`.
var conflictManager = regexp.MustCompile(`conflict with "((?:[^"\\]|\\.)*)"`)

func (q Request) conflict(s metav1.Status, cause error) error {
	e := &ConflictError{Ref: q.Ref, Cause: cause}
	e.Replaced = strings.Contains(s.Message, "UID in precondition") || strings.Contains(s.Message, "UID in the precondition")
	if s.Details == nil {
		return e
	}
	for _, c := range s.Details.Causes {
		if c.Type != metav1.CauseTypeFieldManagerConflict {
			continue
		}
		f := FieldConflict{Field: strings.TrimPrefix(c.Field, "."), Manager: "unknown"}
		if m := conflictManager.FindStringSubmatch(c.Message); m != nil {
			f.Manager = m[1]
		}
		e.Fields = append(e.Fields, f)
	}
	return e
}

// Texts by which the API server says that a field cannot change.
var immutableTexts = []string{
	"is immutable", "may not change", "may not be changed", "cannot be changed", "cannot change", "can not be changed",
	"updates to statefulset spec for fields other than", "field can not be less than", "may not be modified", "pod updates may not change",
}

// unappliable begins the text of a 500 that says that server-side apply could make nothing of the object: for that
// the API server has no status of its own.
var unappliable = regexp.MustCompile(`^failed to (?:create typed patch object|convert new object) \([^)]*\)(?: to proper version)?: `)

// fieldFault cuts ".spec.foo: field not declared in schema".
var fieldFault = regexp.MustCompile(`^\.([^:\s]+): (.*)$`)

// untyped makes the error of an object that does not fit the schema of its kind.
func (q Request) untyped(fault string, cause error) error {
	e := &InvalidError{Ref: q.Ref, Cause: cause}
	for _, line := range strings.Split(strings.TrimPrefix(fault, "errors:\n"), "\n") {
		f := InvalidField{Message: fields.Redact(strings.TrimSpace(line))}
		if m := fieldFault.FindStringSubmatch(f.Message); m != nil {
			f = InvalidField{Path: m[1], Message: m[2]}
		}
		if fields.IsSecret(q.Ref.GroupKind()) {
			f = InvalidField{Path: secretField(f.Path), Message: "does not fit the schema of a Secret (values are base64 under data)"}
		}
		e.Fields = append(e.Fields, f)
	}
	return e
}

func (q Request) invalid(s metav1.Status, cause error) error {
	if strings.Contains(s.Message, "metadata.uid: Invalid value") { // the uid that we demand is not that of the object
		return &ConflictError{Ref: q.Ref, Replaced: true, Cause: cause}
	}
	e := &InvalidError{Ref: q.Ref, Cause: cause}
	for _, text := range immutableTexts {
		e.Immutable = e.Immutable || strings.Contains(s.Message, text)
	}
	var scrubbed *apierrors.StatusError
	if errors.As(cause, &scrubbed) && scrubbed.ErrStatus.Details != nil {
		for _, c := range scrubbed.ErrStatus.Details.Causes {
			e.Fields = append(e.Fields, InvalidField{Path: c.Field, Message: c.Message})
		}
	}
	if len(e.Fields) == 0 {
		e.Fields = []InvalidField{{Message: cause.Error()}}
	}
	return e
}

// scrub takes out of a status what may quote a value: for a Secret every text but field names and reasons.
func (q Request) scrub(s metav1.Status) *apierrors.StatusError {
	clean := *s.DeepCopy()
	if !fields.IsSecret(q.Ref.GroupKind()) {
		clean.Message = fields.Redact(clean.Message)
		if clean.Details != nil {
			for i := range clean.Details.Causes {
				clean.Details.Causes[i].Message = fields.Redact(clean.Details.Causes[i].Message)
			}
		}
		return &apierrors.StatusError{ErrStatus: clean}
	}
	clean.Message = "the API server's reason may quote the Secret and is not shown (" + string(s.Reason) + ")"
	if s.Code == http.StatusForbidden && !strings.Contains(s.Message, "denied") {
		clean.Message = s.Message // access rights and quotas speak of names only
	}
	if clean.Details != nil {
		for i, c := range clean.Details.Causes {
			text := string(c.Type)
			for _, known := range immutableTexts {
				if strings.Contains(c.Message, known) {
					text = "field is immutable"
				}
			}
			clean.Details.Causes[i] = metav1.StatusCause{Type: c.Type, Field: secretField(c.Field), Message: text}
			if c.Type == metav1.CauseTypeFieldManagerConflict {
				clean.Details.Causes[i].Message = c.Message // names a manager, no value
			}
		}
	}
	return &apierrors.StatusError{ErrStatus: clean}
}

// secretField keeps field paths that are paths: a decoder may put parts of the input there.
func secretField(path string) string {
	if len(path) > 300 || strings.ContainsAny(path, "\n:= ") {
		return ""
	}
	return path
}

var denials = []*regexp.Regexp{
	regexp.MustCompile(`^admission webhook "([^"]+)" denied the request`),
	regexp.MustCompile(`ValidatingAdmissionPolicy '([^']+)'(?: with binding '[^']+')? denied request`),
}

// deniedBy names the webhook or policy that refused, or is empty.
func deniedBy(message string) string {
	for _, d := range denials {
		if m := d.FindStringSubmatch(message); m != nil {
			return m[1]
		}
	}
	return ""
}

func retryAfter(s metav1.Status) time.Duration {
	if s.Details == nil || s.Details.RetryAfterSeconds <= 0 {
		return time.Second
	}
	return time.Duration(s.Details.RetryAfterSeconds) * time.Second
}
