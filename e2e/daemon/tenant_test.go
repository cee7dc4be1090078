package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/gitserver"
	"github.com/nexus-platform/reconciler/object"
)

const (
	envName = "web"
	folder  = "overlays/web"
	account = "deployer"
)

// tenant is a namespace with an identity, a repository, and one environment.
type tenant struct {
	*site
	t    testing.TB
	ns   string
	git  *gitserver.Server
	repo *gitserver.Repo
	uid  string
}

// newTenant makes namespace, identity and repository.
func newTenant(t testing.TB, s *site) *tenant {
	t.Helper()
	tn := &tenant{site: s, t: t, git: gitserver.Start(t)}
	tn.repo = tn.git.Init("config")
	tn.ns = tn.namespace()
	return tn
}

// namespace makes a namespace with the service account that an environment deploys as, and the rights that
// manifests/environment describes.
func (tn *tenant) namespace() string {
	tn.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "tenant-"}}
	tn.make(ns)
	tn.t.Cleanup(func() { // the test's own context has ended by now
		err := tn.kube.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{})
		if client.IgnoreNotFound(err) != nil {
			tn.t.Errorf("delete namespace %s: %v", ns.Name, err)
		}
	})
	at := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: ns.Name} }
	daemon := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "nexus-reconciler", Namespace: systemNamespace}}
	deployer := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: ns.Name}}
	tn.make(
		&corev1.ServiceAccount{ObjectMeta: at(account)},
		&rbacv1.RoleBinding{ObjectMeta: at(account), Subjects: deployer, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"}},
		&rbacv1.Role{ObjectMeta: at("nexus-reconciler"), Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, ResourceNames: []string{account}, Verbs: []string{"impersonate", "get"}},
			{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"git-credentials", "target"}, Verbs: []string{"get"}},
		}},
		&rbacv1.RoleBinding{ObjectMeta: at("nexus-reconciler"), Subjects: daemon, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "nexus-reconciler"}},
	)
	return ns.Name
}

func (tn *tenant) make(objects ...client.Object) {
	tn.t.Helper()
	for _, obj := range objects {
		if err := tn.client.Create(tn.t.Context(), obj); err != nil {
			tn.t.Fatalf("create %T %s: %v", obj, obj.GetName(), err)
		}
	}
}

// environment is the Environment as follow makes it.
func (tn *tenant) environment() *v1alpha1.Environment {
	return &v1alpha1.Environment{
		ObjectMeta: metav1.ObjectMeta{Name: envName, Namespace: tn.ns},
		Spec: v1alpha1.EnvironmentSpec{
			Source: v1alpha1.Source{URL: "file://" + tn.git.Dir("config"), Branch: "main"}, Path: folder,
			Interval: &metav1.Duration{Duration: time.Second}, ServiceAccountName: account,
		},
	}
}

// follow makes the Environment: from now on the daemon follows the branch.
func (tn *tenant) follow(change ...func(*v1alpha1.Environment)) {
	tn.t.Helper()
	env := tn.environment()
	for _, c := range change {
		c(env)
	}
	tn.make(env)
	tn.uid = string(env.UID)
}

// byHand makes an environment look at its branch when somebody asks, and not by itself.
func byHand(env *v1alpha1.Environment) { env.Spec.Interval = &metav1.Duration{Duration: time.Hour} }

const quick = `apiVersion: nexus.dev/v1alpha1
kind: ReleasePolicy
spec:
  settle: 0s
  bake: 0s
`

type files map[string]string

// push commits an overlay that is made of these files and no others, and returns the commit.
func (tn *tenant) push(message string, f files) string {
	tn.t.Helper()
	tn.repo.Git("rm", "-r", "-q", "--ignore-unmatch", folder)
	tn.overlay(folder, tn.ns, f)
	hash := tn.repo.Commit(message)
	tn.repo.Push()
	return hash
}

// overlay writes the files and a kustomization that names them.
func (tn *tenant) overlay(dir, namespace string, f files) {
	tn.t.Helper()
	names := []string{}
	for name, content := range f {
		tn.repo.Write(dir+"/"+name, content)
		if name != "release.yaml" && name != "kustomization.yaml" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if f["release.yaml"] == "" {
		tn.repo.Write(dir+"/release.yaml", quick)
	}
	if f["kustomization.yaml"] == "" {
		tn.repo.Write(dir+"/kustomization.yaml", fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: %s\nresources: [%s]\n", namespace, strings.Join(names, ", ")))
	}
}

// env reads the Environment.
func (tn *tenant) env() *v1alpha1.Environment {
	tn.t.Helper()
	env := &v1alpha1.Environment{}
	if err := tn.client.Get(tn.t.Context(), client.ObjectKey{Namespace: tn.ns, Name: envName}, env); err != nil {
		tn.t.Fatal(err)
	}
	return env
}

// ready is the condition Ready as "Status Reason: message".
func ready(env *v1alpha1.Environment) string { return condition(env, v1alpha1.ConditionReady) }

func condition(env *v1alpha1.Environment, kind string) string {
	c := meta.FindStatusCondition(env.Status.Conditions, kind)
	if c == nil {
		return "absent"
	}
	return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
}

// releases are the Release resources of the tenant's environment, in the order in which they were made.
func (tn *tenant) releases() []v1alpha1.Release {
	tn.t.Helper()
	var list v1alpha1.ReleaseList
	err := tn.client.List(tn.t.Context(), &list, client.InNamespace(tn.ns), client.MatchingLabels{object.Domain + "environment-name": envName})
	if err != nil {
		tn.t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.Release) int {
		if d := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); d != 0 {
			return d
		}
		return int(a.Spec.Number - b.Spec.Number)
	})
	return list.Items
}

// outcome waits until the newest release of a commit has ended, and checks how.
func (tn *tenant) outcome(commit string, want v1alpha1.Outcome) *v1alpha1.Release {
	tn.t.Helper()
	var found *v1alpha1.Release
	until(tn.t, fmt.Sprintf("a release of %.10s to end", commit), func() bool {
		for _, r := range slices.Backward(tn.releases()) {
			if r.Spec.Commit == commit && r.Status.Outcome != "" {
				found = &r
				return true
			}
		}
		return false
	}, tn.state)
	if found.Status.Outcome != want {
		tn.t.Fatalf("%s ended as %s, want %s: %s %v", found.Name, found.Status.Outcome, want, found.Status.Message, found.Status.Findings)
	}
	return found
}

// state is for messages about what did not come.
func (tn *tenant) state() string {
	env := tn.env()
	text := fmt.Sprintf("%s/%s is %s, %s", tn.ns, envName, env.Status.State, ready(env))
	for _, r := range tn.releases() {
		text += fmt.Sprintf("\n\t%s of %.10s: %s in %s, waits for %v: %s", r.Name, r.Spec.Commit, r.Status.Outcome, r.Status.Phase, r.Status.Waiting, r.Status.Message)
	}
	return text
}

// release pushes and waits for the outcome.
func (tn *tenant) release(message string, f files, want v1alpha1.Outcome) string {
	tn.t.Helper()
	commit := tn.push(message, f)
	tn.outcome(commit, want)
	return commit
}

// rest waits until the environment says that it is ready on a commit.
func (tn *tenant) rest(commit string) {
	tn.t.Helper()
	until(tn.t, fmt.Sprintf("the environment to be ready on %.10s", commit), func() bool {
		env := tn.env()
		return env.Status.Commit == commit && env.Status.State == v1alpha1.StateIdle && meta.IsStatusConditionTrue(env.Status.Conditions, v1alpha1.ConditionReady)
	}, tn.state)
}

// value is the datum of a ConfigMap, or "absent".
func (tn *tenant) value(name string) string {
	tn.t.Helper()
	cm, err := tn.kube.CoreV1().ConfigMaps(tn.ns).Get(tn.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "absent"
	}
	if err != nil {
		tn.t.Fatal(err)
	}
	return cm.Data["key"]
}

// events are those about the Environment with one reason, each repetition counted.
func (tn *tenant) events(reason string) (notes []string) {
	tn.t.Helper()
	var list eventsv1.EventList
	if err := tn.client.List(tn.t.Context(), &list, client.InNamespace(tn.ns)); err != nil {
		tn.t.Fatal(err)
	}
	for _, e := range list.Items {
		if e.Reason != reason || e.Regarding.Name != envName {
			continue
		}
		n := 1
		if e.Series != nil {
			n = int(e.Series.Count)
		}
		for range n {
			notes = append(notes, e.Note)
		}
	}
	return notes
}

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  key: %q\n", name, value)
}

// app is a Deployment whose pods behave as the tag of their image says.
func app(name, tag string, replicas int, annotations ...string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata:
      labels: {app: %[1]s}
      annotations: {%[4]s}
    spec:
      containers:
        - name: app
          image: example/app:%[2]s
`, name, tag, replicas, strings.Join(annotations, ", "))
}
