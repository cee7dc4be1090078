package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/reconcile"
)

// good is the release that every hostile one must leave exactly as it was.
func good(s *stage) map[string]string {
	files := map[string]string{"a.yaml": configMap("a", "one"), "app.yaml": app("web", "1")}
	s.want(v1alpha1.Succeeded, "good", files)
	return files
}

// unharmed checks that the good release still stands and that the next good commit works, without a restart.
func unharmed(s *stage, files map[string]string) {
	s.t.Helper()
	if a, image := s.value("a"), s.image("web"); a != "one" || image != "example/app:1" {
		s.t.Errorf("a is %s and web runs %s: not as before", a, image)
	}
	next := map[string]string{"b.yaml": configMap("b", "next")}
	for name, content := range files {
		next[name] = content
	}
	s.want(v1alpha1.Succeeded, "the next good one", next)
}

func TestD03ARoleBindingThatGrantsMoreThanTheIdentityHasIsRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	s.want(v1alpha1.Refused, "escalate", map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": files["app.yaml"], "rb.yaml": `apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: all}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: deployer}]
`})
	unharmed(s, files)
}

func TestD10AnImmutableFieldIsRefusedUnlessRecreationIsAllowed(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	changed := strings.ReplaceAll(strings.Replace(files["app.yaml"], "matchLabels: {app: web}", "matchLabels: {app: web, tier: x}", 1), "labels: {app: web}", "labels: {app: web, tier: x}")
	last := s.want(v1alpha1.Refused, "selector", map[string]string{"a.yaml": files["a.yaml"], "app.yaml": changed})
	if all := strings.Join(last.Findings, " "); !strings.Contains(all, "spec.selector") || !strings.Contains(all, "nexus.dev/recreate") {
		t.Errorf("the findings name neither field nor way out: %s", all)
	}
	before, err := s.client.AppsV1().Deployments(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	marked := strings.Replace(changed, "  name: web\n", "  name: web\n  annotations: {nexus.dev/recreate: \"true\"}\n", 1)
	s.want(v1alpha1.Succeeded, "recreate", map[string]string{"a.yaml": files["a.yaml"], "app.yaml": marked})
	after, err := s.client.AppsV1().Deployments(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if after.UID == before.UID {
		t.Error("the Deployment was not made again")
	}
}

func TestD09AStuckFinalizerOnPruneDoesNotHoldTheRelease(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	stuck := strings.Replace(configMap("stuck", "x"), "  name: stuck\n", "  name: stuck\n  finalizers: [never.example/x]\n", 1)
	s.want(v1alpha1.Succeeded, "with a finalizer", map[string]string{"a.yaml": files["a.yaml"], "app.yaml": files["app.yaml"], "stuck.yaml": stuck})
	s.want(v1alpha1.Succeeded, "without it", files)
	cms := s.client.CoreV1().ConfigMaps(s.namespace)
	cm, err := cms.Get(t.Context(), "stuck", metav1.GetOptions{})
	if err != nil || cm.DeletionTimestamp == nil {
		t.Fatalf("it should be on its way out: %v", err)
	}
	unharmed(s, files)
	if _, err := cms.Patch(t.Context(), "stuck", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}

// deny makes an admission policy that denies what the expression says is not allowed, in the stage's namespace.
func (s *stage) deny(expression string) {
	s.t.Helper()
	name := "deny-" + s.namespace
	fail := admissionv1.Fail
	policies := s.client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	_, err := policies.Create(s.t.Context(), &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": s.namespace}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
				}}},
			},
			Validations: []admissionv1.Validation{{Expression: expression, Message: "denied by the test's policy"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	bindings := s.client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	_, err = bindings.Create(s.t.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		ctx, cancel := cleanup()
		defer cancel()
		_ = bindings.Delete(ctx, name, metav1.DeleteOptions{})
		_ = policies.Delete(ctx, name, metav1.DeleteOptions{})
	})
	s.until("the policy to be in force", func() bool {
		_, err := s.client.CoreV1().ConfigMaps(s.namespace).Create(s.t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "probe-of-policy"}, Data: map[string]string{"key": "denied"},
		}, metav1.CreateOptions{})
		if err == nil {
			_ = s.client.CoreV1().ConfigMaps(s.namespace).Delete(s.t.Context(), "probe-of-policy", metav1.DeleteOptions{})
		}
		return err != nil && strings.Contains(err.Error(), "denied by the test's policy")
	})
}

func TestD15APolicyThatDeniesOneObjectRefusesTheWholeCommit(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	s.deny(`!has(object.data) || !has(object.data.key) || object.data.key != 'denied'`)
	bad := map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": files["app.yaml"]}
	for i := range 7 {
		bad[fmt.Sprintf("n%d.yaml", i)] = configMap(fmt.Sprintf("n%d", i), map[bool]string{true: "denied", false: "fine"}[i == 6])
	}
	last := s.want(v1alpha1.Refused, "the seventh is denied", bad)
	if !strings.Contains(strings.Join(last.Findings, " "), "denied by the test's policy") {
		t.Errorf("findings: %v", last.Findings)
	}
	if got := s.value("n0"); got != "absent" {
		t.Errorf("n0 was written")
	}
	unharmed(s, files)
}

func TestD15APolicyThatLetsTheDryRunPassAndDeniesTheWriteIsUndone(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	s.deny(`request.dryRun || !has(object.data) || !has(object.data.key) || object.data.key != 'denied'`)
	s.want(v1alpha1.Reverted, "denied when it counts", map[string]string{
		"a.yaml": configMap("a", "two"), "app.yaml": files["app.yaml"], "n.yaml": configMap("n", "fine"), "z.yaml": configMap("z", "denied"),
	})
	if got := s.value("n"); got != "absent" {
		t.Errorf("n is %s after the undo", got)
	}
	unharmed(s, files)
}

func TestD16AQuotaThatIsReachedInTheMiddleIsUndone(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := good(s)
	have, err := s.client.CoreV1().ConfigMaps(s.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	limit := resource.NewQuantity(int64(len(have.Items)+2), resource.DecimalSI)
	quotas := s.client.CoreV1().ResourceQuotas(s.namespace)
	_, err = quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "few"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/configmaps": *limit}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.until("the quota to be counted", func() bool {
		q, err := quotas.Get(t.Context(), "few", metav1.GetOptions{})
		return err == nil && len(q.Status.Used) > 0
	})
	bad := map[string]string{"a.yaml": configMap("a", "two"), "app.yaml": files["app.yaml"]}
	for i := range 5 {
		bad[fmt.Sprintf("n%d.yaml", i)] = configMap(fmt.Sprintf("n%d", i), "x")
	}
	s.want(v1alpha1.Reverted, "too many", bad)
	for i := range 5 {
		if got := s.value(fmt.Sprintf("n%d", i)); got != "absent" {
			t.Errorf("n%d is there after the undo", i)
		}
	}
	unharmed(s, files)
}

// canary is a secret value that must appear nowhere but in the Secret itself and in the journal's Secrets.
const canary = "CANARY-7f3a-do-not-show"

func leaks(text string) bool {
	for _, form := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary)), url.QueryEscape(canary), hex.EncodeToString([]byte(canary))} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

func secret(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\nstringData:\n  password: %q\n", name, value)
}

func TestE01ASecretsValueIsShownNowhere(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	var log bytes.Buffer
	s.assembly.Log = debugLog(&log)
	s.start()
	s.want(v1alpha1.Succeeded, "with a secret", map[string]string{"s.yaml": secret("s", "before"), "app.yaml": app("web", "1")})
	commit := s.release("changed", map[string]string{"s.yaml": secret("s", canary), "app.yaml": app("web", "1")})
	plan, err := s.run.Plan(t.Context(), commit)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	if leaks(string(shown)) || !strings.Contains(string(shown), "data.password") {
		t.Errorf("the plan shows the value, or not that it changes: %s", shown)
	}
	s.rest()
	// Edited by hand, and refused by the API server: errors like to quote what they refuse.
	_, err = s.client.CoreV1().Secrets(s.namespace).Patch(t.Context(), "s", types.MergePatchType, []byte(`{"stringData":{"password":"`+canary+`-edited"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	if err != nil {
		t.Fatal(err)
	}
	s.settle(reconcile.Ask{}, "the drift to be healed", func(reconcile.Result, error) bool { return len(s.told(reconcile.EventDrift)) > 0 })
	bad := strings.Replace(secret("s", canary), "stringData:\n", "type: kubernetes.io/tls\nstringData:\n", 1)
	s.want(v1alpha1.Refused, "refused", map[string]string{"s.yaml": bad, "app.yaml": app("web", "1")})
	s.want(v1alpha1.Reverted, "undone", map[string]string{"s.yaml": secret("s", canary+"-2"), "app.yaml": app("web", "crashloop", `devcluster/termination-message: "cannot connect: password=`+canary+`"`)})
	events, err := json.Marshal(s.events)
	if err != nil {
		t.Fatal(err)
	}
	if leaks(string(events)) || !strings.Contains(string(events), "cannot connect") {
		t.Errorf("an event shows the value, or nothing of what the container said")
	}
	if leaks(log.String()) {
		t.Errorf("the log shows the value")
	}
	cms, err := s.client.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := json.Marshal(cms); err != nil || leaks(string(all)) {
		t.Errorf("a ConfigMap holds the value (%v)", err)
	}
}
