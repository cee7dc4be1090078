package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
)

// verb runs a verb for the tenant and checks its exit code and what it says.
func (tn *tenant) verb(code int, says []string, args ...string) result {
	tn.t.Helper()
	r := tn.cli(tn.t, tn.ns, args...)
	if r.code != code || !contains(r.out+r.err, says...) {
		tn.t.Fatalf("%v: exit code %d, want %d with %q\n%s%s\n%s", args, r.code, code, says, r.out, r.err, tn.state())
	}
	return r
}

// fingerprint is what every ConfigMap and Deployment of the tenant is now: name, UID, resource version where nothing but a release moves it.
func (tn *tenant) fingerprint() map[string]string {
	tn.t.Helper()
	found := map[string]string{}
	cms, err := tn.kube.CoreV1().ConfigMaps(tn.ns).List(tn.t.Context(), metav1.ListOptions{})
	if err != nil {
		tn.t.Fatal(err)
	}
	for _, cm := range cms.Items {
		if cm.Name != "kube-root-ca.crt" {
			found["ConfigMap/"+cm.Name] = string(cm.UID) + "/" + cm.ResourceVersion
		}
	}
	apps, err := tn.kube.AppsV1().Deployments(tn.ns).List(tn.t.Context(), metav1.ListOptions{})
	if err != nil {
		tn.t.Fatal(err)
	}
	for _, d := range apps.Items {
		found["Deployment/"+d.Name] = fmt.Sprint(d.UID, "/", d.Generation)
	}
	return found
}

// changes is what became of each object between two fingerprints, in the words of a plan.
func changes(before, after map[string]string) map[string]string {
	did := map[string]string{}
	for name, now := range after {
		switch was, there := before[name]; {
		case !there:
			did[name] = "create"
		case was != now:
			did[name] = "change"
		}
	}
	for name := range before {
		if after[name] == "" {
			did[name] = "prune"
		}
	}
	return did
}

// me is who the command line says that asks.
func me(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

// planned is what plan -o json says.
func (tn *tenant) planned(code int) map[string]string {
	tn.t.Helper()
	r := tn.verb(code, nil, "plan", envName, "-o", "json")
	var plan struct {
		Actions []struct {
			Do  string `json:"do"`
			Ref struct{ Kind, Name string }
		}
	}
	if err := json.Unmarshal([]byte(r.out), &plan); err != nil {
		tn.t.Fatalf("%v in\n%s", err, r.out)
	}
	did := map[string]string{}
	for _, a := range plan.Actions {
		did[a.Ref.Kind+"/"+a.Ref.Name] = a.Do
	}
	return did
}

func TestApplyDoesWhatThePlanSaysAndThenThePlanSaysNoChanges(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	first := tn.push("first", files{"a.yaml": configMap("a", "1"), "b.yaml": configMap("b", "1"), "c.yaml": configMap("c", "1"), "app.yaml": app("web", "1", 1)})
	tn.follow(byHand)
	tn.rest(first)
	tn.verb(0, []string{"No changes: 4 objects"}, "plan", envName)

	second := tn.push("second", files{"a.yaml": configMap("a", "2"), "b.yaml": configMap("b", "1"), "d.yaml": configMap("d", "1"), "app.yaml": app("web", "2", 1)})
	before := tn.fingerprint()
	tn.verb(1, []string{"~ change   ConfigMap/" + tn.ns + "/a", "data.key", "1 -> 2", "+ create", "- prune", "pods are replaced", "1 to create, 2 to change, 1 to prune, 1 unchanged"}, "plan", envName)
	tn.verb(1, []string{"~ change"}, "plan", envName, "--commit", second)
	tn.verb(0, []string{"~ change"}, "apply", envName, "--dry-run")
	want := tn.planned(1)
	if len(want) != 4 {
		t.Fatalf("the plan is %v", want)
	}
	if did := changes(before, tn.fingerprint()); len(did) != 0 {
		t.Fatalf("planning changed %v", did)
	}
	tn.verb(0, []string{"release 2 of " + second[:10], "application", "Succeeded"}, "apply", envName)
	if did := changes(before, tn.fingerprint()); fmt.Sprint(did) != fmt.Sprint(want) {
		t.Errorf("apply did %v, and the plan said %v", did, want)
	}
	tn.verb(0, []string{"No changes: 4 objects"}, "plan", envName)
	tn.verb(0, nil, "apply", envName)
	if n := len(tn.releases()); n != 2 {
		t.Errorf("an apply with nothing to do made a release: there are %d", n)
	}
}

func TestTheExitCodesSayHowAReleaseEnded(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	bad := tn.push("cannot start", files{"app.yaml": app("web", "image-pull", 1)})
	tn.follow(byHand)
	tn.outcome(bad, v1alpha1.Halted)
	tn.verb(5, []string{"Halted", "ImagePull"}, "apply", envName)

	good := tn.push("mended", files{"app.yaml": app("web", "1", 1), "a.yaml": configMap("a", "1")})
	tn.verb(0, []string{"Succeeded"}, "apply", envName)
	tn.rest(good)

	crash := tn.push("crashes", files{"app.yaml": app("web", "crashloop", 1), "a.yaml": configMap("a", "2")})
	tn.verb(3, []string{"Reverted", "CrashLoopBackOff", "pod web-"}, "apply", envName)
	if got := tn.value("a"); got != "1" {
		t.Errorf("a is %s after the undo", got)
	}
	tn.verb(0, []string{"Reverted", crash[:10], "Succeeded", good[:10]}, "history", envName)
	tn.verb(0, []string{"Reverted", "CrashLoopBackOff", "simulated: exit status 1"}, "explain", envName)

	typo := tn.push("typing error", files{"app.yaml": strings.Replace(app("web", "2", 1), "replicas:", "replicaz:", 1), "a.yaml": configMap("a", "2")})
	tn.verb(4, []string{"Refused", "replicaz"}, "apply", envName)
	tn.verb(2, []string{"Refused", "replicaz", "nothing would be written"}, "plan", envName)
	tn.verb(4, []string{"Refused", "replicaz"}, "apply", envName, "--dry-run")
	tn.verb(0, []string{"Refused", typo[:10]}, "history", envName)
	tn.verb(2, []string{"commit"}, "plan", envName, "--commit", "main")
	tn.verb(1, []string{"not found"}, "apply", "nobody")
	tn.verb(2, []string{"not found"}, "plan", "nobody")
	tn.verb(1, []string{"unknown flag"}, "status", "--nonsense")
}

func TestAPersonGoesBackAndForth(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	one := tn.push("one", files{"a.yaml": configMap("a", "1")})
	tn.follow()
	tn.rest(one)
	tn.verb(4, []string{"Refused", "there is no previous release"}, "rollback", envName)
	two := tn.release("two", files{"a.yaml": configMap("a", "2")}, v1alpha1.Succeeded)
	tn.rest(two)

	tn.verb(0, []string{"would ask the daemon to rollback"}, "rollback", envName, "--dry-run")
	tn.verb(0, []string{"would ask the daemon to retry"}, "retry", envName, "--dry-run")
	if n := len(tn.releases()); n != 3 {
		t.Errorf("a dry-run made a release: there are %d", n)
	}
	tn.verb(0, []string{"Succeeded"}, "rollback", envName)
	if got := tn.value("a"); got != "1" {
		t.Errorf("after the rollback a is %s", got)
	}
	tn.verb(0, []string{"rollback", one[:10], me(t)}, "history", envName)
	until(t, "the status to tell of the pin", func() bool { return contains(ready(tn.env()), "True", one[:10]) }, tn.state)
	tn.verb(0, nil, "retry", envName)
	until(t, "the branch to be followed again", func() bool { return tn.value("a") == "2" }, tn.state)
	tn.rest(two)

	tn.verb(0, []string{"Succeeded"}, "rollback", envName, "--to", "1")
	if got := tn.value("a"); got != "1" {
		t.Errorf("after the rollback to release 1 a is %s", got)
	}
	tn.verb(1, []string{"release 77"}, "rollback", envName, "--to", "77")
	tn.verb(0, []string{"Succeeded"}, "rollback", envName, "--commit", two)
	tn.verb(4, []string{"Refused"}, "rollback", envName, "--commit", strings.Repeat("0", 40))
	tn.verb(0, nil, "retry", envName)

	tn.verb(0, []string{"would be suspended"}, "suspend", envName, "--dry-run")
	tn.verb(0, []string{"is suspended"}, "suspend", envName)
	tn.verb(0, []string{"suspended already"}, "suspend", envName)
	until(t, "the status to say so", func() bool { return tn.env().Status.State == v1alpha1.StateSuspended }, tn.state)
	three := tn.push("three", files{"a.yaml": configMap("a", "3")})
	until(t, "the tip to be seen", func() bool { return tn.env().Status.Tip == three }, tn.state)
	if got := tn.value("a"); got != "2" {
		t.Errorf("a is %s although the environment is suspended", got)
	}
	tn.verb(0, []string{"is resumed"}, "resume", envName)
	tn.rest(three)
}

func TestEveryVerbThatReadsSpeaksJSONAndYAML(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	commit := tn.push("one", files{"a.yaml": configMap("a", "1")})
	tn.follow()
	tn.rest(commit)
	_, err := tn.kube.CoreV1().ConfigMaps(tn.ns).Patch(t.Context(), "a", types.MergePatchType, []byte(`{"data":{"key":"hand"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the drift to be recorded", func() bool { return len(tn.env().Status.Drift) > 0 }, tn.state)
	for _, verb := range [][]string{{"status"}, {"status", envName}, {"history", envName}, {"explain", envName}, {"explain", envName, "1"}, {"drift", envName}, {"plan", envName}} {
		table := tn.verb(0, nil, append(verb, "-o", "table")...)
		if strings.Contains(table.out, "\x1b") || table.out == "" {
			t.Errorf("%v into a pipe: %q", verb, table.out)
		}
		tn.verb(0, nil, append(verb, "-o", "wide")...)
		var fromJSON, fromYAML any
		if err := json.Unmarshal([]byte(tn.verb(0, nil, append(verb, "-o", "json")...).out), &fromJSON); err != nil {
			t.Errorf("%v -o json: %v", verb, err)
		}
		if err := yaml.Unmarshal([]byte(tn.verb(0, nil, append(verb, "-o", "yaml")...).out), &fromYAML); err != nil {
			t.Errorf("%v -o yaml: %v", verb, err)
		}
		tn.verb(map[bool]int{true: 2, false: 1}[verb[0] == "plan"], []string{"unknown output format"}, append(verb, "-o", "xml")...)
	}
	if got := tn.verb(0, []string{"kubectl-edit", "edited", "healed"}, "drift", envName, "-o", "json"); strings.Contains(got.out, "null") {
		t.Errorf("drift: %s", got.out)
	}
	tn.verb(0, []string{tn.ns, envName}, "status", "--all-namespaces")
	r := tn.cli(t, "default", "status", "-o", "json")
	if r.code != 0 || !strings.Contains(r.out, `"items": []`) {
		t.Errorf("no environments: %+v", r)
	}
}

func TestAClusterIsChosenAsKubectlDoes(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	commit := tn.push("one", files{"a.yaml": configMap("a", "1")})
	tn.follow()
	tn.rest(commit)
	cfg, err := clientcmd.LoadFromFile(tn.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	here := *cfg.Contexts[cfg.CurrentContext]
	here.Namespace = tn.ns
	cfg.Contexts["here"] = &here
	cfg.Clusters["nowhere"] = &clientcmdapi.Cluster{Server: "https://127.0.0.1:1"}
	cfg.Contexts["nowhere"] = &clientcmdapi.Context{Cluster: "nowhere", AuthInfo: here.AuthInfo}
	cfg.CurrentContext = "nowhere"
	file := filepath.Join(t.TempDir(), "config")
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		env  []string
		args []string
		code int
		says string
	}{
		"KUBECONFIG and its current context":      {[]string{"KUBECONFIG=" + file}, []string{"status"}, 1, "127.0.0.1:1"},
		"--context, with the namespace it names":  {[]string{"KUBECONFIG=" + file}, []string{"status", "--context", "here"}, 0, envName},
		"--kubeconfig wins over KUBECONFIG":       {[]string{"KUBECONFIG=/nonexistent"}, []string{"status", envName, "--kubeconfig", file, "--context", "here"}, 0, envName},
		"--namespace wins over that of a context": {[]string{"KUBECONFIG=" + file}, []string{"status", envName, "--context", "here", "-n", "default"}, 1, "not found"},
		"a context that there is not":             {[]string{"KUBECONFIG=" + file}, []string{"status", "--context", "other"}, 1, "other"},
		"no cluster at all":                       {nil, []string{"status"}, 1, "--kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			r := tn.run(t, tt.env, tt.args...)
			if r.code != tt.code || !strings.Contains(r.out+r.err, tt.says) {
				t.Errorf("exit code %d: %s%s; want %d and %q", r.code, r.out, r.err, tt.code, tt.says)
			}
		})
	}
	t.Run("kubectl waits for the condition", func(t *testing.T) {
		path, err := exec.LookPath("kubectl")
		if err != nil {
			return // the condition itself is what tenant.rest waits for
		}
		for _, args := range [][]string{
			{"wait", "--for=condition=Ready", "environment/" + envName, "--timeout=60s"},
			{"wait", "--for=condition=Ready", "release/" + envName + "-1", "--timeout=60s"},
			{"get", "nxenv,nxrel"},
		} {
			cmd := exec.Command(path, append(args, "-n", tn.ns)...)
			cmd.Env = append(environment(t.TempDir()), "KUBECONFIG="+tn.Kubeconfig)
			out, err := cmd.CombinedOutput()
			if err != nil || args[0] == "get" && !contains(string(out), "Idle", commit[:10], "Succeeded") {
				t.Errorf("kubectl %v: %v\n%s", args, err, out)
			}
		}
	})
	t.Run("the shell completes verbs, environments and formats", func(t *testing.T) {
		script := tn.run(t, nil, "completion", "bash")
		file := filepath.Join(t.TempDir(), "completion")
		if err := os.WriteFile(file, []byte(script.out), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("bash", "-n", file).CombinedOutput(); err != nil || script.code != 0 || !contains(script.out, "reconciler") {
			t.Errorf("%v\n%s", err, out)
		}
		for _, tt := range []struct {
			args []string
			want string
		}{
			{[]string{"roll"}, "rollback"}, {[]string{"status", ""}, envName}, {[]string{"apply", "w"}, envName}, {[]string{"plan", envName, "-o", ""}, "yaml"},
		} {
			r := tn.run(t, []string{"KUBECONFIG=" + tn.Kubeconfig}, slices.Concat([]string{"__complete", "--namespace", tn.ns}, tt.args)...)
			if r.code != 0 || !strings.Contains(r.out, tt.want) {
				t.Errorf("%q completes as %q", tt.args, r.out)
			}
		}
	})
}
