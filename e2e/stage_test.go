// Package e2e tests whole releases: a real Git server, a real API server, a simulated kubelet.
package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/controller"
	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/e2e/gitserver"
	"github.com/nexus-platform/reconciler/gitsource"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/reconcile"
	"github.com/nexus-platform/reconciler/render"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == render.ChildVerb {
		os.Exit(render.ChildMain(os.Stdin, os.Stdout))
	}
	clustertest.Main(m)
}

// stage is one environment with a repository and a namespace of its own.
type stage struct {
	t         *testing.T
	client    *kubernetes.Clientset
	namespace string
	git       *gitserver.Server
	repo      *gitserver.Repo
	env       *v1alpha1.Environment
	assembly  *controller.Assembly
	run       *controller.Assembled
	bell      chan struct{}

	mu     sync.Mutex
	events []reconcile.Event
}

const overlay = "overlays/test"

// newStage makes namespace, identity and repository. The namespace holds the journal too.
func newStage(t *testing.T) *stage {
	t.Helper()
	cfg := clustertest.Config(t)
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, client: client, namespace: clustertest.Namespace(t), bell: make(chan struct{}, 1)}
	ctx := t.Context()
	_, err = client.CoreV1().ServiceAccounts(s.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "deployer"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.RbacV1().RoleBindings(s.namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "deployer"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "deployer", Namespace: s.namespace}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	journals, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "journal-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	git := gitserver.Start(t)
	s.git, s.repo = git, git.Init("config")
	s.assembly = &controller.Assembly{
		Config: cfg, Namespace: journals.Name, Now: time.Now, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Mirrors:  &gitsource.Mirrors{Dir: t.TempDir(), Limits: gitsource.DefaultLimits()},
		Renderer: &render.Renderer{Limits: render.DefaultLimits(), Parallel: 2},
	}
	s.env = &v1alpha1.Environment{
		ObjectMeta: metav1.ObjectMeta{Name: "test", Namespace: s.namespace, UID: types.UID("uid-" + s.namespace)},
		Spec: v1alpha1.EnvironmentSpec{
			Source: v1alpha1.Source{URL: git.URL("config"), Branch: "main"}, Path: overlay, ServiceAccountName: "deployer",
		},
	}
	s.start()
	t.Cleanup(func() { s.run.Close() })
	return s
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// start makes a reconciler as a new process would: with no memory of the last one.
func (s *stage) start() {
	s.t.Helper()
	if s.run != nil {
		s.run.Close()
	}
	run, err := s.assembly.Assemble(s.t.Context(), s.env, func() {
		select {
		case s.bell <- struct{}{}:
		default:
		}
	}, s.observe)
	if err != nil {
		s.t.Fatal(err)
	}
	s.run = run
}

func (s *stage) observe(e reconcile.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// told returns the events of one kind so far.
func (s *stage) told(kind reconcile.EventKind) []reconcile.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []reconcile.Event
	for _, e := range s.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// last is how the newest release ended.
func (s *stage) last() *reconcile.ReleaseInfo {
	s.t.Helper()
	ended := s.told(reconcile.EventEnded)
	if len(ended) == 0 {
		s.t.Fatal("no release has ended")
	}
	return ended[len(ended)-1].Release
}

const policy = `apiVersion: nexus.dev/v1alpha1
kind: ReleasePolicy
spec:
  settle: 0s
  bake: 0s
`

// release pushes an overlay made of the documents, by file name, and returns the commit.
func (s *stage) release(message string, files map[string]string) string {
	s.t.Helper()
	s.repo.Git("rm", "-r", "-q", "--ignore-unmatch", ".")
	names := ""
	if files["release.yaml"] == "" {
		s.repo.Write(overlay+"/release.yaml", policy)
	}
	for name, content := range files {
		s.repo.Write(overlay+"/"+name, content)
		if name != "release.yaml" && name != "kustomization.yaml" {
			names += "  - " + name + "\n"
		}
	}
	if files["kustomization.yaml"] == "" {
		s.repo.Write(overlay+"/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: "+s.namespace+"\nresources:\n"+names)
	}
	hash := s.repo.Commit(message)
	s.repo.Push()
	return hash
}

const deadline = 90 * time.Second

// settle makes passes, each when the last one asked for it or something changed, until ok says that it is enough.
func (s *stage) settle(ask reconcile.Ask, what string, ok func(reconcile.Result, error) bool) reconcile.Result {
	s.t.Helper()
	limit := time.After(deadline)
	for {
		res, err := s.run.Pass(s.t.Context(), ask)
		if ok(res, err) {
			return res
		}
		if err != nil && reconcile.Judge(err) == reconcile.Fail {
			s.t.Fatalf("pass: %v", err)
		}
		after := res.After
		if after <= 0 {
			after = 2 * time.Second
		}
		timer := time.NewTimer(after)
		select {
		case <-limit:
			s.t.Fatalf("waited %s for %s; the last pass: %+v, %v", deadline, what, res.Why, err)
		case <-s.bell:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// rest makes passes until no release is open and the tip was looked at.
func (s *stage) rest() reconcile.Result {
	s.t.Helper()
	return s.settle(reconcile.Ask{}, "the environment to rest", func(res reconcile.Result, err error) bool {
		settled := res.Head.Quarantined(res.Tip) || res.Refused != nil || res.Head.Good != nil && res.Head.Good.Commit == res.Tip
		return err == nil && res.TipErr == nil && res.Head.State == journal.Idle && settled
	})
}

// want releases the files and checks how that ends.
func (s *stage) want(outcome v1alpha1.Outcome, message string, files map[string]string) *reconcile.ReleaseInfo {
	s.t.Helper()
	commit := s.release(message, files)
	s.rest()
	last := s.last()
	if last.Commit != commit || last.Outcome != outcome {
		s.t.Fatalf("release of %.10s ended as %s (%s): %s %v; want %s of %.10s", last.Commit, last.Outcome, last.Reason, last.Message, last.Findings, outcome, commit)
	}
	return last
}

// configMap is the smallest manifest.
func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  key: %q\n", name, value)
}

// app is a Deployment whose pods behave as the tag of their image says.
func app(name, tag string, more ...string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
spec:
  replicas: 1
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata:
      labels: {app: %[1]s}
      annotations: {%[3]s}
    spec:
      containers:
        - name: app
          image: example/app:%[2]s
`, name, tag, strings.Join(more, ", "))
}

// image of a Deployment as the cluster has it.
func (s *stage) image(name string) string {
	s.t.Helper()
	d, err := s.client.AppsV1().Deployments(s.namespace).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return d.Spec.Template.Spec.Containers[0].Image
}

// value of a ConfigMap's key, or "absent".
func (s *stage) value(name string) string {
	s.t.Helper()
	cm, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return "absent"
	}
	return cm.Data["key"]
}

// until waits for a condition of the cluster.
func (s *stage) until(what string, ok func() bool) {
	s.t.Helper()
	limit := time.After(deadline)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit:
			s.t.Fatalf("waited %s for %s", deadline, what)
		case <-tick.C:
		}
	}
}

// cleanup is a context for what is done after the test's own has ended.
func cleanup() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

func debugLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
