package validate_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate"
	"github.com/nexus-platform/reconciler/validate/internal/load"
)

func configMap(name string, more map[string]any) map[string]any {
	u := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": "shop"}}
	for k, v := range more {
		u[k] = v
	}
	return u
}

func setOf(t testing.TB, bodies ...map[string]any) *object.Set {
	t.Helper()
	var objects []object.Object
	for i, b := range bodies {
		o, err := object.NewObject(&unstructured.Unstructured{Object: b}, object.Origin{Path: "app.yaml", Line: i + 1})
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	set, err := object.NewSet(objects)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestSizesEndWhereTheServerEnds(t *testing.T) {
	const mib = 1 << 20
	text := func(n int) string { return strings.Repeat("x", n) }
	coded := func(n int) string { return base64.StdEncoding.EncodeToString([]byte(text(n))) }
	secret := func(field, value string) map[string]any {
		return configMap("s", map[string]any{"kind": "Secret", field: map[string]any{"key": value}})
	}
	annotated := func(n int) map[string]any {
		return configMap("a", map[string]any{"metadata": map[string]any{"name": "a", "namespace": "shop", "annotations": map[string]any{"k": text(n - 1)}}})
	}
	custom := func(n int) map[string]any {
		return map[string]any{"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": map[string]any{"name": "g", "namespace": "shop"}, "spec": text(n)}
	}
	const frame = len(`{"apiVersion":"example.com/v1","kind":"Gadget","metadata":{"name":"g","namespace":"shop"},"spec":""}`)
	for _, c := range []struct {
		name  string
		body  map[string]any
		large bool
	}{
		{"a ConfigMap of 1 MiB", configMap("a", map[string]any{"data": map[string]any{"key": text(mib)}}), false},
		{"a ConfigMap of 1 MiB and a byte", configMap("a", map[string]any{"data": map[string]any{"key": text(mib + 1)}}), true},
		{"a ConfigMap of text and bytes that are too much together", configMap("a", map[string]any{"data": map[string]any{"key": text(mib / 2)}, "binaryData": map[string]any{"b": coded(mib/2 + 1)}}), true},
		{"a ConfigMap of 2 MB of bytes, as a generator makes it", configMap("a", map[string]any{"binaryData": map[string]any{"b": coded(2_000_000)}}), true},
		{"a Secret of 1 MiB, encoded", secret("data", coded(mib)), false},
		{"a Secret of 1 MiB and a byte, encoded", secret("data", coded(mib+1)), true},
		{"a Secret of 1 MiB and a byte, in clear", secret("stringData", text(mib+1)), true},
		{"annotations of 256 KiB", annotated(256 << 10), false},
		{"annotations of 256 KiB and a byte", annotated(256<<10 + 1), true},
		{"an object of 1.5 MiB", custom(3<<19 - frame), false},
		{"an object of 1.5 MiB and a byte", custom(3<<19 - frame + 1), true},
		{"an object that is too large only when encoded", custom(0), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			findings, err := (&validate.Checker{}).Check(t.Context(), setOf(t, c.body))
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(rules(findings.Errors()), "too-large"); got != c.large {
				t.Errorf("too large: %v, want %v: %v", got, c.large, findings)
			}
		})
	}
}

func TestASetWithoutEndIsOneFinding(t *testing.T) {
	bodies := make([]map[string]any, 20_001)
	for i := range bodies {
		bodies[i] = configMap(fmt.Sprintf("-bad-%d", i), nil)
	}
	findings, err := (&validate.Checker{}).Check(t.Context(), setOf(t, bodies...))
	if err != nil || len(findings) != 1 || findings[0].Rule != "too-many-objects" || findings.Err() == nil {
		t.Errorf("got %d findings, %v: %.300v", len(findings), err, findings)
	}
	if text := findings.Err().Error(); strings.Contains(text, ": /: ") {
		t.Errorf("a finding about the whole set names an object: %s", text)
	}
}

func TestAWorldThatDoesNotAnswerIsNoFinding(t *testing.T) {
	gone := errors.New("connection refused")
	w := worldOf(t, nil)
	w.err = gone
	findings, err := (&validate.Checker{World: w}).Check(t.Context(), setOf(t, configMap("a", nil)))
	if !errors.Is(err, gone) || findings != nil {
		t.Errorf("got %v, %v", findings, err)
	}
	if err != nil && !strings.Contains(err.Error(), "ConfigMap/shop/a") {
		t.Errorf("the error names no object: %v", err)
	}
}

// One changed object costs two requests (the benchmark counts them), so a check may ask for nothing that it knows.
func TestTheWorldIsAskedOnceAndOnlyForWhatTheSetAndTheInventoryDoNotKnow(t *testing.T) {
	dir := "testdata/a-sound-set-has-no-findings"
	set := load.Set(t, dir, "environment.yaml", "cluster.yaml")
	c := checkerOf(t, dir)
	for _, o := range set.Objects {
		c.Owned = append(c.Owned, object.Record{Ref: o.Ref})
	}
	if _, err := c.Check(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]object.Ref{{Kind: "Namespace", Name: "shop"}}, c.World.(*world).asked); diff != "" {
		t.Errorf("asked for more than the namespace (-want +got):\n%s", diff)
	}
	c = checkerOf(t, "testdata/references-to-nothing")
	if _, err := c.Check(t.Context(), load.Set(t, "testdata/references-to-nothing", "environment.yaml", "cluster.yaml")); err != nil {
		t.Fatal(err)
	}
	asked := map[object.Ref]int{}
	for _, ref := range c.World.(*world).asked {
		if asked[ref]++; asked[ref] > 1 {
			t.Errorf("asked for %s again", ref)
		}
	}
}

func TestTheJournalOfAnotherClusterIsInTheNamespaceThatTheEnvironmentNames(t *testing.T) {
	e := &v1alpha1.Environment{}
	e.Namespace = "shop"
	e.Spec.Scope.Namespaces = []string{"*"}
	e.Spec.Cluster = &v1alpha1.ClusterReference{Namespace: "journal"}
	body := configMap("a", map[string]any{"metadata": map[string]any{"name": "a", "namespace": "journal"}})
	findings, err := (&validate.Checker{Environment: e}).Check(t.Context(), setOf(t, body))
	if err != nil || !slices.Contains(rules(findings), "reserved") {
		t.Errorf("got %v, %v", findings, err)
	}
}

func TestOrderDoesNotDependOnTheRun(t *testing.T) {
	set := load.Set(t, "testdata/references-to-nothing", "environment.yaml", "cluster.yaml")
	first, err := checkerOf(t, "testdata/references-to-nothing").Check(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, _ := checkerOf(t, "testdata/references-to-nothing").Check(t.Context(), set)
		if diff := cmp.Diff(first, again); diff != "" {
			t.Fatal(diff)
		}
	}
	if diff := cmp.Diff(first, validate.Merge(first, first)); diff != "" {
		t.Errorf("merged with themselves, findings change: %s", diff)
	}
}

func TestOnlyErrorsRefuseASet(t *testing.T) {
	warning := validate.Finding{Rule: "w", Severity: validate.Warning, Message: "is odd"}
	fault := validate.Finding{
		Rule: "e", Severity: validate.Error, Message: "is wrong", Fix: "mend it", Field: "spec.x",
		Object: object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "backend"}, Origin: object.Origin{Path: "overlays/prod/app.yaml", Line: 12},
	}
	if err := (validate.Findings{warning}).Err(); err != nil {
		t.Errorf("a warning refuses: %v", err)
	}
	err := validate.Findings{fault, warning}.Err()
	var refused *validate.RefusedError
	if !errors.As(err, &refused) || len(refused.Findings) != 2 {
		t.Fatalf("got %v", err)
	}
	want := "1 fault refused before the first write:\n  overlays/prod/app.yaml:12: Deployment/shop/backend: spec.x: is wrong; mend it"
	if err.Error() != want {
		t.Errorf("got %q\nwant %q", err, want)
	}
}

func TestACheckDoesNotChangeTheSet(t *testing.T) {
	set := load.Set(t, "testdata/objects-of-the-reconciler", "environment.yaml", "cluster.yaml")
	if _, err := checkerOf(t, "testdata/objects-of-the-reconciler").Check(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	for _, o := range set.Objects {
		if now, _ := object.Digest(o.Body.Object); now != o.Digest {
			t.Errorf("%s was changed", o.Ref)
		}
	}
}

// FuzzCheck throws any JSON at every rule.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","namespace":"shop","annotations":{"config.kubernetes.io/depends-on":"/a/b"}},"spec":{"template":{"spec":{"containers":[null,{"env":[{"valueFrom":{}}]}],"volumes":[{"projected":{"sources":[{}]}},{"hostPath":{"path":".."}}]}}}}`,
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":[],"data":3}`,
		`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"a","namespace":"b"},"subjects":[1,{"kind":3}],"roleRef":[]}`,
		`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"a","namespace":"b"},"spec":{"rules":[{"http":[]},{"http":{"paths":[[]]}}]}}`,
		`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"a"},"spec":{"versions":[3,{"name":[]}]}}`,
		`{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"a","namespace":"b"},"spec":{"volumeClaimTemplates":[{"metadata":[]}]}}`,
	} {
		f.Add([]byte(seed))
	}
	e := &v1alpha1.Environment{}
	e.Namespace = "shop"
	f.Fuzz(func(t *testing.T, b []byte) {
		var body map[string]any
		u := &unstructured.Unstructured{}
		if json.Unmarshal(b, &body) != nil || body == nil {
			return
		}
		if err := u.UnmarshalJSON(b); err != nil {
			u.Object = body
		}
		o, err := object.NewObject(u, object.Origin{})
		if err != nil {
			return
		}
		set, err := object.NewSet([]object.Object{o})
		if err != nil {
			return
		}
		for _, c := range []*validate.Checker{{}, {Environment: e, World: &world{}}} {
			findings, err := c.Check(t.Context(), set)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range findings {
				if strings.Contains(f.String(), "\n") && !strings.Contains(string(b), `\n`) {
					t.Errorf("a finding of several lines: %q", f)
				}
			}
		}
	})
}

func BenchmarkCheckOfFiveThousandObjects(b *testing.B) {
	var bodies []map[string]any
	for i := range 5000 {
		body := configMap(fmt.Sprintf("a-%d", i), map[string]any{"data": map[string]any{"key": strings.Repeat("x", 500)}})
		if i%5 == 0 {
			body["kind"], body["apiVersion"] = "Deployment", "apps/v1"
			body["spec"] = map[string]any{"replicas": int64(0), "template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{
				"name": "main", "image": "a", "envFrom": []any{map[string]any{"configMapRef": map[string]any{"name": fmt.Sprintf("a-%d", i+1)}}},
			}}}}}
		}
		bodies = append(bodies, body)
	}
	set := setOf(b, bodies...)
	for b.Loop() {
		if findings, err := (&validate.Checker{}).Check(b.Context(), set); err != nil || len(findings) > 0 {
			b.Fatal(findings, err)
		}
	}
}
