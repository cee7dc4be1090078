package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/reconcile"
)

// mayAll gives the identity of the environment all rights, and lets the environment touch these kinds without a namespace.
func (s *stage) mayAll(clusterKinds ...string) {
	s.t.Helper()
	bindings := s.client.RbacV1().ClusterRoleBindings()
	_, err := bindings.Create(s.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "deployer", Namespace: s.namespace}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		ctx, cancel := cleanup()
		defer cancel()
		_ = bindings.Delete(ctx, s.namespace, metav1.DeleteOptions{})
	})
	s.env.Spec.Scope.ClusterKinds = clusterKinds
	s.start()
}

// found joins what a release was refused for.
func found(r *reconcile.ReleaseInfo) string { return r.Message + " " + strings.Join(r.Findings, " ") }

func TestD01AnObjectElsewhereIsRefusedByScopeAndWhereScopeAllowsItByRights(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	other := clustertest.Namespace(t)
	elsewhere := func(namespace string) map[string]string {
		return map[string]string{
			"a.yaml": configMap("a", "two"), "app.yaml": files["app.yaml"],
			"x.yaml":             strings.Replace(configMap("x", "1"), "  name: x\n", "  name: x\n  namespace: "+namespace+"\n", 1),
			"kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [x.yaml, ns]\n",
			"ns/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: " + s.namespace +
				"\nresources: [a.yaml, app.yaml]\n",
			"ns/a.yaml": configMap("a", "two"), "ns/app.yaml": files["app.yaml"],
		}
	}
	for _, namespace := range []string{other, "kube-system", s.assembly.Namespace} {
		if last := s.want(v1alpha1.Refused, "into "+namespace, elsewhere(namespace)); !strings.Contains(found(last), namespace) {
			t.Errorf("%s is not named: %s", namespace, found(last))
		}
	}
	s.env.Spec.Scope.Namespaces = []string{s.namespace, other}
	s.start()
	s.release("in scope, without the right", elsewhere(other))
	if _, err := s.run.Pass(t.Context(), reconcile.Ask{}); err == nil || !strings.Contains(err.Error(), "forbidden") || !strings.Contains(err.Error(), other) {
		t.Errorf("the missing right is not named: %v", err)
	}
	if got := s.value("a"); got != "one" {
		t.Errorf("a is %s", got)
	}
	s.env.Spec.Scope.Namespaces = nil
	s.start()
	unharmed(s, files)
}

func TestD02KindsWithoutANamespaceAreRefusedUnlessTheyAreInScope(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	for kind, manifest := range map[string]string{
		"ClusterRoleBinding":             "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: all}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}\nsubjects: [{kind: ServiceAccount, name: deployer, namespace: default}]\n",
		"ValidatingWebhookConfiguration": "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: all}\nwebhooks: []\n",
		"APIService":                     "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1.example.com}\nspec: {group: example.com, version: v1, groupPriorityMinimum: 1, versionPriority: 1}\n",
		"Node":                           "apiVersion: v1\nkind: Node\nmetadata: {name: mine}\n",
	} {
		last := s.want(v1alpha1.Refused, kind, map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": files["app.yaml"], "x.yaml": manifest})
		if !strings.Contains(found(last), kind) {
			t.Errorf("%s is not named: %s", kind, found(last))
		}
	}
	unharmed(s, files)
}

func TestD04TheJournalAndTheLeaseAreOutOfReachOfACommit(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.env.Spec.Scope.Namespaces = []string{"*"}
	s.mayAll()
	files := good(s)
	heads, err := s.client.CoreV1().Secrets(s.assembly.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(heads.Items) == 0 {
		t.Fatalf("no journal in %s: %v", s.assembly.Namespace, err)
	}
	last := s.want(v1alpha1.Refused, "over the journal", map[string]string{
		"x.yaml":             strings.Replace(secret(heads.Items[0].Name, "x"), "metadata:\n", "metadata:\n  namespace: "+s.assembly.Namespace+"\n", 1),
		"kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [x.yaml]\n",
	})
	if !strings.Contains(found(last), s.assembly.Namespace) {
		t.Errorf("findings: %s", found(last))
	}
	unharmed(s, files)
}

// widgets is a CRD whose name and group no other test uses.
func widgets(group string) string {
	return `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.` + group + `}
spec:
  group: ` + group + `
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties: {size: {type: integer}}
              x-kubernetes-validations: [{rule: self.size < 10, message: too large}]
`
}

func widget(group, size string) string {
	return "apiVersion: " + group + "/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: " + size + "}\n"
}

func TestD06ADefinitionAndItsInstanceComeInOneCommit(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.mayAll("CustomResourceDefinition")
	files := good(s)
	group := s.namespace + ".example.com"
	with := func(size string) map[string]string {
		return map[string]string{"a.yaml": files["a.yaml"], "app.yaml": files["app.yaml"], "crd.yaml": widgets(group), "w.yaml": widget(group, size)}
	}
	if last := s.want(v1alpha1.Refused, "no such kind", map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": files["app.yaml"], "w.yaml": widget(group, "1")}); !strings.Contains(found(last), "Widget") {
		t.Errorf("an unknown kind: %s", found(last))
	}
	for size, why := range map[string]string{"many": "spec.size", "11": "too large"} {
		if last := s.want(v1alpha1.Refused, "size "+size, with(size)); !strings.Contains(found(last), why) {
			t.Errorf("size %s: %s", size, found(last))
		}
	}
	crds, err := dynamic.NewForConfig(clustertest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	definition := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	get := func() (*unstructured.Unstructured, error) {
		return crds.Resource(definition).Get(t.Context(), "widgets."+group, metav1.GetOptions{})
	}
	if _, err := get(); !apierrors.IsNotFound(err) {
		t.Errorf("a refused commit left its definition: %v", err)
	}
	s.want(v1alpha1.Succeeded, "both", with("1"))
	s.want(v1alpha1.Succeeded, "the instance changes", with("2"))

	// D12: a definition takes all its objects with it, so it stays when it leaves Git.
	s.want(v1alpha1.Succeeded, "the definition leaves Git", files)
	if crd, err := get(); err != nil || crd.GetDeletionTimestamp() != nil {
		t.Errorf("the definition went: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := cleanup()
		defer cancel()
		_ = crds.Resource(definition).Delete(ctx, "widgets."+group, metav1.DeleteOptions{})
	})
	unharmed(s, files)
}

func TestD08WhatHelmInstalledIsRefusedAndNotTouched(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	theirs, err := s.client.CoreV1().ConfigMaps(s.namespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "chart", Labels: map[string]string{"app.kubernetes.io/managed-by": "Helm"}, Annotations: map[string]string{"meta.helm.sh/release-name": "shop"}},
		Data:       map[string]string{"key": "helm"},
	}, metav1.CreateOptions{FieldManager: "helm"})
	if err != nil {
		t.Fatal(err)
	}
	last := s.want(v1alpha1.Refused, "over Helm's", map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": files["app.yaml"], "c.yaml": configMap("chart", "ours")})
	if all := found(last); !strings.Contains(all, "chart") || !strings.Contains(strings.ToLower(all), "helm") {
		t.Errorf("neither object nor owner is named: %s", all)
	}
	now, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(t.Context(), "chart", metav1.GetOptions{})
	if err != nil || now.ResourceVersion != theirs.ResourceVersion {
		t.Errorf("it was touched: %v", err)
	}
	unharmed(s, files)
}

func TestD12AClaimThatLeavesGitKeepsItsData(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	claim := "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: data\n  annotations: {}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n"
	with := func(claim string) map[string]string {
		return map[string]string{"a.yaml": files["a.yaml"], "app.yaml": files["app.yaml"], "pvc.yaml": claim}
	}
	s.want(v1alpha1.Succeeded, "with a claim", with(claim))
	s.want(v1alpha1.Succeeded, "without it", files)
	claims := s.client.CoreV1().PersistentVolumeClaims(s.namespace)
	if pvc, err := claims.Get(t.Context(), "data", metav1.GetOptions{}); err != nil || pvc.DeletionTimestamp != nil {
		t.Fatalf("the claim went: %v", err)
	}
	unharmed(s, files)
	marked := strings.Replace(strings.ReplaceAll(claim, "name: data", "name: scratch"), "annotations: {}", "annotations: {nexus.dev/prune: allow}", 1)
	s.want(v1alpha1.Succeeded, "with a marked claim", with(marked))
	s.want(v1alpha1.Succeeded, "without that", files)
	s.until("the marked claim to go", func() bool {
		pvc, err := claims.Get(t.Context(), "scratch", metav1.GetOptions{})
		return apierrors.IsNotFound(err) || err == nil && pvc.DeletionTimestamp != nil
	})
}

func TestD13WhatTheServerWouldNotStoreIsRefusedWithItsSize(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	for name, manifest := range map[string]string{
		"a ConfigMap of more than 1 MiB":   configMap("big", strings.Repeat("x", 1<<20+1)),
		"annotations of more than 256 KiB": strings.Replace(configMap("big", "x"), "  name: big\n", "  name: big\n  annotations: {a: "+strings.Repeat("x", 256<<10+1)+"}\n", 1),
	} {
		last := s.want(v1alpha1.Refused, name, map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": files["app.yaml"], "big.yaml": manifest})
		if all := found(last); !strings.Contains(all, "ConfigMap") || !strings.Contains(all, "big") || len(all) > 4096 {
			t.Errorf("%s: %d bytes: %.300s", name, len(all), all)
		}
	}
	unharmed(s, files)
}

func TestD17HealthIsThatOfTheAppliedGeneration(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	job := "apiVersion: batch/v1\nkind: Job\nmetadata: {name: JOB}\nspec:\n  backoffLimit: 0\n  template:\n    spec:\n      restartPolicy: Never\n      containers: [{name: job, image: \"example/app:TAG\"}]\n"
	with := func(name, manifest string) map[string]string {
		return map[string]string{"a.yaml": files["a.yaml"], "app.yaml": files["app.yaml"], name: manifest}
	}
	s.want(v1alpha1.Succeeded, "no replicas", with("zero.yaml", strings.Replace(app("zero", "crashloop"), "replicas: 1", "replicas: 0", 1)))
	s.want(v1alpha1.Reverted, "a job that fails", with("job.yaml", strings.NewReplacer("JOB", "bad", "TAG", "fail").Replace(job)))
	s.want(v1alpha1.Succeeded, "a job that ends well", with("job.yaml", strings.NewReplacer("JOB", "fine", "TAG", "1").Replace(job)))
	short := policy + "  phases: {application: {timeout: 2s}}\n"
	never := with("never.yaml", app("never", "never-ready"))
	never["release.yaml"] = short
	if last := s.want(v1alpha1.Reverted, "never ready", never); !strings.Contains(found(last), "never") {
		t.Errorf("not named: %s", found(last))
	}
	unharmed(s, files)
}

func TestD19PodsThatMayNotBeAreRefusedOrUndoneWithTheReason(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	_, err := s.client.CoreV1().Namespaces().Patch(t.Context(), s.namespace, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"baseline"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	files := good(s)
	with := func(security string) map[string]string {
		root := strings.Replace(app("root", "1"), "          image:", "          securityContext: "+security+"\n          image:", 1)
		return map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": files["app.yaml"], "p.yaml": root}
	}
	if last := s.want(v1alpha1.Refused, "privileged", with("{privileged: true}")); !strings.Contains(found(last), "privileged") {
		t.Errorf("the reason is not named: %s", found(last))
	}
	impatient := with("{capabilities: {add: [SYS_PTRACE]}}")
	impatient["release.yaml"] = policy + "  health: {pendingGrace: 1s}\n"
	last := s.want(v1alpha1.Reverted, "not admitted", impatient)
	if all := found(last); !strings.Contains(all, "root") || !strings.Contains(all, "SYS_PTRACE") {
		t.Errorf("neither workload nor reason is named: %s", all)
	}
	unharmed(s, files)
}

func TestB01ARewrittenBranchHoldsUntilItIsAllowed(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	s.repo.Git("checkout", "-q", "--orphan", "fresh")
	s.repo.Git("branch", "-D", "main")
	s.repo.Git("branch", "-m", "main")
	s.repo.Write(overlay+"/a.yaml", configMap("a", "two"))
	s.repo.Commit("another history")
	s.repo.Git("push", "-q", "--force", "origin", "main")
	hold := func() {
		t.Helper()
		res := s.settle(reconcile.Ask{}, "the rewrite to be seen", func(res reconcile.Result, err error) bool { return err == nil && res.Refused != nil })
		if text := res.Refused.Err.Error() + strings.Join(res.Refused.Findings, " "); !strings.Contains(text, "histor") || !strings.Contains(text, "follow") {
			t.Errorf("refused without the reason, or the way out: %s", text)
		}
		if got := s.value("a"); got != "one" {
			t.Errorf("a is %s", got)
		}
	}
	hold()
	s.start()
	hold() // a new process remembers what was released, not what it said
	s.env.Spec.Source.Rewrite = "follow"
	s.start()
	s.rest()
	if got := s.value("a"); got != "two" {
		t.Errorf("a is %s although the branch may be rewritten", got)
	}
	files["a.yaml"] = configMap("a", "three")
	s.want(v1alpha1.Succeeded, "goes on", files)
}
