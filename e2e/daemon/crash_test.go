package daemon

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/failpoint"
)

// crash is one story: where the daemon dies in the middle of a release, and whether that release is any good.
type crash struct {
	point string // as in failpoint.Variable, without the action
	bad   bool
	twice bool // the process that takes over dies there too
}

func crashes() []crash {
	var all []crash
	for _, point := range []string{
		"plan-begin@1", "store-before@2", "swap-before@1", "swap-after@1", "swap-after@2", "phase-begin@4", "barrier@1", "apply-before@4", "apply-after@3",
		"commit-before@1", "commit-after@1", "prune-before@1", "done-before@1", "spare-before@1",
	} {
		all = append(all, crash{point: point})
	}
	for _, point := range []string{"apply-after@2", "abort-before@1", "undo-before@2", "undo-remove@2", "undone-before@1", "spare-before@1"} {
		all = append(all, crash{point: point, bad: true})
	}
	return append(all, crash{point: "apply-after@2", twice: true}, crash{point: "undo-before@1", bad: true, twice: true})
}

// victim is the tenant of one story.
type victim struct {
	*tenant
	crash
	group string // of its own definition
	first string // commit
}

const crashPolicy = quick + "  health: {crashTolerance: 0, firstCrashTolerance: 0}\n"

// before is what is deployed when the story begins.
func (v *victim) before() files {
	return files{"release.yaml": crashPolicy, "a.yaml": configMap("a", "1"), "old.yaml": configMap("old", "1"), "app.yaml": app("web", "1", 1)}
}

// next changes two objects, creates one, prunes one, adopts one, and brings a definition with its instance.
func (v *victim) next() files {
	tag := map[bool]string{true: "crashloop", false: "2"}[v.bad]
	adopted := strings.Replace(configMap("theirs", "theirs"), "  name: theirs\n", "  name: theirs\n  annotations: {nexus.dev/adopt: \"true\"}\n", 1) + "  more: ours\n"
	return files{
		"release.yaml": crashPolicy, "a.yaml": configMap("a", "2"), "new.yaml": configMap("new", "1"), "app.yaml": app("web", tag, 1), "theirs.yaml": adopted,
		"crd.yaml": `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.` + v.group + `}
spec:
  group: ` + v.group + `
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`,
		"widget.yaml": "apiVersion: " + v.group + "/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 1}\n",
	}
}

// deployed is the whole of what the stories are about, as the cluster has it.
func (v *victim) deployed() map[string]string {
	v.t.Helper()
	state := map[string]string{}
	for _, name := range []string{"a", "old", "new"} {
		state[name] = v.value(name)
	}
	theirs, err := v.kube.CoreV1().ConfigMaps(v.ns).Get(v.t.Context(), "theirs", metav1.GetOptions{})
	if err != nil {
		v.t.Fatal(err)
	}
	state["theirs"] = theirs.Data["key"] + theirs.Data["more"]
	web, err := v.kube.AppsV1().Deployments(v.ns).Get(v.t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		v.t.Fatal(err)
	}
	state["web"] = web.Spec.Template.Spec.Containers[0].Image
	widget := &unstructured.Unstructured{}
	widget.SetGroupVersionKind(schema.GroupVersionKind{Group: v.group, Version: "v1", Kind: "Widget"})
	switch err := v.client.Get(v.t.Context(), client.ObjectKey{Namespace: v.ns, Name: "w"}, widget); {
	case err == nil && widget.GetDeletionTimestamp() == nil:
		state["widget"] = "there"
	case err == nil, apierrors.IsNotFound(err), strings.Contains(err.Error(), "no matches for kind"):
		state["widget"] = "absent"
	default:
		v.t.Fatal(err)
	}
	return state
}

func (v *victim) want() map[string]string {
	if v.bad {
		return map[string]string{"a": "1", "old": "1", "new": "absent", "theirs": "theirs", "web": "example/app:1", "widget": "absent"}
	}
	return map[string]string{"a": "2", "old": "absent", "new": "1", "theirs": "theirsours", "web": "example/app:2", "widget": "there"}
}

// revisions are the resource versions of what nobody but a release writes.
func (v *victim) revisions() map[string]string {
	v.t.Helper()
	cms, err := v.kube.CoreV1().ConfigMaps(v.ns).List(v.t.Context(), metav1.ListOptions{})
	if err != nil {
		v.t.Fatal(err)
	}
	found := map[string]string{}
	for _, cm := range cms.Items {
		found[cm.Name] = cm.ResourceVersion
	}
	return found
}

// newVictim makes a tenant whose identity may also define kinds.
func newVictim(t *testing.T, s *site, c crash) *victim {
	t.Helper()
	v := &victim{tenant: newTenant(t, s), crash: c}
	v.group = v.ns + ".example.com"
	v.make(
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: v.ns}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: v.ns}},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "theirs", Namespace: v.ns}, Data: map[string]string{"key": "theirs"}},
	)
	v.first = v.push("before", v.before())
	v.follow(func(env *v1alpha1.Environment) { env.Spec.Scope.ClusterKinds = []string{"CustomResourceDefinition"} })
	return v
}

// TestACrashAtEveryStepLeavesTheOldOrTheNew kills the daemon at every boundary of the protocol, in a good release and in a bad one.
func TestACrashAtEveryStepLeavesTheOldOrTheNew(t *testing.T) {
	s := own(t)
	deadly := filepath.Join(t.TempDir(), "reconciler")
	if out, err := exec.Command("go", "build", "-tags", "failpoints", "-o", deadly, "../../cmd/reconciler").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	kubeconfig := s.daemonKubeconfig(t)
	args := []string{"--leader-elect=false"} // there is one at a time, and nobody waits for its Lease
	first := s.spawnBinary(t, deadly, nil, kubeconfig, args...)
	stories := crashes()
	victims := make([]*victim, 0, len(stories))
	for _, c := range stories {
		victims = append(victims, newVictim(t, s, c))
	}
	for _, v := range victims {
		v.rest(v.first)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	reached := map[string]bool{}
	for _, v := range victims {
		name := fmt.Sprintf("%s bad=%t twice=%t", v.point, v.bad, v.twice)
		t.Run(name, func(t *testing.T) {
			v.t = t
			commit := v.push("next", v.next())
			point, at, _ := strings.Cut(v.point, "@")
			plan := []string{failpoint.Variable + "=" + point + "=kill@" + at}
			for range map[bool]int{true: 2, false: 1}[v.twice] {
				d := s.spawnBinary(t, deadly, plan, kubeconfig, args...)
				until(t, "the daemon to die at "+v.point, d.ended, v.state, func() string { return d.tail(15) })
				if !d.killed() {
					t.Fatalf("the daemon ended otherwise: %v\n%s", d.err, d.tail(20))
				}
			}
			reached[point] = true

			after := s.spawnBinary(t, deadly, nil, kubeconfig, args...)
			defer func() {
				if err := after.stop(); err != nil {
					t.Error(err)
				}
				if t.Failed() {
					t.Logf("end of the daemon's log:\n%s", after.tail(40))
				}
			}()
			if v.bad {
				v.outcome(commit, v1alpha1.Reverted)
			} else {
				v.outcome(commit, v1alpha1.Succeeded)
				v.rest(commit)
			}
			until(t, fmt.Sprintf("the cluster to be %v", v.want()), func() bool { return maps.Equal(v.deployed(), v.want()) },
				func() string { return fmt.Sprint(v.deployed()) }, v.state)
			ended := 0
			for _, r := range v.releases() {
				if r.Status.Outcome == "" {
					t.Errorf("%s is still shown as open", r.Name)
				}
				if r.Spec.Commit == commit {
					ended++
				}
			}
			if ended != 1 {
				t.Errorf("the commit has %d releases; want one, taken over", ended)
			}
			quiet := v.revisions()
			passes := after.passesOf(v.ns)
			until(t, "more passes", func() bool { return after.passesOf(v.ns) >= passes+2 })
			if now := v.revisions(); !maps.Equal(now, quiet) {
				t.Errorf("something is written again and again: %v, then %v", quiet, now)
			}
			goes := v.before()
			goes["a.yaml"] = configMap("a", "3")
			v.release("goes on", goes, v1alpha1.Succeeded)
		})
	}
	for _, name := range failpoint.All {
		if !reached[string(name)] {
			t.Errorf("no story dies at %s", name)
		}
	}
}
