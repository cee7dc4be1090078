package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/apicount"
	"github.com/nexus-platform/reconciler/e2e/cluster"
	"github.com/nexus-platform/reconciler/e2e/gitserver"
)

const (
	home     = "home" // namespace of the Environment
	overlay  = "overlays/bench"
	perFile  = 50
	deadline = 10 * time.Minute
)

// site is a control plane, a repository and a daemon, with a proxy between that counts.
type site struct {
	t      *testing.T
	dir    string
	binary string
	config *rest.Config
	client client.Client
	kube   *kubernetes.Clientset
	proxy  *apicount.Proxy
	git    *gitserver.Server
	repo   *gitserver.Repo
	daemon *exec.Cmd
	log    string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), git: gitserver.Start(t)}
	s.repo = s.git.Init("config")
	s.binary, s.log = filepath.Join(s.dir, "reconciler"), filepath.Join(s.dir, "daemon.log")
	s.must(s.command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", s.binary, "../../cmd/reconciler"))
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: filepath.Join(s.dir, "cluster"), Progress: os.Stderr})
	s.must(err)
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	s.config, err = c.Config()
	s.must(err)
	s.config.QPS = -1
	scheme := runtime.NewScheme()
	s.must(errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)))
	s.client, err = client.New(s.config, client.Options{Scheme: scheme})
	s.must(err)
	s.kube, err = kubernetes.NewForConfig(s.config)
	s.must(err)
	s.must(s.command(s.binary, "install", "--without-daemon", "--kubeconfig", c.Kubeconfig))
	s.proxy, err = apicount.Start(s.config)
	s.must(err)
	t.Cleanup(s.proxy.Close)
	names := []string{home}
	for i := range 10 {
		names = append(names, fmt.Sprintf("bench-%d", i), fmt.Sprintf("floor-%d", i))
	}
	for _, name := range names {
		s.must(s.client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	s.must(s.client.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "deployer", Namespace: home}}))
	for name, subject := range map[string]rbacv1.Subject{
		"bench-deployer": {Kind: "ServiceAccount", Name: "deployer", Namespace: home},
		"bench-daemon":   {Kind: "ServiceAccount", Name: "nexus-reconciler", Namespace: "nexus-system"}, // in place of a Role in each namespace
	} {
		s.must(s.client.Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: []rbacv1.Subject{subject},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		}))
	}
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) command(name string, args ...string) error {
	if out, err := exec.CommandContext(s.t.Context(), name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// manifest is object i of n: 40 % ConfigMaps, 15 % Secrets, Services and Deployments, and of the rest a third each of three kinds.
func manifest(i int, value string) string {
	namespace := fmt.Sprintf("NS-%d", i%10)
	meta := func(kind string) string {
		return fmt.Sprintf("metadata: {name: %s-%d, namespace: %s, labels: {app: bench}}\n", kind, i, namespace)
	}
	switch k := i / 10 % 20; {
	case k < 8:
		return "apiVersion: v1\nkind: ConfigMap\n" + meta("cm") + "data: {key: " + value + ", more: " + strings.Repeat("x", 200) + "}\n"
	case k < 11:
		return "apiVersion: v1\nkind: Secret\n" + meta("secret") + "stringData: {password: " + value + "}\n"
	case k < 14:
		return "apiVersion: v1\nkind: Service\n" + meta("svc") + "spec: {selector: {app: bench}, ports: [{port: 80, name: http}]}\n"
	case k < 17:
		return "apiVersion: apps/v1\nkind: Deployment\n" + meta("app") + "spec:\n  replicas: 0\n  selector: {matchLabels: {app: bench}}\n  template:\n    metadata: {labels: {app: bench}}\n    spec: {containers: [{name: app, image: \"example/app:1\"}]}\n"
	case k < 18:
		return "apiVersion: v1\nkind: ServiceAccount\n" + meta("sa")
	case k < 19:
		return "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n" + meta("role") + "rules: [{apiGroups: [\"\"], resources: [pods], verbs: [get]}]\n"
	}
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n" + meta("np") + "spec: {podSelector: {matchLabels: {app: bench}}, policyTypes: [Ingress]}\n"
}

// write makes an overlay of the first keep of n objects.
func (s *site) write(n, keep int) {
	s.repo.Git("rm", "-r", "-q", "--ignore-unmatch", overlay)
	list := ""
	for from := 0; from < keep; from += perFile {
		var text strings.Builder
		for i := from; i < min(from+perFile, keep); i++ {
			text.WriteString("---\n" + strings.Replace(manifest(i, "one"), "NS-", "bench-", 1))
		}
		name := fmt.Sprintf("f%d.yaml", from/perFile)
		s.repo.Write(overlay+"/"+name, text.String())
		list += "  - " + name + "\n"
	}
	s.repo.Write(overlay+"/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n"+list)
	s.repo.Write(overlay+"/release.yaml", fmt.Sprintf("apiVersion: nexus.dev/v1alpha1\nkind: ReleasePolicy\nspec: {settle: 0s, bake: 0s, prune: {maxCount: %d, maxPercent: 50}}\n", n))
}

// edit changes the value of a ConfigMap of the first file.
func (s *site) edit(name, value string) {
	path := filepath.Join(s.repo.Dir, overlay, "f0.yaml")
	b, err := os.ReadFile(path)
	s.must(err)
	at := bytes.Index(b, []byte("name: "+name+","))
	if at < 0 {
		s.t.Fatalf("%s is not in the first file", name)
	}
	s.repo.Write(overlay+"/f0.yaml", string(b[:at])+strings.Replace(string(b[at:]), "key: one", "key: "+value, 1))
}

func (s *site) push(message string) string {
	hash := s.repo.Commit(message)
	s.repo.Push()
	return hash
}

// floor applies all objects, in namespaces of their own, and does nothing else.
func (s *site) floor(n int) time.Duration {
	// Through the same proxy, which costs time of the same machine.
	dyn, err := dynamic.NewForConfig(&rest.Config{Host: s.proxy.URL, TLSClientConfig: rest.TLSClientConfig{CAData: s.proxy.CA}, BearerToken: s.token(home, "deployer"), QPS: -1})
	s.must(err)
	type item struct {
		resource schema.GroupVersionResource
		object   *unstructured.Unstructured
		body     []byte
	}
	resources := map[string]string{"ConfigMap": "configmaps", "Secret": "secrets", "Service": "services", "Deployment": "deployments", "ServiceAccount": "serviceaccounts", "Role": "roles", "NetworkPolicy": "networkpolicies"}
	items := make([]item, 0, n)
	for i := range n {
		u := &unstructured.Unstructured{}
		s.must(yaml.Unmarshal([]byte(strings.Replace(manifest(i, "one"), "NS-", "floor-", 1)), &u.Object))
		body, err := u.MarshalJSON()
		s.must(err)
		items = append(items, item{u.GroupVersionKind().GroupVersion().WithResource(resources[u.GetKind()]), u, body})
	}
	began := time.Now()
	force := true
	var g errgroup.Group
	g.SetLimit(16)
	for _, it := range items {
		g.Go(func() error {
			_, err := dyn.Resource(it.resource).Namespace(it.object.GetNamespace()).Patch(s.t.Context(), it.object.GetName(), types.ApplyPatchType, it.body, metav1.PatchOptions{FieldManager: "floor", Force: &force})
			return err
		})
	}
	s.must(g.Wait())
	took := time.Since(began)
	s.proxy.Take()
	return took
}

// token lets somebody be a service account.
func (s *site) token(namespace, account string) string {
	hours := int64(7200)
	token, err := s.kube.CoreV1().ServiceAccounts(namespace).CreateToken(s.t.Context(), account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hours}}, metav1.CreateOptions{})
	s.must(err)
	return token.Status.Token
}

// start runs the daemon behind the proxy.
func (s *site) start() {
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["bench"] = &clientcmdapi.Cluster{Server: s.proxy.URL, CertificateAuthorityData: s.proxy.CA}
	cfg.AuthInfos["bench"] = &clientcmdapi.AuthInfo{Token: s.token("nexus-system", "nexus-reconciler")}
	cfg.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench", AuthInfo: "bench"}
	cfg.CurrentContext = "bench"
	kubeconfig := filepath.Join(s.dir, "daemon.kubeconfig")
	s.must(clientcmd.WriteToFile(*cfg, kubeconfig))
	log, err := os.Create(s.log)
	s.must(err)
	defer log.Close()
	s.daemon = exec.Command(s.binary, "run", "--kubeconfig", kubeconfig, "--cache-dir", filepath.Join(s.dir, "cache"),
		"--health-address", "127.0.0.1:0", "--metrics-address", "0", "--log-level", "debug")
	s.daemon.Stdout, s.daemon.Stderr = log, log
	s.must(s.daemon.Start())
	s.t.Cleanup(func() {
		_ = s.daemon.Process.Signal(syscall.SIGTERM)
		if err := s.daemon.Wait(); err != nil {
			s.t.Errorf("the daemon: %v", err)
		}
	})
}

// follow makes the Environment, or changes its interval.
func (s *site) follow(interval time.Duration) {
	env := &v1alpha1.Environment{ObjectMeta: metav1.ObjectMeta{Name: "bench", Namespace: home}}
	for i := range 10 {
		env.Spec.Scope.Namespaces = append(env.Spec.Scope.Namespaces, fmt.Sprintf("bench-%d", i))
	}
	env.Spec.Source = v1alpha1.Source{URL: "file://" + s.git.Dir("config"), Branch: "main"}
	env.Spec.Path, env.Spec.ServiceAccountName, env.Spec.Interval = overlay, "deployer", &metav1.Duration{Duration: interval}
	err := s.client.Create(s.t.Context(), env.DeepCopy())
	if apierrors.IsAlreadyExists(err) {
		passes := s.passes()
		patch := fmt.Appendf(nil, `{"spec":{"interval":%q}}`, interval)
		s.must(s.client.Patch(s.t.Context(), env, client.RawPatch(types.MergePatchType, patch)))
		s.until("the interval to be taken up", func() bool { return s.passes() > passes })
		return
	}
	s.must(err)
}

func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	limit := time.After(deadline)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit:
			b, _ := os.ReadFile(s.log)
			s.t.Fatalf("waited %s for %s\n%s", deadline, what, b[max(0, len(b)-4000):])
		case <-tick.C:
		}
	}
}

func (s *site) lines() []string {
	b, err := os.ReadFile(s.log)
	s.must(err)
	return strings.Split(string(b), "\n")
}

var stamp = regexp.MustCompile(`^time=(\S+) `)

// find is the log line of an event of a commit.
func (s *site) find(commit, event string) string {
	for _, line := range s.lines() {
		if strings.Contains(line, " msg="+event+" ") && strings.Contains(line, commit) {
			return line
		}
	}
	return ""
}

// at is when an event of a commit was logged.
func (s *site) at(commit, event string) time.Time {
	s.t.Helper()
	m := stamp.FindStringSubmatch(s.find(commit, event))
	if m == nil {
		s.t.Fatalf("the log does not tell of %s of %s", event, commit)
	}
	at, err := time.Parse(time.RFC3339, m[1])
	s.must(err)
	return at
}

var text = regexp.MustCompile(`message="([^"]*)"`)

func (s *site) message(commit, event string) string {
	if m := text.FindStringSubmatch(s.find(commit, event)); m != nil {
		return m[1]
	}
	return ""
}

// released waits until a commit is released and returns when that was.
func (s *site) released(commit string) time.Time {
	s.t.Helper()
	short := commit[:10] + " is deployed"
	s.until("the release of "+commit, func() bool {
		if s.find("refused", "ReleaseRefused") != "" || s.find("", "ReleaseUndone") != "" {
			s.t.Fatalf("%s%s", s.find("refused", "ReleaseRefused"), s.find("", "ReleaseUndone"))
		}
		return s.find(short, "ReleaseSucceeded") != ""
	})
	return s.at(short, "ReleaseSucceeded")
}

var took = regexp.MustCompile(` msg=pass .* took=(\S+)`)

// tooks are the times of the last passes.
func (s *site) tooks(n int) (all []time.Duration) {
	for _, line := range s.lines() {
		if m := took.FindStringSubmatch(line); m != nil {
			d, err := time.ParseDuration(m[1])
			s.must(err)
			all = append(all, d)
		}
	}
	return all[max(0, len(all)-n):]
}

func (s *site) passes() int { return len(s.tooks(1 << 30)) }

// settled waits for two passes, and so until all is shown that is to be shown.
func (s *site) settled() {
	passes := s.passes()
	s.until("two passes", func() bool { return s.passes() >= passes+2 })
}

// drift edits a ConfigMap by hand and returns how long it stayed so.
func (s *site) drift(name string) time.Duration {
	i, err := strconv.Atoi(strings.TrimPrefix(name, "cm-"))
	s.must(err)
	cms := s.kube.CoreV1().ConfigMaps(fmt.Sprintf("bench-%d", i%10))
	now, err := cms.Get(s.t.Context(), name, metav1.GetOptions{})
	s.must(err)
	w, err := cms.Watch(s.t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name, ResourceVersion: now.ResourceVersion})
	s.must(err)
	defer w.Stop()
	began := time.Now()
	_, err = cms.Patch(s.t.Context(), name, types.MergePatchType, []byte(`{"data":{"key":"by hand"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	s.must(err)
	limit := time.After(deadline)
	for {
		select {
		case e := <-w.ResultChan():
			if cm, ok := e.Object.(*corev1.ConfigMap); ok && cm.Data["key"] == now.Data["key"] {
				return time.Since(began)
			}
		case <-limit:
			s.t.Fatalf("%s was not healed", name)
		}
	}
}

// cpu is what the daemon has used so far, without its children.
func (s *site) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.daemon.Process.Pid))
	s.must(err)
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	var ticks time.Duration
	for _, f := range fields[11:13] { // utime, stime: proc(5)
		n, err := strconv.Atoi(f)
		s.must(err)
		ticks += time.Duration(n)
	}
	return ticks * time.Second / 100
}

// memory is what the daemon has of its own, and the peak of its resident set, in MiB. Pages of the binary are
// the file's: they are shared, and given back when somebody else needs the room.
func (s *site) memory() (own, file, peak int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.daemon.Process.Pid))
	s.must(err)
	read := func(name string) int {
		m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(b)
		n, err := strconv.Atoi(string(m[1]))
		s.must(err)
		return n >> 10
	}
	return read("RssAnon"), read("RssFile"), read("VmHWM")
}
