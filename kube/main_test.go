package kube

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/object"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// counter counts the requests of a client by verb and path.
type counter struct {
	mu       sync.Mutex
	requests []string
}

func (c *counter) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		c.mu.Lock()
		c.requests = append(c.requests, r.Method+" "+r.URL.RequestURI())
		c.mu.Unlock()
		return next.RoundTrip(r)
	})
}

// take returns the requests since the last call.
func (c *counter) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.requests
	c.requests = nil
	return taken
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// open returns a cluster with an environment of its own.
func open(t *testing.T, environment string, change func(*Cluster)) (*Cluster, *counter) {
	t.Helper()
	counter := &counter{}
	c := &Cluster{Config: rest.CopyConfig(clustertest.Config(t)), Environment: types.UID(environment)}
	c.Config.Wrap(counter.wrap)
	if change != nil {
		change(c)
	}
	if err := c.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, counter
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func manifest(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return u
}

func read(t *testing.T, c *Cluster, like *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	u, err := c.Read(deadline(t), object.RefOf(like), like.GroupVersionKind().Version)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// afterwards is for what runs after the test's own context has ended.
func afterwards(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
