package e2e

import (
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
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
