package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/kube/fault"
	"github.com/nexus-platform/reconciler/object"
)

// foreign makes an object as another manager.
func foreign(t *testing.T, c *Cluster, manager string, u *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	out, err := resource(t, c, u).Create(t.Context(), u, metav1.CreateOptions{FieldManager: manager})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func resource(t *testing.T, c *Cluster, u *unstructured.Unstructured) dynamic.ResourceInterface {
	t.Helper()
	client, err := dynamic.NewForConfig(clustertest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Mapping(deadline(t), u.GroupVersionKind())
	if err != nil {
		t.Fatal(err)
	}
	return client.Resource(m.Resource).Namespace(u.GetNamespace())
}

const webText = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: NS, labels: {team: shop}}, spec: {replicas: 2, selector: {matchLabels: {app: a}},
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: app, image: old, env: [{name: A, value: "1"}]}]}}}}`

func TestCreateOfAForeignObjectNamesItsOwnersAndChangesNothing(t *testing.T) {
	for _, tc := range []struct{ name, marks, owner string }{
		{"a field manager", `{}`, "somebody"},
		{"Helm", `{annotations: {meta.helm.sh/release-name: shop}}`, "Helm release shop"},
		{"Flux", `{labels: {kustomize.toolkit.fluxcd.io/name: apps}}`, "Flux Kustomization apps"},
		{"Argo CD", `{annotations: {argocd.argoproj.io/tracking-id: "shop:v1/ConfigMap"}}`, "Argo CD application shop:v1/ConfigMap"},
		{"another environment", `{labels: {nexus.dev/environment: other}}`, "environment other"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := open(t, "env-exists", nil)
			ns := clustertest.Namespace(t)
			u := manifest(t, "{apiVersion: v1, kind: ConfigMap, metadata: "+tc.marks+", data: {k: theirs, same: s}}")
			u.SetName("a")
			u.SetNamespace(ns)
			before := foreign(t, c, "somebody", u)
			want := manifest(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: "+ns+"}, data: {k: ours, same: s}}")
			_, err := c.Apply(deadline(t), want, Pre{Create: true, Born: "env-exists/1"})
			var exists *ExistsError
			if !errors.As(err, &exists) || exists.Ours || !slices.Equal(exists.Owners, []string{tc.owner}) || exists.UID() != before.GetUID() {
				t.Fatalf("the error is %#v", err)
			}
			if diff := cmp.Diff(before.Object, read(t, c, u).Object); diff != "" {
				t.Errorf("the object was changed:\n%s", diff)
			}
		})
	}
}

func TestAnAdoptedObjectIsGivenBackAsItWas(t *testing.T) {
	for _, manager := range []string{"somebody", "kubectl-client-side-apply"} {
		t.Run("from "+manager, func(t *testing.T) {
			c, _ := open(t, "env-adopt", nil)
			ns := clustertest.Namespace(t)
			u := manifest(t, strings.ReplaceAll(webText, "NS", ns))
			clientSide := manager == "kubectl-client-side-apply"
			if clientSide {
				u.SetAnnotations(map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}\n"})
			}
			foreign(t, c, manager, u)
			image := read(t, c, u)
			ctx := deadline(t)

			same := u.DeepCopy()
			unstructured.RemoveNestedField(same.Object, "metadata", "annotations")
			other := same.DeepCopy()
			if err := unstructured.SetNestedField(other.Object, int64(3), "spec", "replicas"); err != nil {
				t.Fatal(err)
			}
			var conflict *ConflictError
			// settled tries again with a new image where the Deployment's controller wrote its status in between.
			settled := func(try func() error) error {
				for {
					err := try()
					if moved := (*ConflictError)(nil); !errors.As(err, &moved) || moved.Fields != nil {
						return err
					}
					image = read(t, c, u)
				}
			}
			err := settled(func() error {
				_, err := c.DryRun(ctx, other, PreOf(image, false))
				return err
			})
			if clientSide && err != nil {
				t.Errorf("who applied client-side is no obstacle: %v", err)
			}
			if !clientSide && (!errors.As(err, &conflict) || !slices.Equal(conflict.Managers(), []string{"somebody"}) || conflict.Fields[0].Field != "spec.replicas") {
				t.Errorf("adoption with another value: %v", err)
			}
			wanted := same
			if clientSide {
				wanted = other
			}
			var a Applied
			err = settled(func() (err error) {
				a, err = c.Apply(ctx, wanted, PreOf(image, false))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if a.UID != image.GetUID() || a.Object.GetLabels()[object.EnvironmentLabel] != "env-adopt" {
				t.Errorf("not adopted: %v", a.Object.Object["metadata"])
			}
			if clientSide {
				theirs := managed(a.Object, manager)
				if strings.Contains(theirs, "f:replicas") || !strings.Contains(theirs, "last-applied") {
					t.Errorf("client-side apply still claims %s", theirs)
				}
			}
			for range 2 { // the second time there is nothing to do
				if err := c.Restore(ctx, image, always); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(declared(image), declared(read(t, c, u))); diff != "" {
					t.Errorf("not as it was (-before +after):\n%s", diff)
				}
			}
			if err := c.Delete(ctx, object.RefOf(u), "v1", image.GetUID(), ""); err != nil {
				t.Fatal(err)
			}
			var gone *NotFoundError
			if err := c.Restore(ctx, image, always); !errors.As(err, &gone) {
				t.Errorf("restore of what is gone: %v", err)
			}
		})
	}
}

// managed is the field set of a manager.
func managed(u *unstructured.Unstructured, manager string) string {
	for _, e := range u.GetManagedFields() {
		if e.Manager == manager && e.Subresource == "" {
			return e.FieldsV1.GetRawString()
		}
	}
	return ""
}

// declared is an object with the owners of its fields, without times, counters and status.
func declared(u *unstructured.Unstructured) map[string]any {
	u = u.DeepCopy()
	owners := map[string]any{}
	for _, e := range u.GetManagedFields() {
		if e.Subresource == "" && e.Manager != "kube-controller-manager" {
			owners[e.Manager+" "+string(e.Operation)] = e.FieldsV1.GetRawString()
		}
	}
	u.SetManagedFields(nil)
	u.SetResourceVersion("")
	u.SetGeneration(0)
	delete(u.Object, "status")
	unstructured.RemoveNestedField(u.Object, "metadata", "annotations", "deployment.kubernetes.io/revision") // the controller's
	if len(u.GetAnnotations()) == 0 {
		u.SetAnnotations(nil)
	}
	u.Object["owners"] = owners
	return u.Object
}

func TestADisownedObjectKeepsItsContentAndLosesOurMarks(t *testing.T) {
	for _, tc := range []struct {
		name  string
		other bool
	}{{"of ours alone", false}, {"that others manage too", true}} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := open(t, "env-disown", nil)
			ns := clustertest.Namespace(t)
			a := apply(t, c, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: "+ns+", labels: {x: z}}, data: {k: v}}")
			stale := a.Object
			if tc.other {
				if _, err := resource(t, c, a.Object).Patch(t.Context(), "a", types.MergePatchType, []byte(`{"data":{"l":"w"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"}); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := c.Disown(deadline(t), stale); err != nil {
					t.Fatal(err)
				}
			}
			now := read(t, c, a.Object)
			want := map[string]any{"k": "v"}
			if tc.other {
				want["l"] = "w"
			}
			if diff := cmp.Diff(want, now.Object["data"]); diff != "" {
				t.Errorf("content changed:\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{"x": "z"}, now.GetLabels()); diff != "" {
				t.Errorf("labels:\n%s", diff)
			}
			if managed(now, object.FieldManager) != "" {
				t.Errorf("still ours: %v", now.Object["metadata"])
			}
			if tc.other && managed(now, "kubectl-edit") == "" {
				t.Error("the other manager lost its fields")
			}
		})
	}
}

func TestABusyObjectIsWrittenAgainAsLongAsWhatIsOursIsAsPlanned(t *testing.T) {
	c, _ := open(t, "env-busy", nil)
	ns := clustertest.Namespace(t)
	text := "{apiVersion: v1, kind: ConfigMap, metadata: {name: NAME, namespace: " + ns + "}, data: {k: v}}"
	for i, tc := range []struct {
		name, edit string
		written    bool
	}{
		{"a field of somebody else changed", `{"data":{"other":"x"}}`, true},
		{"a field of ours changed", `{"data":{"k":"x"}}`, false},
		{"a field of ours was removed", `{"data":{"k":null}}`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := fmt.Sprint("m", i)
			planned := apply(t, c, strings.ReplaceAll(text, "NAME", name))
			if _, err := resource(t, c, planned.Object).Patch(t.Context(), name, types.MergePatchType, []byte(tc.edit), metav1.PatchOptions{FieldManager: "kubectl-edit"}); err != nil {
				t.Fatal(err)
			}
			change := manifest(t, strings.ReplaceAll(strings.ReplaceAll(text, "NAME", name), "k: v", "k: new"))
			_, err := c.Apply(deadline(t), change, PreOf(planned.Object, true))
			var conflict *ConflictError
			switch {
			case tc.written && err != nil:
				t.Errorf("not written: %v", err)
			case !tc.written && !errors.As(err, &conflict):
				t.Errorf("written over the edit: %v", err)
			}
		})
	}
}

func TestEmptyTellsWhetherANamespaceHoldsTheWorkOfOthers(t *testing.T) {
	c, _ := open(t, "env-empty", nil)
	a := apply(t, c, "{apiVersion: v1, kind: Namespace, metadata: {name: "+clustertest.Namespace(t)+"x}}")
	ns := a.Object
	t.Cleanup(func() {
		if err := c.Delete(afterwards(t), object.RefOf(ns), "v1", ns.GetUID(), ""); err != nil {
			t.Error(err)
		}
	})
	apply(t, c, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: "+ns.GetName()+"}}")
	if empty, err := c.Empty(deadline(t), ns); err != nil || !empty {
		t.Errorf("with what the same release made: empty %t, %v", empty, err)
	}
	foreign(t, c, "somebody", manifest(t, "{apiVersion: v1, kind: Secret, metadata: {name: b, namespace: "+ns.GetName()+"}}"))
	if empty, err := c.Empty(deadline(t), ns); err != nil || empty {
		t.Errorf("with the Secret of somebody: empty %t, %v", empty, err)
	}
}

func TestACreateThatFindsAnObjectAllTheSameGivesEverythingBack(t *testing.T) {
	ns := clustertest.Namespace(t)
	// On its way the resourceVersion that cannot match is lost, as in an aggregated API that does not look at it.
	c, counter := open(t, "env-back", func(c *Cluster) {
		c.Config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPatch {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						return nil, err
					}
					body = bytes.ReplaceAll(body, []byte(`"resourceVersion":"1"`), []byte(`"generation":0`))
					r = r.Clone(r.Context())
					r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				}
				return next.RoundTrip(r)
			})
		})
	})
	before := foreign(t, c, "somebody", manifest(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: "+ns+"}, data: {same: s}}"))
	want := manifest(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: "+ns+", labels: {x: z}}, data: {same: s, new: v}}")
	var exists *ExistsError
	counter.take()
	if _, err := c.DryRun(deadline(t), want, Pre{Create: true}); !errors.As(err, &exists) {
		t.Errorf("dry-run: %v", err)
	}
	if _, err := c.Apply(deadline(t), want, Pre{Create: true, Born: "env-back/1"}); !errors.As(err, &exists) || exists.Ours {
		t.Errorf("apply: %v", err)
	}
	if n := len(counter.take()); n != 3 {
		t.Errorf("%d requests, not a dry-run, an apply and one that gives back", n)
	}
	if diff := cmp.Diff(declared(before), declared(read(t, c, want))); diff != "" {
		t.Errorf("not as it was:\n%s", diff)
	}
}

func always(context.Context) error { return nil }

// TestWhatAnAdoptionDidNotReachIsMovedOn: an adoption that was planned before the object was given back must not arrive after it.
func TestWhatAnAdoptionDidNotReachIsMovedOn(t *testing.T) {
	c, _ := open(t, "env-late", nil)
	ctx := deadline(t)
	u := manifest(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: "+clustertest.Namespace(t)+"}, data: {k: theirs}}")
	foreign(t, c, "somebody", u)
	image := read(t, c, u)
	want := u.DeepCopy()
	if err := unstructured.SetNestedField(want.Object, "ours", "data", "more"); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("the head is another's")
	if err := c.Restore(ctx, image, func(context.Context) error { return lost }); !errors.Is(err, lost) {
		t.Fatalf("Restore by who does not lead: %v", err)
	}
	if now := read(t, c, u); now.GetResourceVersion() != image.GetResourceVersion() {
		t.Error("it was written all the same")
	}
	if err := c.Restore(ctx, image, always); err != nil {
		t.Fatal(err)
	}
	pre := PreOf(image, false)
	asked := 0
	pre.Still = func(context.Context) error { asked++; return lost }
	if _, err := c.Apply(ctx, want, pre); !errors.Is(err, lost) || asked != 1 {
		t.Errorf("the late adoption: %v, asked %d times", err, asked)
	}
	after := read(t, c, u)
	if diff := cmp.Diff(declared(image), declared(after)); diff != "" {
		t.Errorf("not as it was (-before +after):\n%s", diff)
	}

	// A process that dies between the two halves leaves a mark, which the next one takes off.
	m, err := c.locate(ctx, object.RefOf(u), "v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.mergePatch(ctx, fault.Request{Ref: object.RefOf(u), Kind: u.GroupVersionKind(), Write: true}, m, after, map[string]any{"annotations": map[string]any{object.MovedAnnotation: "now"}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Restore(ctx, image, always); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(declared(image), declared(read(t, c, u))); diff != "" {
		t.Errorf("not as it was (-before +after):\n%s", diff)
	}
}
