package daemon

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
)

// overHTTP makes the environment use the tenant's Git server instead of its folder.
func overHTTP(tn *tenant, secret string) func(*v1alpha1.Environment) {
	return func(env *v1alpha1.Environment) {
		env.Spec.Source.URL = tn.git.URL("config")
		if secret != "" {
			env.Spec.Source.SecretRef = &v1alpha1.SecretReference{Name: secret}
		}
	}
}

// says waits until the condition Ready has a reason.
func (tn *tenant) says(reason string, words ...string) {
	tn.t.Helper()
	until(tn.t, "Ready to say "+reason, func() bool {
		c := meta.FindStatusCondition(tn.env().Status.Conditions, v1alpha1.ConditionReady)
		return c != nil && c.Reason == reason && contains(c.Message, words...)
	}, tn.state)
}

func TestAGitServerThatFailsIsOneConditionAndOneEventAndNeedsNoRestart(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	faults := map[string]int{"away": http.StatusServiceUnavailable, "unauthorized": http.StatusUnauthorized, "forbidden": http.StatusForbidden, "unknown": http.StatusNotFound, "limited": http.StatusTooManyRequests}
	f := files{}
	for name := range faults { // one each: an object that drifts again and again is left alone
		f[name+".yaml"] = configMap(name, "1")
	}
	first := tn.push("one", f)
	tn.follow(overHTTP(tn, ""))
	tn.rest(first)
	for name, status := range faults {
		t.Run(name, func(t *testing.T) {
			tn := *tn
			tn.t = t
			tn.git.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(status)
				return true
			})
			before, asked := len(tn.events("SourceUnavailable")), tn.git.Requests()
			tn.says("SourceUnavailable")
			// What is deployed is looked after all the same.
			tn.kubectl("patch", "configmap/"+name, "--type=merge", `-p={"data":{"key":"hand"}}`)
			until(t, "the drift to be healed", func() bool { return tn.value(name) == "1" }, tn.state)
			until(t, "a second try", func() bool { return tn.git.Requests() > asked+1 })
			if n := len(tn.events("SourceUnavailable")) - before; n > 1 {
				t.Errorf("%d events for one fault", n)
			}
			tn.git.Fault(nil)
			tn.rest(first)
			if n := len(tn.releases()); n != 1 {
				t.Errorf("there are %d releases", n)
			}
		})
	}
	t.Run("it does not answer", func(t *testing.T) {
		tn := *tn
		tn.t = t
		over := make(chan struct{})
		tn.git.Fault(func(_ http.ResponseWriter, r *http.Request) bool {
			select {
			case <-over:
			case <-r.Context().Done():
			}
			return true
		})
		other := newTenant(t, tn.site)
		commit := other.push("meanwhile", files{"b.yaml": configMap("b", "1")})
		other.follow()
		other.rest(commit) // others do not wait
		tn.kubectl("patch", "configmap/away", "--type=merge", `-p={"data":{"key":"hand"}}`)
		until(t, "the drift to be healed", func() bool { return tn.value("away") == "1" }, tn.state)
		close(over)
		tn.git.Fault(nil)
		f["more.yaml"] = configMap("more", "2")
		next := tn.push("two", f)
		tn.outcome(next, v1alpha1.Succeeded)
	})
}

func TestATokenThatIsReplacedIsUsed(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	tn.git.RequireLogin("robot", "right-password")
	commit := tn.push("one", files{"a.yaml": configMap("a", "1")})
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "git-credentials", Namespace: tn.ns}, StringData: map[string]string{"username": "robot", "password": "wrong-password"}}
	tn.make(secret)
	tn.follow(overHTTP(tn, "git-credentials"))
	tn.says("SourceUnavailable")
	if text := tn.state() + fmt.Sprint(tn.events("SourceUnavailable")); strings.Contains(text, "wrong-password") {
		t.Errorf("the password is shown: %s", text)
	}
	secret.StringData = map[string]string{"password": "right-password"}
	if err := tn.client.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	tn.rest(commit)
}

func TestWhatIsMissingIsNamedAndPickedUpWhenItComes(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	commit := tn.push("one", files{"a.yaml": configMap("a", "1")})
	accounts := tn.kube.CoreV1().ServiceAccounts(tn.ns)
	if err := accounts.Delete(t.Context(), account, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	tn.follow(overHTTP(tn, "git-credentials"))
	until(t, "the missing Secret to be named", func() bool { return contains(ready(tn.env()), "git-credentials") }, tn.state)
	tn.make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "git-credentials", Namespace: tn.ns}, StringData: map[string]string{"token": "x"}})
	until(t, "the missing service account to be named", func() bool { return contains(ready(tn.env()), account) }, tn.state)
	if notes := tn.events("Misconfigured"); len(notes) > 4 {
		t.Errorf("%d events: %q", len(notes), notes)
	}
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tn.rest(commit)
}

func TestADeletedBranchAndAVanishedPathPruneNothing(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	first := tn.push("one", files{"a.yaml": configMap("a", "1")})
	tn.follow()
	tn.rest(first)
	tn.repo.Git("push", "-q", "origin", ":refs/heads/main")
	tn.says("SourceUnavailable", "main")
	if got := tn.value("a"); got != "1" {
		t.Errorf("a is %s", got)
	}
	tn.repo.Git("push", "-q", "origin", "main")
	tn.rest(first)
	tn.repo.Git("rm", "-r", "-q", folder)
	tn.repo.Write("README", "nothing here")
	gone := tn.repo.Commit("the path is gone")
	tn.repo.Push()
	if r := tn.outcome(gone, v1alpha1.Refused); !contains(r.Status.Message, folder) {
		t.Errorf("refused: %s", r.Status.Message)
	}
	if got := tn.value("a"); got != "1" {
		t.Errorf("a is %s", got)
	}
	tn.release("back", files{"a.yaml": configMap("a", "2")}, v1alpha1.Succeeded)
}

// deleted deletes the Environment and waits until it is gone.
func (tn *tenant) deleted() {
	tn.t.Helper()
	if err := tn.client.Delete(tn.t.Context(), tn.env()); err != nil {
		tn.t.Fatal(err)
	}
	until(tn.t, "the environment to be gone", func() bool {
		err := tn.client.Get(tn.t.Context(), client.ObjectKey{Namespace: tn.ns, Name: envName}, &v1alpha1.Environment{})
		return apierrors.IsNotFound(err)
	})
	secrets, err := tn.kube.CoreV1().Secrets(systemNamespace).List(tn.t.Context(), metav1.ListOptions{})
	if err != nil {
		tn.t.Fatal(err)
	}
	for _, s := range secrets.Items {
		if strings.Contains(s.Name, tn.uid) {
			tn.t.Errorf("the journal still has %s", s.Name)
		}
	}
}

func TestADeletedEnvironmentLeavesItsObjectsOrTakesThemAway(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ prune, left string }{{"orphan", "1"}, {"onDelete", "absent"}} {
		t.Run(tt.prune, func(t *testing.T) {
			t.Parallel()
			tn := newTenant(t, shared(t))
			commit := tn.push("one", files{"a.yaml": configMap("a", "1"), "b.yaml": configMap("b", "1"), "app.yaml": app("web", "1", 1)})
			tn.follow(func(env *v1alpha1.Environment) { env.Spec.Prune = tt.prune })
			tn.rest(commit)
			tn.deleted()
			for _, name := range []string{"a", "b"} {
				if got := tn.value(name); got != tt.left {
					t.Errorf("%s is %s, want %s", name, got, tt.left)
				}
			}
		})
	}
	t.Run("in the middle of a release", func(t *testing.T) {
		t.Parallel()
		tn := newTenant(t, shared(t))
		tn.push("hangs", files{"a.yaml": configMap("a", "1"), "app.yaml": app("web", "never-ready", 1)})
		tn.follow(func(env *v1alpha1.Environment) { env.Spec.Prune = "onDelete" })
		until(t, "the release to wait", func() bool { return len(tn.env().Status.Waiting) > 0 }, tn.state)
		tn.deleted()
		if got := tn.value("a"); got != "absent" {
			t.Errorf("a is %s", got)
		}
	})
	t.Run("without its account", func(t *testing.T) {
		t.Parallel()
		tn := newTenant(t, shared(t))
		commit := tn.push("one", files{"a.yaml": configMap("a", "1")})
		tn.follow(func(env *v1alpha1.Environment) { env.Spec.Prune = "onDelete" })
		tn.rest(commit)
		if err := tn.kube.CoreV1().ServiceAccounts(tn.ns).Delete(t.Context(), account, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		tn.deleted()
		if got := tn.value("a"); got != "1" {
			t.Errorf("a is %s", got)
		}
	})
	t.Run("with its namespace", func(t *testing.T) {
		t.Parallel()
		tn := newTenant(t, shared(t))
		commit := tn.push("one", files{"a.yaml": configMap("a", "1")})
		tn.follow(func(env *v1alpha1.Environment) { env.Spec.Prune = "onDelete" })
		tn.rest(commit)
		if err := tn.kube.CoreV1().Namespaces().Delete(t.Context(), tn.ns, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		until(t, "the namespace to go", func() bool {
			_, err := tn.kube.CoreV1().Namespaces().Get(t.Context(), tn.ns, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})
}

func TestTwentyEnvironmentsThatHangDoNotHoldTwoWorkers(t *testing.T) {
	s := own(t)
	d := s.daemon(t, s.daemonKubeconfig(t), "--workers", "2")
	hang := newTenant(t, s)
	var hanging []*tenant
	for range 20 {
		tn := &tenant{site: s, t: t, git: hang.git, repo: hang.repo, ns: hang.namespace()}
		hang.overlay("overlays/"+tn.ns, tn.ns, files{"app.yaml": app("web", "never-ready", 1)})
		hanging = append(hanging, tn)
	}
	commit := hang.repo.Commit("all hang")
	hang.repo.Push()
	for _, tn := range hanging {
		tn.follow(func(env *v1alpha1.Environment) { env.Spec.Path = "overlays/" + tn.ns })
	}
	for _, tn := range hanging {
		until(t, "all to hang", func() bool { return len(tn.env().Status.Waiting) > 0 }, tn.state, func() string { return d.tail(20) })
	}
	fine := newTenant(t, s)
	good := fine.push("fine", files{"a.yaml": configMap("a", "1")})
	fine.follow()
	fine.rest(good)
	if n := len(hanging[0].releases()); n != 1 || hanging[0].releases()[0].Spec.Commit != commit {
		t.Errorf("%d releases of one that hangs", n)
	}
}

func TestSIGTERMInTheMiddleOfAReleaseEndsInTimeAndTheNextProcessGoesOn(t *testing.T) {
	s := own(t)
	tn := newTenant(t, s)
	kubeconfig := s.daemonKubeconfig(t)
	first := s.spawn(t, kubeconfig)
	standby := s.spawn(t, kubeconfig)
	one := tn.push("one", files{"a.yaml": configMap("a", "1"), "app.yaml": app("web", "1", 1)})
	tn.follow()
	tn.rest(one)
	leader, other := first, standby
	if standby.passes() > 0 {
		leader, other = standby, first
	}
	if leader.passes() == 0 || other.passes() > 0 {
		t.Fatalf("of two daemons %d and %d passes were made: one should act", first.passes(), standby.passes())
	}
	two := tn.push("slow", files{"a.yaml": configMap("a", "2"), "app.yaml": app("web", "2", 1, "devcluster/ready-after: 4s")})
	until(t, "the release to wait", func() bool { return len(tn.env().Status.Waiting) > 0 }, tn.state)
	began := time.Now()
	if err := leader.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	tn.outcome(two, v1alpha1.Succeeded) // by the other one
	if n := len(tn.releases()); n != 2 {
		t.Errorf("there are %d releases", n)
	}

	three := tn.push("slow too", files{"a.yaml": configMap("a", "3"), "app.yaml": app("web", "3", 1, "devcluster/ready-after: 4s")})
	until(t, "the release to wait", func() bool {
		return len(tn.env().Status.Waiting) > 0 && tn.env().Status.State == v1alpha1.StateReleasing
	}, tn.state)
	other.kill(t)
	last := s.daemon(t, kubeconfig)
	tn.outcome(three, v1alpha1.Succeeded)
	tn.rest(three)
	if got := tn.value("a"); got != "3" {
		t.Errorf("a is %s\n%s", got, last.tail(20))
	}
}

func TestAFolderThatCannotBeWrittenIsToldAndNeedsNoRestart(t *testing.T) {
	s := own(t)
	tn := newTenant(t, s)
	commit := tn.push("one", files{"a.yaml": configMap("a", "1")})
	cache := s.dir + "/cache"
	if err := os.WriteFile(cache, []byte("in the way"), 0o600); err != nil { // no folder can be made there; unlike a right, that stops root too
		t.Fatal(err)
	}
	s.daemon(t, s.daemonKubeconfig(t))
	tn.follow()
	until(t, "the fault to be told", func() bool { return contains(ready(tn.env()), "False", "cache") }, tn.state)
	if err := os.Remove(cache); err != nil {
		t.Fatal(err)
	}
	tn.rest(commit)
}

// canary is a secret value that must appear nowhere but in Secrets.
const canary = "CANARY-51c9-do-not-show"

func TestSecretValuesReachNeitherLogsNorResourcesNorEvents(t *testing.T) {
	s := own(t)
	tn := newTenant(t, s)
	tn.git.RequireLogin("robot", canary+"-token")
	tn.make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "git-credentials", Namespace: tn.ns}, StringData: map[string]string{"username": "robot", "password": canary + "-token"}})
	secret := func(value, kind string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n" + kind + "stringData: {password: \"" + value + "\"}\n"
	}
	d := s.daemon(t, s.daemonKubeconfig(t))
	first := tn.push("one", files{"s.yaml": secret("before", ""), "app.yaml": app("web", "1", 1)})
	tn.follow(overHTTP(tn, "git-credentials"))
	tn.rest(first)
	said := tn.verb(0, nil, "status", envName).out
	tn.push("two", files{"s.yaml": secret(canary, ""), "app.yaml": app("web", "2", 1)})
	said += tn.cli(t, tn.ns, "plan", envName, "-o", "json").out + tn.cli(t, tn.ns, "plan", envName).out
	tn.release("undone", files{"s.yaml": secret(canary+"-2", ""), "app.yaml": app("web", "crashloop", 1)}, v1alpha1.Reverted)
	tn.release("refused", files{"s.yaml": secret(canary, "type: kubernetes.io/tls\n"), "app.yaml": app("web", "1", 1)}, v1alpha1.Refused)
	tn.kubectl("patch", "secret/s", "--type=merge", `-p={"stringData":{"password":"`+canary+`-hand"}}`)
	tn.drift("Secret/"+tn.ns+"/s", func(v1alpha1.Drift) bool { return true })
	for _, verb := range [][]string{{"explain", envName}, {"drift", envName, "-o", "yaml"}, {"history", envName, "-o", "json"}} {
		r := tn.cli(t, tn.ns, verb...)
		said += r.out + r.err
	}
	places := map[string]string{"the daemon's log": d.tail(1 << 20), "what the command line says": said}
	for name, list := range map[string]client.ObjectList{
		"a ConfigMap": &corev1.ConfigMapList{}, "an event": &corev1.EventList{}, "a Release": &v1alpha1.ReleaseList{}, "the Environment": &v1alpha1.EnvironmentList{},
	} {
		if err := tn.client.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		places[name] = string(b)
	}
	for place, text := range places {
		if strings.Contains(text, canary) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(canary))) {
			t.Errorf("%s shows a secret value", place)
		}
		if text == "" {
			t.Errorf("%s is empty", place)
		}
	}
}
