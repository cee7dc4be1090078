package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/reconcile"
)

// loseHead deletes the head, as a person might.
func (s *stage) loseHead() {
	s.t.Helper()
	if err := s.client.CoreV1().Secrets(s.assembly.Namespace).Delete(s.t.Context(), "nexus-head-"+string(s.env.UID), metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

func TestAHeadThatSomebodyDeletesAtRestIsRebuiltByTheNextReleaseOfTheSameProcess(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	s.loseHead()
	files["a.yaml"] = configMap("a", "two")
	s.want(v1alpha1.Succeeded, "a changes", files)
	if n := len(s.told(reconcile.EventRebuilt)); n != 1 {
		t.Errorf("told %d times that the head was rebuilt", n)
	}
	if got := s.value("a"); got != "two" {
		t.Errorf("a is %s", got)
	}
}

func TestAPlanDoesNotWriteTheHeadThatIsMissing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	good(s)
	s.loseHead()
	s.start()
	plan, err := s.run.Plan(t.Context(), "")
	if err != nil || !plan.Empty() || plan.Base == "" {
		t.Errorf("the plan is %+v, %v", plan, err)
	}
	_, err = s.client.CoreV1().Secrets(s.assembly.Namespace).Get(t.Context(), "nexus-head-"+string(s.env.UID), metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the head: %v", err)
	}
}

// Nothing says how the objects were before a release that begins anew over them: it is kept when it fails, and never called undone.
func TestBeginningAnewOverWhatIsThereIsNeverCalledUndone(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.env.Spec.OnFirstFailure = "undo"
	files := good(s)
	if err := s.client.CoreV1().Secrets(s.assembly.Namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: object.Domain + "journal=" + string(s.env.UID)}); err != nil {
		t.Fatal(err)
	}
	s.start()
	bad := map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": app("web", "image-pull")}
	if last := s.want(v1alpha1.Halted, "bad", bad); !strings.Contains(last.Message, "push a commit that mends it") || strings.Contains(last.Message, "onFirstFailure") {
		t.Errorf("told: %s", last.Message)
	}
	if got := s.value("a"); got != "two" {
		t.Errorf("a is %s, although the objects were kept", got)
	}
	s.want(v1alpha1.Succeeded, "mended", files)
	if got := s.value("a"); got != "one" {
		t.Errorf("a is %s", got)
	}
}

func TestAHeadWithoutASpareHaltsWithTheCommandThatBeginsAnew(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	good(s)
	s.loseHead()
	if err := s.client.CoreV1().Secrets(s.assembly.Namespace).Delete(t.Context(), "nexus-spare-"+string(s.env.UID), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.start()
	_, err := s.run.Pass(t.Context(), reconcile.Ask{})
	var halted *reconcile.HaltedError
	if !errors.As(err, &halted) || !strings.Contains(halted.Do, "kubectl --namespace "+s.assembly.Namespace+" delete secrets --selector "+object.Domain+"journal="+string(s.env.UID)) {
		t.Errorf("%v", err)
	}
}

func TestAnUndoThatAnObjectHoldsUpHaltsAndGoesOnByItself(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	impatient := "apiVersion: nexus.dev/v1alpha1\nkind: ReleasePolicy\nspec: {settle: 0s, bake: 0s, patience: 1s, phases: {infrastructure: {timeout: 1s}}}\n"
	keep := strings.Replace(configMap("a", "one"), "  name: a\n", "  name: a\n  finalizers: [never.example/x]\n", 1)
	s.want(v1alpha1.Succeeded, "with a finalizer", map[string]string{"a.yaml": keep, "app.yaml": files["app.yaml"], "release.yaml": impatient})
	cms := s.client.CoreV1().ConfigMaps(s.namespace)
	if err := cms.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	bad := s.release("cannot be made", map[string]string{"a.yaml": strings.Replace(keep, "one", "two", 1), "app.yaml": files["app.yaml"], "release.yaml": impatient})
	var halted *reconcile.HaltedError
	deadline := time.After(deadline)
	for {
		_, err := s.run.Pass(t.Context(), reconcile.Ask{})
		if errors.As(err, &halted) {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("the last pass: %v", err)
		case <-s.bell:
		case <-time.After(100 * time.Millisecond):
		}
	}
	if !strings.Contains(halted.What, "its finalizers never.example/x keep it") {
		t.Errorf("%v", halted)
	}
	if _, err := cms.Patch(t.Context(), "a", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	s.settle(reconcile.Ask{}, "the undo to end", func(res reconcile.Result, err error) bool { return res.Head.Quarantined(bad) })
	if got := s.value("a"); got != "one" {
		t.Errorf("a is %s", got)
	}
}

func TestARollbackToABundleThatIsGoneIsRenderedAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	first := s.rest().Head.Good.Set
	files["a.yaml"] = configMap("a", "two")
	s.want(v1alpha1.Succeeded, "a changes", files)
	secrets := s.client.CoreV1().Secrets(s.assembly.Namespace)
	list, err := secrets.List(t.Context(), metav1.ListOptions{LabelSelector: object.Domain + "part=bundle"})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range list.Items {
		if strings.Contains(secret.Name, first[:32]) {
			err = errors.Join(err, secrets.Delete(t.Context(), secret.Name, metav1.DeleteOptions{}))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	ask := reconcile.Ask{Request: &v1alpha1.Request{ID: "back", Verb: v1alpha1.VerbRollback, By: "ada"}}
	s.settle(ask, "the rollback", func(res reconcile.Result, err error) bool {
		return err == nil && res.Head.Pin != nil && res.Head.State == journal.Idle
	})
	if got := s.value("a"); got != "one" {
		t.Errorf("a is %s", got)
	}
}

func TestAnUndoMakesADefinitionAgainThatSomebodyDeletes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.mayAll("CustomResourceDefinition")
	group := s.namespace + ".example.com"
	client, err := dynamic.NewForConfig(clustertest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	definitions := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	t.Cleanup(func() {
		ctx, cancel := cleanup()
		defer cancel()
		_ = definitions.Delete(ctx, "widgets."+group, metav1.DeleteOptions{})
	})
	files := map[string]string{"a.yaml": configMap("a", "one"), "app.yaml": app("web", "1"), "crd.yaml": widgets(group), "w.yaml": widget(group, "1"),
		"release.yaml": "apiVersion: nexus.dev/v1alpha1\nkind: ReleasePolicy\nspec: {settle: 0s, bake: 0s, phases: {application: {timeout: 5s}}}\n"}
	s.want(v1alpha1.Succeeded, "good", files)
	files["w.yaml"], files["app.yaml"] = widget(group, "2"), app("web", "never-ready")
	bad := s.release("is never ready", files)
	s.settle(reconcile.Ask{}, "the application phase", func(res reconcile.Result, err error) bool {
		return res.Head.Release != nil && res.Head.Release.Phase == object.Application
	})
	if err := definitions.Delete(t.Context(), "widgets."+group, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.settle(reconcile.Ask{}, "the undo to end", func(res reconcile.Result, err error) bool { return res.Head.Quarantined(bad) })
	w, err := client.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: "widgets"}).Namespace(s.namespace).Get(t.Context(), "w", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if size, _, _ := unstructured.NestedInt64(w.Object, "spec", "size"); size != 1 {
		t.Errorf("the instance has size %d", size)
	}
}
