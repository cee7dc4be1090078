package e2e

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/reconcile"
)

func TestAPushBecomesAReleaseAndThePlanThenSaysNoChanges(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	commit := s.release("first", map[string]string{"cm.yaml": configMap("settings", "one"), "app.yaml": app("web", "1")})
	plan, err := s.run.Plan(t.Context(), commit)
	if err != nil {
		t.Fatal(err)
	}
	if n := plan.Counts()["create"]; n != 2 || len(plan.Actions) != 2 {
		t.Fatalf("the plan is %+v; want two objects to create", plan.Actions)
	}
	s.rest()
	if last := s.last(); last.Outcome != v1alpha1.Succeeded || last.Commit != commit {
		t.Fatalf("ended as %+v", last)
	}
	if got := s.value("settings"); got != "one" {
		t.Errorf("the ConfigMap holds %q", got)
	}
	again, err := s.run.Plan(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if !again.Empty() || again.Unchanged != 2 {
		t.Errorf("after the release the plan is %+v with %d unchanged", again.Actions, again.Unchanged)
	}
}

func TestAChangeShowsItsFieldsAndPrunesWhatLeft(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.want(v1alpha1.Succeeded, "first", map[string]string{"a.yaml": configMap("a", "one"), "b.yaml": configMap("b", "one")})
	commit := s.release("second", map[string]string{"a.yaml": configMap("a", "two")})
	plan, err := s.run.Plan(t.Context(), commit)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Actions) != 2 || plan.Actions[0].Do != reconcile.Change || plan.Actions[1].Do != reconcile.Prune {
		t.Fatalf("the plan is %+v", plan.Actions)
	}
	if f := plan.Actions[0].Fields; len(f) != 1 || f[0].Old != "one" || f[0].New != "two" {
		t.Errorf("the fields are %+v", f)
	}
	s.rest()
	if a, b := s.value("a"), s.value("b"); a != "two" || b != "absent" {
		t.Errorf("a is %s and b %s", a, b)
	}
}

func TestAMistakeIsRefusedBeforeTheFirstWriteAndTheNextGoodCommitWorks(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.want(v1alpha1.Succeeded, "first", map[string]string{"a.yaml": configMap("a", "one"), "app.yaml": app("web", "1")})
	bad := strings.Replace(app("web", "2"), "replicas:", "replicaz:", 1)
	last := s.want(v1alpha1.Refused, "typing error", map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": bad})
	if len(last.Findings) == 0 || !strings.Contains(last.Findings[0], "replicaz") {
		t.Errorf("the findings do not name the field: %v", last.Findings)
	}
	if got := s.value("a"); got != "one" {
		t.Errorf("a is %s although the commit was refused", got)
	}
	s.want(v1alpha1.Succeeded, "mended", map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": app("web", "2")})
	if got := s.value("a"); got != "two" {
		t.Errorf("a is %s", got)
	}
}

func TestACrashLoopIsUndoneWithEverythingThatCameWithIt(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.want(v1alpha1.Succeeded, "first", map[string]string{"a.yaml": configMap("a", "one"), "app.yaml": app("web", "1")})
	last := s.want(v1alpha1.Reverted, "it crashes", map[string]string{
		"a.yaml": configMap("a", "two"), "new.yaml": configMap("new", "x"), "app.yaml": app("web", "crashloop"),
	})
	if last.Reason != "CrashLoopBackOff" || !strings.Contains(last.Message, "pod web-") {
		t.Errorf("the reason is %s: %s; want the pod that crashed", last.Reason, last.Message)
	}
	if a, n, image := s.value("a"), s.value("new"), s.image("web"); a != "one" || n != "absent" || image != "example/app:1" {
		t.Errorf("after the undo a is %s, new is %s, and web runs %s", a, n, image)
	}
	before := len(s.told(reconcile.EventBegan))
	s.rest()
	if n := len(s.told(reconcile.EventBegan)); n != before {
		t.Errorf("the bad commit was tried again")
	}
}

func TestAnEmptyRenderAndAVanishedPathAreRefusedAndNothingIsPruned(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.want(v1alpha1.Succeeded, "first", map[string]string{"a.yaml": configMap("a", "one")})
	s.want(v1alpha1.Refused, "empty", map[string]string{"kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n"})
	s.repo.Git("rm", "-r", "-q", ".")
	s.repo.Write("README", "nothing")
	s.repo.Commit("the path is gone")
	s.repo.Push()
	s.rest()
	if last := s.last(); last.Outcome != v1alpha1.Refused {
		t.Errorf("a vanished path ended as %s", last.Outcome)
	}
	if got := s.value("a"); got != "one" {
		t.Errorf("a is %s", got)
	}
}

func TestHalfOfTheRepositoryDeletedIsStoppedByThePruneGuard(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{}
	for _, name := range strings.Split("a b c d e f g h i j k l", " ") {
		files[name+".yaml"] = configMap(name, "one")
	}
	s.want(v1alpha1.Succeeded, "first", files)
	last := s.want(v1alpha1.Refused, "oops", map[string]string{"a.yaml": files["a.yaml"]})
	if last.Reason != "PruneGuard" {
		t.Errorf("refused for %s", last.Reason)
	}
	if got := s.value("l"); got != "one" {
		t.Errorf("l is %s", got)
	}
}

func TestDriftIsHealedAndItsAuthorNamed(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.want(v1alpha1.Succeeded, "first", map[string]string{"a.yaml": configMap("a", "one"), "b.yaml": configMap("b", "one")})
	cms := s.client.CoreV1().ConfigMaps(s.namespace)
	_, err := cms.Patch(t.Context(), "a", types.MergePatchType, []byte(`{"data":{"key":"hand"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	if err != nil {
		t.Fatal(err)
	}
	if err := cms.Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.settle(reconcile.Ask{}, "the drift to be healed", func(reconcile.Result, error) bool {
		return s.value("a") == "one" && s.value("b") == "one"
	})
	var told []string
	for _, e := range s.told(reconcile.EventDrift) {
		told = append(told, e.Drift.Object+" "+e.Drift.Verb+" by "+e.Drift.Manager)
	}
	all := strings.Join(told, "\n")
	if !strings.Contains(all, "a edited by kubectl-edit") || !strings.Contains(all, "b deleted by unknown") {
		t.Errorf("told:\n%s", all)
	}
}

func TestARestartFinishesAnOpenRelease(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.want(v1alpha1.Succeeded, "first", map[string]string{"a.yaml": configMap("a", "one"), "app.yaml": app("web", "1")})
	commit := s.release("slow", map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": app("web", "2", "devcluster/ready-after: 3s")})
	s.settle(reconcile.Ask{}, "the release to wait", func(res reconcile.Result, _ error) bool { return len(res.Waiting) > 0 })
	s.start()
	s.rest()
	if last := s.last(); last.Commit != commit || last.Outcome != v1alpha1.Succeeded {
		t.Errorf("ended as %+v", last)
	}
	plan, err := s.run.Plan(t.Context(), "")
	if err != nil || !plan.Empty() {
		t.Errorf("after the restart the plan is %+v, %v", plan, err)
	}
}

func TestANewerCommitTakesThePlaceOfOneThatWaits(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.want(v1alpha1.Succeeded, "first", map[string]string{"app.yaml": app("web", "1")})
	s.release("never ready", map[string]string{"app.yaml": app("web", "never-ready")})
	s.settle(reconcile.Ask{}, "the release to wait", func(res reconcile.Result, _ error) bool { return len(res.Waiting) > 0 })
	s.want(v1alpha1.Succeeded, "a better one", map[string]string{"app.yaml": app("web", "3")})
	var outcomes []string
	for _, e := range s.told(reconcile.EventEnded) {
		outcomes = append(outcomes, string(e.Release.Outcome))
	}
	if got := strings.Join(outcomes, " "); got != "Succeeded Superseded Succeeded" {
		t.Errorf("the outcomes are %s", got)
	}
}

func TestRollbackReleasesThePreviousBundleAndPinsIt(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.want(v1alpha1.Succeeded, "first", map[string]string{"a.yaml": configMap("a", "one")})
	first := s.last().Commit
	s.want(v1alpha1.Succeeded, "second", map[string]string{"a.yaml": configMap("a", "two")})
	ask := reconcile.Ask{Request: &v1alpha1.Request{ID: "r1", Verb: v1alpha1.VerbRollback, By: "jane"}}
	s.settle(ask, "the rollback", func(res reconcile.Result, err error) bool {
		return err == nil && res.Head.Good != nil && res.Head.Good.Commit == first
	})
	if got := s.value("a"); got != "one" {
		t.Errorf("a is %s", got)
	}
	s.settle(ask, "a pass after it", func(reconcile.Result, error) bool { return true })
	if got := s.value("a"); got != "one" {
		t.Errorf("the pin does not hold: a is %s", got)
	}
	retry := reconcile.Ask{Request: &v1alpha1.Request{ID: "r2", Verb: v1alpha1.VerbRetry, By: "jane"}}
	s.settle(retry, "the branch to be followed again", func(reconcile.Result, error) bool { return s.value("a") == "two" })
}

func TestAFirstReleaseThatFailsIsKeptAndTheNextCommitMendsIt(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.want(v1alpha1.Halted, "crashes at once", map[string]string{"a.yaml": configMap("a", "one"), "app.yaml": app("web", "image-pull")})
	if got := s.value("a"); got != "one" {
		t.Errorf("a is %s, although the objects of a first release are kept", got)
	}
	s.want(v1alpha1.Succeeded, "mended", map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": app("web", "1")})
	if got := s.value("a"); got != "two" {
		t.Errorf("a is %s", got)
	}
}

func TestAnObjectOfSomebodyElseIsRefusedAndAdoptedOnlyWhenMarked(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	cms := s.client.CoreV1().ConfigMaps(s.namespace)
	foreign := strings.NewReplacer("one", "theirs")
	_, err := cms.Patch(context.WithoutCancel(t.Context()), "a", types.ApplyPatchType, []byte(foreign.Replace(configMap("a", "one"))), metav1.PatchOptions{FieldManager: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	last := s.want(v1alpha1.Refused, "unmarked", map[string]string{"a.yaml": configMap("a", "theirs")})
	if !strings.Contains(strings.Join(last.Findings, " "), "nexus.dev/adopt") {
		t.Errorf("the findings do not say how to adopt it: %v", last.Findings)
	}
	marked := strings.Replace(configMap("a", "theirs"), "  name: a\n", "  name: a\n  annotations: {nexus.dev/adopt: \"true\"}\n", 1)
	s.want(v1alpha1.Succeeded, "marked", map[string]string{"a.yaml": marked})
}

func TestAReleaseThatFallsIllWhileItBakesGoesBackToThePreviousOne(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	baking := strings.Replace(policy, "bake: 0s", "bake: 5m", 1)
	s.want(v1alpha1.Succeeded, "first", map[string]string{"release.yaml": baking, "a.yaml": configMap("a", "one"), "app.yaml": app("web", "1")})
	first := s.last().Commit
	s.want(v1alpha1.Succeeded, "ill later", map[string]string{"release.yaml": baking, "a.yaml": configMap("a", "two"), "app.yaml": app("web", "crashloop-after-1s")})
	second := s.last().Commit
	res := s.settle(reconcile.Ask{}, "the return", func(res reconcile.Result, err error) bool {
		return err == nil && res.Head.State == journal.Idle && res.Head.Good != nil && res.Head.Good.Commit == first
	})
	if !res.Head.Quarantined(second) {
		t.Errorf("the commit that fell ill is not in quarantine")
	}
	if a, image := s.value("a"), s.image("web"); a != "one" || image != "example/app:1" {
		t.Errorf("after the return a is %s and web runs %s", a, image)
	}
	if kind := s.last().Kind; kind != reconcile.KindReturn {
		t.Errorf("the last release is a %s", kind)
	}
}

func TestWhatDriftedWhileNobodyWatchedIsHealedAfterAStart(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.want(v1alpha1.Succeeded, "one", map[string]string{"a.yaml": configMap("a", "one"), "b.yaml": configMap("b", "one")})
	s.run.Close()
	cms := s.client.CoreV1().ConfigMaps(s.namespace)
	if _, err := cms.Patch(t.Context(), "a", types.MergePatchType, []byte(`{"data":{"key":"hand"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"}); err != nil {
		t.Fatal(err)
	}
	if err := cms.Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.settle(reconcile.Ask{}, "both to be healed", func(reconcile.Result, error) bool { return s.value("a") == "one" && s.value("b") == "one" })
	if told := s.told(reconcile.EventDrift); len(told) != 2 {
		t.Errorf("drift was told %d times", len(told))
	}
}
