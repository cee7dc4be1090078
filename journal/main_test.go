package journal

import (
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/object"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// wire stands between a journal and the real API server: it counts what is written, and can lose an answer.
type wire struct {
	mu     sync.Mutex
	reads  int
	writes int
	bytes  int64
	lose   func(*http.Request) bool // the request is carried out, its answer never comes
}

func (w *wire) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		w.mu.Lock()
		lose := w.lose != nil && w.lose(r)
		if r.Method == http.MethodGet {
			w.reads++
		} else {
			w.writes++
			w.bytes += r.ContentLength
		}
		w.mu.Unlock()
		answer, err := next.RoundTrip(r)
		if err == nil && lose {
			_, _ = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			return nil, io.ErrUnexpectedEOF
		}
		return answer, err
	})
}

// take returns what went over the wire since the last call.
func (w *wire) take() (reads, writes int, bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	reads, writes, bytes = w.reads, w.writes, w.bytes
	w.reads, w.writes, w.bytes = 0, 0, 0
	return reads, writes, bytes
}

func (w *wire) losing(lose func(*http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = lose
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// open makes the journal of an environment in a namespace, as a process that has just started has it.
func open(t *testing.T, namespace string) (*Journal, *wire) {
	t.Helper()
	w := &wire{}
	config := rest.CopyConfig(clustertest.Config(t))
	config.QPS = -1
	config.Wrap(w.wrap)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return &Journal{
		Secrets:     client.CoreV1().Secrets(namespace),
		Metadata:    meta.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(namespace),
		Environment: types.UID("env-" + namespace), Now: time.Now,
	}, w
}

// begun is a journal with a head that is idle.
func begun(t *testing.T, namespace string) (*Journal, Head) {
	t.Helper()
	j, _ := open(t, namespace)
	h, err := j.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h, err = j.Swap(t.Context(), h, h.First(0, time.Time{})); err != nil {
		t.Fatal(err)
	}
	return j, h
}

func store(t *testing.T, j *Journal, b Bundle) string {
	t.Helper()
	digest, err := j.Store(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func setBundle(t *testing.T, s *object.Set) Bundle {
	t.Helper()
	b, err := SetBundle(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// deployment number i of a release, at a revision of its own.
func deployment(i, revision int) *unstructured.Unstructured {
	name := fmt.Sprintf("service-%04d", i)
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": name, "namespace": "shop", "labels": map[string]any{"app": name}},
		"spec": map[string]any{
			"replicas": int64(3),
			"selector": map[string]any{"matchLabels": map[string]any{"app": name}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": name}},
				"spec": map[string]any{"containers": []any{map[string]any{
					"name": "app", "image": fmt.Sprintf("registry.example/shop/%s@sha256:%s", name, sum([]byte(name+strconv.Itoa(revision)))),
					"resources": map[string]any{"requests": map[string]any{"cpu": "100m", "memory": "64Mi"}},
				}}},
			},
		},
	}}
}

// secret holds size bytes that do not compress.
func secret(name string, size int, random *rand.ChaCha8) *unstructured.Unstructured {
	value := make([]byte, size)
	_, _ = random.Read(value)
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name, "namespace": "shop"},
		"data": map[string]any{"value": base64.StdEncoding.EncodeToString(value)},
	}}
	return u
}

func makeSet(t *testing.T, bodies ...*unstructured.Unstructured) *object.Set {
	t.Helper()
	objects := make([]object.Object, len(bodies))
	for i, u := range bodies {
		o, err := object.NewObject(u, object.Origin{Path: "apps/" + u.GetName() + ".yaml", Line: i + 1})
		if err != nil {
			t.Fatal(err)
		}
		objects[i] = o
	}
	set, err := object.NewSet(objects)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// seed makes random tests repeatable: the failing one says which.
func seed(t *testing.T) *rand.ChaCha8 {
	t.Helper()
	text := os.Getenv("NEXUS_TEST_SEED")
	if text == "" {
		text = strconv.FormatUint(rand.Uint64(), 16)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with NEXUS_TEST_SEED=%s", text)
		}
	})
	var key [32]byte
	copy(key[:], text+strings.Repeat(" ", 32))
	return rand.NewChaCha8(key)
}
