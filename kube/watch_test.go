package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/nexus-platform/reconciler/e2e/cluster"
	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/object"
)

var (
	configMapKind  = schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	deploymentKind = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
)

// ear hears what changed and lets a test wait for it.
type ear struct {
	mu    sync.Mutex
	refs  map[object.Ref]int
	heard chan struct{}
}

func newEar() *ear { return &ear{refs: map[object.Ref]int{}, heard: make(chan struct{}, 1)} }

func (e *ear) changed(r object.Ref) {
	e.mu.Lock()
	e.refs[r]++
	e.mu.Unlock()
	select {
	case e.heard <- struct{}{}:
	default:
	}
}

func (e *ear) count(r object.Ref) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.refs[r]
}

// until waits for a condition; it is looked at after each change.
func (e *ear) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	limit := time.NewTimer(40 * time.Second)
	defer limit.Stop()
	for !done() {
		select {
		case <-e.heard:
		case <-limit.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func configMap(t *testing.T, ns, name, value string) (object.Ref, func() string) {
	ref := object.Ref{Kind: "ConfigMap", Namespace: ns, Name: name}
	return ref, func() string {
		return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, namespace: %s}, data: {k: %s}}", name, ns, value)
	}
}

func apply(t *testing.T, c *Cluster, text string) Applied {
	t.Helper()
	a, err := c.Apply(deadline(t), manifest(t, text), Pre{Create: true, Born: string(c.Environment) + "/1"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWatchCostsOneListPerKindAndNamespaceAndLiveNone(t *testing.T) {
	one, two := clustertest.Namespace(t), clustertest.Namespace(t)
	writer, _ := open(t, "env-count", nil)
	for _, ns := range []string{one, two} {
		for i := range 20 {
			_, text := configMap(t, ns, fmt.Sprint("m", i), "v")
			apply(t, writer, text())
		}
	}
	ear := newEar()
	c, counter := open(t, "env-count", func(c *Cluster) {
		c.Namespaces, c.Changed = []string{one, two}, ear.changed
	})
	kinds := []schema.GroupVersionKind{configMapKind, {Group: "nowhere.dev", Version: "v1", Kind: "Thing"}}
	if err := c.Watch(deadline(t), kinds); err != nil {
		t.Fatal(err)
	}
	var lists []string
	for _, r := range counter.take() {
		if path, query, _ := strings.Cut(r, "?"); strings.Contains(query, "watch=true") || !strings.Contains(path, "/api") {
			lists = append(lists, path)
		}
	}
	slices.Sort(lists)
	var want []string
	for _, ns := range []string{one, two} {
		want = append(want, "GET /api/v1/namespaces/"+ns+"/configmaps", "GET /api/v1/namespaces/"+ns+"/pods", "GET /apis/apps/v1/namespaces/"+ns+"/replicasets")
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, lists); diff != "" {
		t.Errorf("requests of the first Watch (-want +got):\n%s", diff)
	}
	if n := len(c.Owned()); n != 40 {
		t.Errorf("%d objects are in the cache, not 40", n)
	}
	if err := c.Watch(deadline(t), kinds[:1]); err != nil {
		t.Fatal(err)
	}
	for _, r := range c.Owned() {
		if l, ok := c.Live(r); !ok || l.Object().GetName() != r.Name || l.Born != "env-count/1" {
			t.Errorf("%s is not in the cache as it was applied", r)
		}
	}
	if again := counter.take(); len(again) > 0 {
		t.Errorf("a second Watch and reads of the cache sent requests: %q", again)
	}
	if n := ear.count(object.Ref{}); n == 0 {
		t.Error("nobody was told of the first list")
	}
}

func TestWatchFollowsChangesAndAsksWhatVanished(t *testing.T) {
	ns := clustertest.Namespace(t)
	ear := newEar()
	c, counter := open(t, "env-follow", func(c *Cluster) { c.Namespaces, c.Changed = []string{ns}, ear.changed })
	if err := c.Watch(deadline(t), []schema.GroupVersionKind{configMapKind}); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(clustertest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	maps := client.CoreV1().ConfigMaps(ns)

	t.Run("a write of ours is in the cache when it returns", func(t *testing.T) {
		ref, text := configMap(t, ns, "mine", "v")
		a := apply(t, c, text())
		if l, ok := c.Live(ref); !ok || l.ResourceVersion != a.ResourceVersion {
			t.Errorf("the cache is behind the write: %v", l)
		}
	})
	t.Run("an edit is seen", func(t *testing.T) {
		ref, text := configMap(t, ns, "edited", "v")
		a := apply(t, c, text())
		patch(t, maps.Patch, "edited", `{"data":{"k":"w"}}`)
		ear.until(t, "the edit is in the cache", func() bool { l, ok := c.Live(ref); return ok && l.ResourceVersion != a.ResourceVersion })
	})
	t.Run("an object that loses our label is marked until it has it again", func(t *testing.T) {
		ref, text := configMap(t, ns, "unlabelled", "v")
		a := apply(t, c, text())
		patch(t, maps.Patch, "unlabelled", `{"metadata":{"labels":null}}`)
		ear.until(t, "it is marked", func() bool { return c.Unlabelled(ref) })
		if _, ok := c.Live(ref); ok || slices.Contains(c.Owned(), ref) {
			t.Error("it counts as labelled")
		}
		if _, err := c.Apply(deadline(t), manifest(t, text()), PreOf(read(t, c, a.Object), true)); err != nil {
			t.Fatal(err)
		}
		ear.until(t, "it is ours again", func() bool { _, ok := c.Live(ref); return ok && !c.Unlabelled(ref) })
		patch(t, maps.Patch, "unlabelled", `{"metadata":{"labels":null}}`)
		ear.until(t, "it is marked again", func() bool { return c.Unlabelled(ref) })
		if err := maps.Delete(t.Context(), "unlabelled", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		var gone *NotFoundError
		if _, err := c.Read(deadline(t), ref, "v1"); !errors.As(err, &gone) || c.Unlabelled(ref) {
			t.Errorf("after a read found nothing: %v, unlabelled %t", err, c.Unlabelled(ref))
		}
	})
	t.Run("an object that somebody deletes is gone after a read", func(t *testing.T) {
		ref, text := configMap(t, ns, "deleted", "v")
		apply(t, c, text())
		counter.take()
		if err := maps.Delete(t.Context(), "deleted", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		ear.until(t, "it is gone", func() bool { _, ok := c.Live(ref); return !ok })
		if got := counter.take(); len(got) != 1 || !strings.HasSuffix(got[0], "/configmaps/deleted") {
			t.Errorf("requests were %q", got)
		}
	})
	t.Run("an object that we delete needs no read", func(t *testing.T) {
		ref, text := configMap(t, ns, "pruned", "v")
		a := apply(t, c, text())
		counter.take()
		if err := c.Delete(deadline(t), ref, "v1", a.UID, a.ResourceVersion); err != nil {
			t.Fatal(err)
		}
		ear.until(t, "it is gone", func() bool { _, ok := c.Live(ref); return !ok })
		if got := counter.take(); len(got) != 1 || !strings.HasPrefix(got[0], "DELETE") {
			t.Errorf("requests were %q", got)
		}
	})
}

func TestPodsReportTheWorkloadThatTheyBelongTo(t *testing.T) {
	ns := clustertest.Namespace(t)
	ear := newEar()
	c, _ := open(t, "env-pods", func(c *Cluster) { c.Namespaces, c.Changed = []string{ns}, ear.changed })
	client, err := kubernetes.NewForConfig(clustertest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Watch(deadline(t), []schema.GroupVersionKind{deploymentKind}); err != nil {
		t.Fatal(err)
	}
	ref := object.Ref{Group: "apps", Kind: "Deployment", Namespace: ns, Name: "web"}
	apply(t, c, `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: `+ns+`}, spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: app, image: x}]}}}}`)
	ear.until(t, "its pod and its replica set are known", func() bool { return ear.count(ref) > 0 && len(c.Pods(ns)) == 1 && len(c.ReplicaSets(ns)) == 1 })
	before := ear.count(ref)
	pod, set := c.Pods(ns)[0], c.ReplicaSets(ns)[0]
	if pod.ManagedFields != nil || pod.Spec.Containers[0].Name != "app" || pod.Spec.Containers[0].Image != "" || set.Annotations["deployment.kubernetes.io/revision"] != "1" {
		t.Errorf("not stripped to what health needs: %v, %v", pod, set)
	}
	if err := client.CoreV1().Pods(ns).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ear.until(t, "the deployment is told of its pod's end", func() bool { return ear.count(ref) > before && !slices.Contains(c.Pods(ns), pod) })
}

type patcher[T any] func(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (T, error)

// patch edits an object as somebody else.
func patch[T any](t *testing.T, do patcher[T], name, body string, subresources ...string) T {
	t.Helper()
	if !json.Valid([]byte(body)) {
		t.Fatalf("not JSON: %s", body)
	}
	out, err := do(t.Context(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{FieldManager: "kubectl-edit"}, subresources...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWatchFollowsTheVersionThatIsApplied(t *testing.T) {
	ns := clustertest.Namespace(t)
	c, _ := open(t, "env-version", func(c *Cluster) { c.Namespaces = []string{ns} })
	scaler := `{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: a, namespace: ` + ns + `}, spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: a}}}`
	a := apply(t, c, scaler)
	for _, version := range []string{"v1", "v2"} {
		if err := c.Watch(deadline(t), []schema.GroupVersionKind{{Group: "autoscaling", Version: version, Kind: "HorizontalPodAutoscaler"}}); err != nil {
			t.Fatal(err)
		}
		if l, ok := c.Live(a.Record.Ref); !ok || l.Version != version || l.Object().GetAPIVersion() != "autoscaling/"+version {
			t.Errorf("watched in %s, the cache holds %+v", version, l)
		}
	}
	if len(c.Owned()) != 1 {
		t.Errorf("the cache holds %v", c.Owned())
	}
}

func TestWatchThatIsForbiddenSaysSoAndDoesNotHang(t *testing.T) {
	ns := clustertest.Namespace(t)
	c, _ := open(t, "env-forbidden", func(c *Cluster) {
		c.Namespaces, c.Config = []string{ns}, Impersonate(c.Config, ns, "default")
	})
	err := c.Watch(deadline(t), []schema.GroupVersionKind{configMapKind})
	var forbidden *ForbiddenError
	if !errors.As(err, &forbidden) || !strings.Contains(err.Error(), "system:serviceaccount:"+ns+":default") {
		t.Fatalf("the error is %v", err)
	}
	if strings.Contains(err.Error(), "impersonate") {
		t.Errorf("the denial is of the impersonation: %v", err)
	}
}

func TestWatchSurvivesARestartOfTheAPIServer(t *testing.T) {
	own, err := cluster.Start(t.Context(), cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	config, err := own.Config()
	if err != nil {
		t.Fatal(err)
	}
	ear := newEar()
	c := &Cluster{Config: config, Environment: "env-restart", Namespaces: []string{"default"}, Changed: ear.changed}
	if err := c.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Watch(deadline(t), []schema.GroupVersionKind{configMapKind}); err != nil {
		t.Fatal(err)
	}
	ref, text := configMap(t, "default", "before", "v")
	apply(t, c, text())
	if err := own.Kill(); err != nil {
		t.Fatal(err)
	}
	var away *UnavailableError
	if _, err := c.Read(deadline(t), ref, "v1"); !errors.As(err, &away) {
		t.Errorf("a read without an API server: %v", err)
	}
	if _, ok := c.Live(ref); !ok {
		t.Error("the cache was emptied by the outage")
	}
	if err := own.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().ConfigMaps("default").Delete(t.Context(), "before", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ear.until(t, "the watch has seen the deletion", func() bool { _, ok := c.Live(ref); return !ok })
}
