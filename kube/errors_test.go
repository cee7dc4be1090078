package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/object"
)

const (
	statefulText = `{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db, namespace: NS}, spec: {replicas: 0, serviceName: db, selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: app, image: x}]}}, volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}}`
	jobText      = `{apiVersion: batch/v1, kind: Job, metadata: {name: job, namespace: NS}, spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: app, image: x}]}}}}`
	claimText    = `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: c, namespace: NS}, spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 2Gi}}}}`
	bindingText  = `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b, namespace: NS}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}, subjects: [{kind: ServiceAccount, name: a, namespace: NS}]}`
)

func TestTheAPIServersRefusalsAreTyped(t *testing.T) {
	c, _ := open(t, "env-errors", nil)
	ns := clustertest.Namespace(t)
	apply(t, c, strings.ReplaceAll(webText, "NS", ns))
	apply(t, c, "{apiVersion: v1, kind: Secret, metadata: {name: fixed, namespace: "+ns+"}, immutable: true, data: {k: Q0FOQVJZ}}")
	apply(t, c, "{apiVersion: v1, kind: Service, metadata: {name: svc, namespace: "+ns+"}, spec: {ports: [{port: 80}]}}")
	apply(t, c, strings.ReplaceAll(statefulText, "NS", ns))
	apply(t, c, strings.ReplaceAll(jobText, "NS", ns))
	apply(t, c, strings.ReplaceAll(claimText, "NS", ns))
	apply(t, c, strings.ReplaceAll(bindingText, "NS", ns))
	apply(t, c, "{apiVersion: v1, kind: ResourceQuota, metadata: {name: q, namespace: "+ns+"}, spec: {hard: {count/serviceaccounts: '0'}}}")
	for _, tc := range []struct {
		name, object string
		want         any
		text         string
		immutable    bool
	}{
		{"a field that the kind does not have", strings.ReplaceAll(webText, "replicas: 2", "replcas: 2"), &InvalidError{}, "is not valid: spec.replcas: field not declared in schema", false},
		{"a field of another type", strings.ReplaceAll(webText, "replicas: 2", "replicas: two"), &InvalidError{}, "spec.replicas: expected numeric", false},
		{"two items of one name", strings.ReplaceAll(webText, `[{name: A, value: "1"}]`, `[{name: A, value: "1"}, {name: A, value: "2"}]`), &InvalidError{}, "duplicate entries for key", false},
		{"a value out of range", strings.ReplaceAll(webText, "replicas: 2", "replicas: -2"), &InvalidError{}, "spec.replicas", false},
		{"a selector that changes", strings.ReplaceAll(webText, "app: a", "app: b"), &InvalidError{}, "spec.selector", true},
		{"a cluster IP that changes", "{apiVersion: v1, kind: Service, metadata: {name: svc, namespace: NS}, spec: {clusterIP: None, ports: [{port: 80}]}}", &InvalidError{}, "spec.clusterIP", true},
		{"claim templates that change", strings.ReplaceAll(statefulText, "1Gi", "2Gi"), &InvalidError{}, "spec", true},
		{"a Job's template that changes", strings.ReplaceAll(jobText, "image: x", "image: z"), &InvalidError{}, "spec.template", true},
		{"a claim that shrinks", strings.ReplaceAll(claimText, "2Gi", "1Gi"), &InvalidError{}, "spec", true},
		{"a role reference that changes", strings.ReplaceAll(bindingText, "name: reader", "name: writer"), &InvalidError{}, "roleRef", true},
		{"an immutable Secret that changes", "{apiVersion: v1, kind: Secret, metadata: {name: fixed, namespace: NS}, immutable: true, data: {k: Q0FOQVJZMg==}}", &InvalidError{}, "immutable", true},
		{"a Secret that is not base64", "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: NS}, data: {k: 'CANARY!'}}", &InvalidError{}, "base64", false},
		{"a Secret with a number", "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: NS}, data: {k: 5150515051}}", &InvalidError{}, "data.k", false},
		{"a Secret with a bad key", "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: NS}, data: {'a b CANARY': Q0FOQVJZ}}", &InvalidError{}, "", false},
		{"a Secret of a type that needs more", "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: NS}, type: kubernetes.io/dockerconfigjson, data: {.dockerconfigjson: Q0FOQVJZ}}", &InvalidError{}, "", false},
		{"a name that cannot be", "{apiVersion: v1, kind: ConfigMap, metadata: {name: A_B, namespace: NS}}", &InvalidError{}, "metadata.name", false},
		{"no namespace", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", &InvalidError{}, "metadata.namespace: is missing", false},
		{"a namespace too many", "{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: NS}}", &InvalidError{}, "is set", false},
		{"a namespace that is not there", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: nowhere-at-all}}", &NotFoundError{}, "namespace nowhere-at-all is not in the cluster", false},
		{"a kind that is not served", "{apiVersion: nowhere.dev/v1, kind: Thing, metadata: {name: a, namespace: NS}}", &NoKindError{}, "the cluster does not serve nowhere.dev/v1 Thing", false},
		{"a version that is not served", "{apiVersion: apps/v1beta2, kind: Deployment, metadata: {name: a, namespace: NS}}", &NoKindError{}, "apps/v1beta2", false},
		{"more than the quota", "{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: NS}}", &ForbiddenError{}, "exceeded quota", false},
		{"more than fits", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: NS}, data: {k: " + strings.Repeat("x", 1<<20+1) + "}}", &InvalidError{}, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := manifest(t, strings.ReplaceAll(tc.object, "NS", ns))
			pre := Pre{Create: true}
			if live, err := c.Read(deadline(t), object.RefOf(u), u.GroupVersionKind().Version); err == nil {
				pre = PreOf(live, true)
			}
			for what, do := range map[string]func() error{
				"dry-run": func() error { _, err := c.DryRun(deadline(t), u, pre); return err },
				"apply":   func() error { _, err := c.Apply(deadline(t), u, pre); return err },
			} {
				err := do()
				expect(t, what, err, tc.want, tc.text)
				var invalid *InvalidError
				if errors.As(err, &invalid) && invalid.Immutable != tc.immutable {
					t.Errorf("%s: immutable is %t: %v", what, invalid.Immutable, err)
				}
				for e := err; e != nil; e = errors.Unwrap(e) {
					if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, "CANARY") || strings.Contains(text, "Q0FOQVJZ") || strings.Contains(text, "5150515051") {
						t.Errorf("%s: a value of the Secret is in the error: %s", what, text)
					}
				}
			}
		})
	}
}

// expect checks type and text of an error.
func expect(t *testing.T, what string, err error, want any, text string) {
	t.Helper()
	target := reflect.New(reflect.TypeOf(want))
	if err == nil || !errors.As(err, target.Interface()) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %T %v, not a %T with %q", what, err, err, want, text)
	}
}

func TestWhoMayNotIsToldWhatAndAllowedFindsItBefore(t *testing.T) {
	admin, _ := open(t, "env-rbac", nil)
	ns := clustertest.Namespace(t)
	apply(t, admin, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: deployer, namespace: "+ns+"}}")
	apply(t, admin, "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: deployer, namespace: "+ns+"}, rules: [{apiGroups: [''], resources: [configmaps], verbs: ['*']}, {apiGroups: [''], resources: [secrets], resourceNames: [one], verbs: [get]}]}")
	apply(t, admin, "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: deployer, namespace: "+ns+"}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: deployer}, subjects: [{kind: ServiceAccount, name: deployer, namespace: "+ns+"}]}")
	c, counter := open(t, "env-rbac", func(c *Cluster) { c.Config = Impersonate(c.Config, ns, "deployer") })

	var forbidden *ForbiddenError
	_, err := c.Apply(deadline(t), manifest(t, "{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: "+ns+"}}"), Pre{Create: true})
	if !errors.As(err, &forbidden) || !strings.Contains(err.Error(), `cannot patch resource "secrets"`) {
		t.Errorf("the error is %v", err)
	}
	if _, err := c.Apply(deadline(t), manifest(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: "+ns+"}}"), Pre{Create: true}); err != nil {
		t.Errorf("what is allowed: %v", err)
	}
	counter.take()
	denied, err := c.Allowed(deadline(t), []Access{
		{Verb: "patch", Resource: "configmaps", Namespace: ns},
		{Verb: "delete", Resource: "configmaps", Namespace: ns},
		{Verb: "get", Resource: "secrets", Namespace: ns, Name: "one"},
		{Verb: "get", Resource: "secrets", Namespace: ns},
		{Verb: "patch", Group: "apps", Resource: "deployments/scale", Namespace: ns},
		{Verb: "create", Resource: "namespaces"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range denied {
		got = append(got, d.Verb+" "+d.Resource)
	}
	if want := "get secrets, patch deployments/scale, create namespaces"; strings.Join(got, ", ") != want {
		t.Errorf("denied are %q, not %q", got, want)
	}
	if n := len(counter.take()); n != 4 {
		t.Errorf("%d requests, not one for the namespace and one for each denied", n)
	}
}

func TestADenialOfAnAdmissionPolicyNamesThePolicy(t *testing.T) {
	c, _ := open(t, "env-denied", nil)
	ns := clustertest.Namespace(t)
	apply(t, c, strings.ReplaceAll(`{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: NS}, spec: {failurePolicy: Fail, matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps, secrets]}]}, validations: [{expression: "!object.metadata.name.startsWith('bad')", message: "bad names are not for us"}]}}`, "NS", ns))
	apply(t, c, strings.ReplaceAll(`{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: NS}, spec: {policyName: NS, validationActions: [Deny], matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NS}}}}}`, "NS", ns))
	t.Cleanup(func() {
		for _, kind := range []string{"ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"} {
			u := manifest(t, "{apiVersion: admissionregistration.k8s.io/v1, kind: "+kind+", metadata: {name: "+ns+"}}")
			live, err := c.Read(afterwards(t), object.RefOf(u), "v1")
			if err == nil {
				err = c.Delete(afterwards(t), object.RefOf(u), "v1", live.GetUID(), "")
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	for try := 0; ; try++ { // the API server takes a moment to see a new policy
		_, err := c.DryRun(deadline(t), manifest(t, fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: bad%d, namespace: %s}}", try, ns)), Pre{Create: true})
		if err == nil && try < 200 && pause(deadline(t), rediscover/4) == nil {
			continue
		}
		expect(t, "dry-run", err, &DeniedError{}, "is denied by "+ns+": ")
		if err != nil && !strings.Contains(err.Error(), "bad names are not for us") {
			t.Errorf("the policy's reason is missing: %v", err)
		}
		break
	}
	_, err := c.DryRun(deadline(t), manifest(t, "{apiVersion: v1, kind: Secret, metadata: {name: bad, namespace: "+ns+"}, data: {k: Q0FOQVJZ}}"), Pre{Create: true})
	expect(t, "dry-run of a Secret", err, &DeniedError{}, "is denied by "+ns)
}

// failing answers instead of the API server, the first times.
type failing struct {
	times  atomic.Int32
	answer func(*http.Request, http.RoundTripper) (*http.Response, error)
}

func (f *failing) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodPatch && f.times.Add(-1) >= 0 {
			return f.answer(r, next)
		}
		return next.RoundTrip(r)
	})
}

func status(code int, header, body string) func(*http.Request, http.RoundTripper) (*http.Response, error) {
	return func(r *http.Request, _ http.RoundTripper) (*http.Response, error) {
		h := http.Header{"Content-Type": {"application/json"}}
		if header != "" {
			h.Set("Retry-After", header)
		}
		return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

// after lets the API server do its work and then spoils the answer.
func after(spoil func(*http.Response) (*http.Response, error)) func(*http.Request, http.RoundTripper) (*http.Response, error) {
	return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		return spoil(resp)
	}
}

func TestFaultsOfTheWorldAreToldFromThoseOfTheObject(t *testing.T) {
	ns := clustertest.Namespace(t)
	lost := after(func(*http.Response) (*http.Response, error) { return nil, errors.New("connection reset by peer") })
	cut := after(func(resp *http.Response) (*http.Response, error) {
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		resp.Body = io.NopCloser(bytes.NewReader(data[:len(data)/2]))
		return resp, nil
	})
	for i, tc := range []struct {
		name   string
		times  int32
		answer func(*http.Request, http.RoundTripper) (*http.Response, error)
		want   any // nil: written
	}{
		{"throttled once", 1, status(429, "0", `{}`), nil},
		{"throttled for good", 99, status(429, "0", `{}`), &ThrottledError{}},
		{"not available once", 1, status(503, "0", `{}`), nil},
		{"not available", 99, status(503, "", `{}`), &UnavailableError{}},
		{"an internal error", 99, status(500, "", `{"kind":"Status","code":500,"reason":"InternalError","message":"etcdserver: no leader"}`), &UnavailableError{}},
		{"a webhook that is down", 99, status(500, "", `{"kind":"Status","code":500,"reason":"InternalError","message":"failed calling webhook"}`), &UnavailableError{}},
		{"a gateway that gave up waiting", 99, status(504, "", `{}`), &LostAnswerError{}},
		{"the answer was lost", 1, lost, &LostAnswerError{}},
		{"the answer was cut", 1, cut, &LostAnswerError{}},
		{"who we are is not accepted", 99, status(401, "", `{}`), &UnavailableError{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &failing{answer: tc.answer}
			c, _ := open(t, "env-faults", func(c *Cluster) { c.Config.Wrap(f.wrap) })
			u := manifest(t, fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: m%d, namespace: %s}, data: {k: v}}", i, ns))
			f.times.Store(tc.times)
			_, err := c.Apply(deadline(t), u, Pre{Create: true, Born: "env-faults/1"})
			if tc.want == nil && err != nil {
				t.Fatalf("not written: %v", err)
			}
			if tc.want != nil {
				expect(t, "apply", err, tc.want, "")
			}
			f.times.Store(0)
			if a, err := c.Apply(deadline(t), u, Pre{Create: true, Born: "env-faults/1"}); err != nil || !a.Created {
				t.Errorf("the same write again, when the fault is over: %v", err)
			}
		})
	}
	t.Run("a cancelled write stays a cancellation", func(t *testing.T) {
		c, _ := open(t, "env-faults", nil)
		ctx, cancel := context.WithCancel(deadline(t))
		u := manifest(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: "+ns+"}}")
		if _, err := c.DryRun(ctx, u, Pre{Create: true}); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := c.Apply(ctx, u, Pre{Create: true}); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("an address where nobody listens", func(t *testing.T) {
		c := &Cluster{Config: &rest.Config{Host: "http://127.0.0.1:1"}}
		if err := c.Open(); err != nil {
			t.Fatal(err)
		}
		_, err := c.Apply(deadline(t), &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": "b"}}}, Pre{Create: true})
		expect(t, "apply", err, &UnavailableError{}, "connection refused")
	})
}
