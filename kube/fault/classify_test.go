package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/object"
)

var (
	configMap = object.Ref{Kind: "ConfigMap", Namespace: "shop", Name: "a"}
	secret    = object.Ref{Kind: "Secret", Namespace: "shop", Name: "a"}
)

func answer(code int32, reason metav1.StatusReason, message string, causes ...metav1.StatusCause) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Reason: reason, Message: message,
		Details: &metav1.StatusDetails{Name: "a", Causes: causes, RetryAfterSeconds: 7}}}
}

func TestClassify(t *testing.T) {
	reset := fmt.Errorf("read: %w", errors.New("connection reset by peer"))
	for _, tc := range []struct {
		name  string
		ref   object.Ref
		write bool
		err   error
		want  string // type and text
	}{
		{"no error", configMap, true, nil, "<nil> <nil>"},
		{"a webhook denies", configMap, true, answer(403, "Forbidden", `admission webhook "guard.example.dev" denied the request: no: password=CANARY`),
			`*fault.DeniedError is denied by guard.example.dev: admission webhook "guard.example.dev" denied the request: no: password=***`},
		{"a webhook denies with a code of its own", configMap, true, answer(418, "", `admission webhook "guard.example.dev" denied the request: no`),
			`*fault.DeniedError is denied by guard.example.dev: admission webhook "guard.example.dev" denied the request: no`},
		{"a webhook denies a Secret and quotes it", secret, true, answer(403, "Forbidden", `admission webhook "guard.example.dev" denied the request: CANARY is too short`),
			`*fault.DeniedError is denied by guard.example.dev: the API server's reason may quote the Secret and is not shown (Forbidden)`},
		{"a webhook cannot be reached", configMap, true, answer(500, "InternalError", `failed calling webhook "guard.example.dev": connection refused`),
			`*fault.UnavailableError the API server is not available: failed calling webhook "guard.example.dev": connection refused`},
		{"Pod Security refuses", configMap, true, answer(403, "Forbidden", `pods "a" is forbidden: violates PodSecurity "restricted:latest": privileged`),
			`*fault.ForbiddenError is forbidden: pods "a" is forbidden: violates PodSecurity "restricted:latest": privileged`},
		{"the namespace is going", configMap, true, answer(403, "Forbidden", "it is being terminated", metav1.StatusCause{Type: "NamespaceTerminating"}),
			`*fault.ForbiddenError is forbidden: it is being terminated`},
		{"the definition is going", configMap, true, answer(403, "Forbidden", `widgets.example.com "w" is forbidden: create not allowed while custom resource definition is terminating`),
			`*fault.ForbiddenError is forbidden: widgets.example.com "w" is forbidden: create not allowed while custom resource definition is terminating`},
		{"fields of a Secret belong to others", secret, true, answer(409, "Conflict", "Apply failed with 1 conflict: CANARY", metav1.StatusCause{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "kubectl" using v1`, Field: ".data.k"}),
			`*fault.ConflictError fields belong to others: data.k (owned by kubectl)`},
		{"a Secret's value is refused", secret, true, answer(422, "Invalid", `Secret "a" is invalid: data[k]: Invalid value: "CANARY"`, metav1.StatusCause{Type: "FieldValueInvalid", Message: `Invalid value: "CANARY": bad`, Field: "data[k]"}),
			`*fault.InvalidError is not valid: data[k]: FieldValueInvalid`},
		{"etcd gives no answer", configMap, true, answer(500, "", "etcdserver: request timed out"), "*fault.UnavailableError the API server is not available: etcdserver: request timed out"},
		{"throttled", configMap, true, answer(429, "TooManyRequests", "slow down"), "*fault.ThrottledError the API server is overloaded and asks to wait 7s"},
		{"a read after which the connection broke", configMap, false, reset, "*fault.UnavailableError the API server is not available: read: connection reset by peer"},
		{"a write after which the connection broke", configMap, true, reset, "*fault.LostAnswerError the answer of the API server was lost: read: connection reset by peer"},
		{"a write that never got there", configMap, true, &net.OpError{Op: "dial", Err: errors.New("no route to host")}, "*fault.UnavailableError the API server is not available: dial: no route to host"},
		{"a read whose time is over", configMap, false, context.DeadlineExceeded, "*fault.UnavailableError the API server is not available: context deadline exceeded"},
		{"a write whose time is over", configMap, true, context.DeadlineExceeded, "*fault.LostAnswerError the answer of the API server was lost: context deadline exceeded"},
		{"a read that was cancelled", configMap, false, context.Canceled, "*errors.errorString context canceled"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Request{Ref: tc.ref, Write: tc.write}.Classify(tc.err)
			if got := fmt.Sprintf("%T %v", err, err); got != tc.want {
				t.Errorf("%s\nnot %s", got, tc.want)
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				if strings.Contains(fmt.Sprintf("%v %+v %#v", e, e, e), "CANARY") {
					t.Errorf("a secret is in %#v", e)
				}
			}
		})
	}
}

func TestAThrottledRequestSaysHowLong(t *testing.T) {
	var throttled *ThrottledError
	if err := (Request{}).Classify(answer(429, "TooManyRequests", "")); !errors.As(err, &throttled) || throttled.After != 7*time.Second {
		t.Errorf("%v", err)
	}
}
