package daemon

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
)

// export is what install --export prints, by kind and name.
func export(t *testing.T, s *site, args ...string) map[string]*unstructured.Unstructured {
	t.Helper()
	r := s.cli(t, "default", append([]string{"install", "--export"}, args...)...)
	if r.code != 0 {
		t.Fatalf("install --export: exit code %d: %s", r.code, r.err)
	}
	objects := map[string]*unstructured.Unstructured{}
	for doc := range strings.SplitSeq(r.out, "---\n") {
		if doc == "" {
			continue
		}
		u := &unstructured.Unstructured{}
		b, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if err := u.UnmarshalJSON(b); err != nil {
			t.Fatal(err)
		}
		name := u.GetKind() + "/" + u.GetName()
		if objects[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		objects[name] = u
	}
	return objects
}

// strictly lets the API server judge an object without writing it.
func strictly(ctx context.Context, s *site, u *unstructured.Unstructured) error {
	strict := client.WithFieldValidation(s.client, metav1.FieldValidationStrict)
	return strict.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("nexus-install"), client.ForceOwnership, client.DryRunAll)
}

func TestTheInstallIsWhatTheAPIServerTakesStrictly(t *testing.T) {
	t.Parallel()
	s := shared(t)
	objects := export(t, s, "--component", "high-availability,servicemonitor", "--image", "registry.example/reconciler:1")
	for name, u := range objects {
		if u.GetKind() == "ServiceMonitor" {
			continue // its kind comes with the Prometheus operator
		}
		if err := strictly(t.Context(), s, u); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	d, pdb := objects["Deployment/nexus-reconciler"], objects["PodDisruptionBudget/nexus-reconciler"]
	if d == nil || pdb == nil || objects["ServiceMonitor/nexus-reconciler"] == nil || objects["NetworkPolicy/nexus-reconciler"] == nil {
		t.Fatalf("the export lacks something: %v", names(objects))
	}
	if n, _, _ := unstructured.NestedInt64(d.Object, "spec", "replicas"); n != 2 {
		t.Errorf("high availability has %d replicas", n)
	}
	port, _, _ := unstructured.NestedSlice(objects["Service/nexus-reconciler-metrics"].Object, "spec", "ports")
	endpoint, _, _ := unstructured.NestedSlice(objects["ServiceMonitor/nexus-reconciler"].Object, "spec", "endpoints")
	if port[0].(map[string]any)["name"] != endpoint[0].(map[string]any)["port"] {
		t.Errorf("the ServiceMonitor scrapes %v, the Service has %v", endpoint, port)
	}
	restricted(t, s, d, "registry.example/reconciler:1")
	t.Run("the plain install has one replica and nothing that needs two", func(t *testing.T) {
		plain := export(t, s)
		if n, _, _ := unstructured.NestedInt64(plain["Deployment/nexus-reconciler"].Object, "spec", "replicas"); n != 1 {
			t.Errorf("%d replicas", n)
		}
		for name := range plain {
			if strings.HasPrefix(name, "PodDisruptionBudget") || strings.HasPrefix(name, "ServiceMonitor") {
				t.Errorf("holds %s", name)
			}
		}
	})
	t.Run("an unknown component is refused", func(t *testing.T) {
		for _, name := range []string{"nonsense", "../base", "base/.."} {
			if r := s.cli(t, "default", "install", "--export", "--component", name); r.code != 1 || !contains(r.err, "unknown component", "high-availability") {
				t.Errorf("%s: %+v", name, r)
			}
		}
	})
	t.Run("a dry-run writes nothing", func(t *testing.T) {
		if r := s.cli(t, "default", "install", "--dry-run"); r.code != 0 {
			t.Errorf("%+v", r)
		}
		_, err := s.kube.AppsV1().Deployments(systemNamespace).Get(t.Context(), "nexus-reconciler", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			t.Errorf("the Deployment: %v", err)
		}
	})
}

// restricted has a pod of the Deployment judged by the admission of the namespace, which enforces the restricted profile.
func restricted(t *testing.T, s *site, d *unstructured.Unstructured, image string) {
	t.Helper()
	template, _, _ := unstructured.NestedMap(d.Object, "spec", "template")
	b, err := json.Marshal(template)
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := json.Unmarshal(b, &pod); err != nil {
		t.Fatal(err)
	}
	pod.Name, pod.Namespace = "probe", systemNamespace
	if err := s.client.Create(t.Context(), &pod, client.DryRunAll); err != nil {
		t.Errorf("its pods are not admitted: %v", err)
	}
	c := pod.Spec.Containers[0]
	if c.Image != image || c.LivenessProbe == nil || c.ReadinessProbe == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
		t.Errorf("the container is %+v", c)
	}
	pod.Spec.Containers[0].SecurityContext = nil
	if err := s.client.Create(t.Context(), &pod, client.DryRunAll); !apierrors.IsForbidden(err) {
		t.Errorf("the namespace admits pods that are not restricted: %v", err)
	}
}

func names(objects map[string]*unstructured.Unstructured) (all []string) {
	for name := range objects {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func TestTheDaemonMayDoNothingButItsOwnWork(t *testing.T) {
	t.Parallel()
	s := shared(t)
	for _, name := range []string{"ClusterRole/nexus-reconciler", "Role/nexus-reconciler"} {
		rules, _, _ := unstructured.NestedSlice(export(t, s)[name].Object, "rules")
		for _, r := range rules {
			b, _ := json.Marshal(r)
			if strings.Contains(string(b), `"*"`) {
				t.Errorf("%s grants %s", name, b)
			}
			if strings.HasPrefix(name, "ClusterRole") && contains(string(b), "secrets") {
				t.Errorf("%s reads the Secrets of every namespace: %s", name, b)
			}
		}
	}
}

func TestAnEnvironmentThatMakesNoSenseIsRefusedByTheAPIServerWithAReason(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	path := func(p string) func(*v1alpha1.Environment) {
		return func(env *v1alpha1.Environment) { env.Spec.Path = p }
	}
	url := func(u string) func(*v1alpha1.Environment) {
		return func(env *v1alpha1.Environment) { env.Spec.Source.URL = u }
	}
	branch := func(b string) func(*v1alpha1.Environment) {
		return func(env *v1alpha1.Environment) { env.Spec.Source.Branch = b }
	}
	tests := map[string]struct {
		change func(*v1alpha1.Environment)
		reason string
	}{
		"a path that leaves the repository":      {path("../other"), "path is relative"},
		"an absolute path":                       {path("/etc"), "path is relative"},
		"a path that leaves a folder in between": {path("app/..//x"), "path is relative"},
		"a path with an encoded slash":           {path("app%2f.."), "path is relative"},
		"a path with an empty part":              {path("app//x"), "path is relative"},
		"a path that ends in a slash":            {path("app/"), "path is relative"},
		"a path with a backslash":                {path(`app\..\x`), "path is relative"},
		"a path with a line break":               {path("app\nx"), "path is relative"},
		"a path with a zero byte":                {path("app\x00x"), "path is relative"},
		"no path":                                {path(""), "spec.path"},
		"a path as long as a book":               {path(strings.Repeat("a", 5000)), "spec.path"},
		"a password in the URL":                  {url("https://user:CANARY@git.example/x"), "put them into the Secret"},
		"a token in the URL":                     {url("https://CANARY@git.example/x"), "put them into the Secret"},
		"a password in an ssh URL":               {url("ssh://git:CANARY@git.example/x"), "put them into the Secret"},
		"an ssh option as the host":              {url("ssh://-oProxyCommand=touch/x"), "begins with a dash"},
		"an ssh option as the host after a user": {url("ssh://git@-oProxyCommand=touch/x"), "begins with a dash"},
		"an ssh option in the short form":        {url("git@-oProxyCommand=touch:x"), "url begins with"},
		"an option as the URL":                   {url("--upload-pack=touch"), "url begins with"},
		"a remote helper":                        {url("ext::sh -c touch"), "url begins with"},
		"a protocol that nobody speaks":          {url("gopher://git.example/x"), "url begins with"},
		"git's own protocol, which is not safe":  {url("git://git.example/x"), "url begins with"},
		"a URL with a line break":                {url("https://git.example/x\nfoo"), "url"},
		"an option as the branch":                {branch("--upload-pack=x"), "branch"},
		"a branch that climbs":                   {branch("../../x"), "branch"},
		"a branch with a line break":             {branch("main\nfoo"), "branch"},
		"a branch with a zero byte":              {branch("main\x00"), "branch"},
		"a branch with an encoded zero byte":     {branch("main%00"), "branch"},
		"a branch of 64 KB":                      {branch(strings.Repeat("a", 65536)), "branch"},
		"a branch that is a refspec":             {branch("main:refs/heads/x"), "branch"},
		"a branch with a glob":                   {branch("release/*"), "branch"},
		"a branch that ends in .lock":            {branch("main.lock"), "branch"},
		"a branch whose part ends in .lock":      {branch("a.lock/b"), "branch"},
		"a branch whose part begins with a dot":  {branch("a/.b"), "branch"},
		"a branch with an empty part":            {branch("a//b"), "branch"},
		"a branch that ends in a dot":            {branch("a."), "branch"},
		"a branch that is an at sign":            {branch("@"), "branch"},
		"an interval below a second":             {func(e *v1alpha1.Environment) { e.Spec.Interval.Duration = 1e6 }, "interval is at least 1s"},
		"a negative interval":                    {func(e *v1alpha1.Environment) { e.Spec.Interval.Duration = -1e10 }, "interval is at least 1s"},
		"no service account":                     {func(e *v1alpha1.Environment) { e.Spec.ServiceAccountName = "" }, "serviceAccountName"},
		"a service account elsewhere":            {func(e *v1alpha1.Environment) { e.Spec.ServiceAccountName = "kube-system:admin" }, "serviceAccountName"},
		"a name too long for its releases":       {func(e *v1alpha1.Environment) { e.Name = strings.Repeat("a", 60) }, "at most 52"},
		"a way to prune that there is not":       {func(e *v1alpha1.Environment) { e.Spec.Prune = "sometimes" }, "onDelete"},
		"a rewrite that there is not":            {func(e *v1alpha1.Environment) { e.Spec.Source.Rewrite = "maybe" }, "follow"},
		"a namespace that cannot be":             {func(e *v1alpha1.Environment) { e.Spec.Scope.Namespaces = []string{"a", "A/b"} }, "namespaces"},
		"a proxy that is no URL":                 {func(e *v1alpha1.Environment) { e.Spec.Source.Proxy = "file:///etc/passwd" }, "proxy"},
		"a proxy with a password":                {func(e *v1alpha1.Environment) { e.Spec.Source.Proxy = "http://u:CANARY@proxy.example:1" }, "proxy"},
		"a history of none":                      {func(e *v1alpha1.Environment) { e.Spec.HistoryLimit = -1 }, "historyLimit"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			env := tn.environment()
			tt.change(env)
			err := tn.client.Create(t.Context(), env, client.DryRunAll)
			if !apierrors.IsInvalid(err) {
				t.Fatalf("accepted, or refused for the wrong reason: %v", err)
			}
			if !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("the reason does not hold %q: %.400v", tt.reason, err)
			}
		})
	}
	for name, change := range map[string]func(*v1alpha1.Environment){
		"an overlay deep down":      path("a/b/c-d_e.f/g h"),
		"the root of a repository":  path("."),
		"a branch with slashes":     branch("release/1.2_x-y"),
		"the short form of ssh":     url("git@github.com:org/repo.git"),
		"ssh with a user and port":  url("ssh://git@github.com:22/org/repo.git"),
		"https with a port":         url("https://git.example:8443/a/b.git"),
		"a path with dots in names": path("..a/b..c"),
	} {
		t.Run("accepted: "+name, func(t *testing.T) {
			env := tn.environment()
			change(env)
			if err := tn.client.Create(t.Context(), env, client.DryRunAll); err != nil {
				t.Error(err)
			}
		})
	}
}
