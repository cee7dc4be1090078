package e2e

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/reconcile"
)

// A create that was lost arrives after its release was undone. What it makes goes again, as the undo would have taken it away, unless
// somebody has used it meanwhile.
func TestADefinitionThatArrivesLateGoesUnlessItIsUsed(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.mayAll("CustomResourceDefinition")
	files := good(s)
	group := s.namespace + ".example.com"
	s.want(v1alpha1.Reverted, "crashes", map[string]string{"a.yaml": files["a.yaml"], "app.yaml": app("web", "crashloop"), "crd.yaml": widgets(group)})
	head := s.rest().Head
	client, err := dynamic.NewForConfig(clustertest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	crds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	late := strings.Replace(widgets(group), "{name: widgets."+group+"}", fmt.Sprintf("{name: widgets.%s, labels: {%s: %q}, annotations: {%s: %q}}",
		group, object.EnvironmentLabel, s.env.UID, object.BornAnnotation, fmt.Sprintf("%s/%d", s.env.UID, head.Since+1)), 1)
	arrive := func() {
		if _, err := crds.Patch(t.Context(), "widgets."+group, types.ApplyPatchType, []byte(late), metav1.PatchOptions{FieldManager: object.FieldManager}); err != nil {
			t.Fatal(err)
		}
	}
	there := func() bool {
		_, err := crds.Get(t.Context(), "widgets."+group, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		return err == nil
	}
	s.until("the definition to go with the undo", func() bool { return !there() })
	arrive()
	s.settle(reconcile.Ask{}, "the definition to go", func(_ reconcile.Result, err error) bool { return err == nil && !there() })

	arrive() // nothing is looked at before the next pass
	instance := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": group + "/v1", "kind": "Widget", "metadata": map[string]any{"name": "theirs"}, "spec": map[string]any{"size": int64(1)},
	}}
	instances := client.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: "widgets"}).Namespace(s.namespace)
	s.until("the new kind to be served", func() bool {
		_, err := instances.Create(t.Context(), instance, metav1.CreateOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		return err == nil
	})
	s.rest()
	unharmed(s, files)
	s.rest()
	if !there() {
		t.Error("a definition that somebody uses was deleted")
	}
	s.t.Cleanup(func() {
		ctx, cancel := cleanup()
		defer cancel()
		_ = crds.Delete(ctx, "widgets."+group, metav1.DeleteOptions{})
	})
}
