package kube

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	clientcache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/nexus-platform/reconciler/kube/cache"
	"github.com/nexus-platform/reconciler/kube/fault"
	"github.com/nexus-platform/reconciler/object"
)

// watchFor is how long one watch request lasts at least: an idle environment must cost next to no requests.
const watchFor = time.Hour

// watch is one running watch.
type watch struct {
	c       *Cluster
	scope   cache.Scope
	gvk     schema.GroupVersionKind
	request fault.Request
	cancel  context.CancelFunc

	once   sync.Once
	synced chan struct{} // closed when the first list is in the cache
	ended  chan struct{} // closed when it gave up; then err says why

	mu     sync.Mutex
	err    error   // of the last request
	doubts []*Live // vanished, to be asked for
	wake   chan struct{}
}

// Watch makes sure that our labelled objects of these kinds are in the cache and stay up to
// date until Close, in each namespace in scope, and the pods and replica sets of everybody beside them. It returns when all are in
// sync. Only what is not watched yet costs requests: one LIST per kind and namespace. A kind that the cluster does not
// serve is passed over; ask again when it may. A watch survives an outage of the API server; a *ForbiddenError says that it may never begin.
func (c *Cluster) Watch(ctx context.Context, kinds []schema.GroupVersionKind) error {
	wanted := map[cache.Scope]schema.GroupVersionKind{}
	for _, gvk := range kinds {
		if err := c.want(ctx, wanted, gvk, false); err != nil {
			return err
		}
	}
	for _, gvk := range []schema.GroupVersionKind{cache.Pod, cache.ReplicaSet} {
		if err := c.want(ctx, wanted, gvk, true); err != nil {
			return err
		}
	}
	running := make([]*watch, 0, len(wanted))
	c.mu.Lock()
	for s, gvk := range wanted {
		w, err := c.ensure(ctx, s, gvk)
		if err != nil {
			c.mu.Unlock()
			return err
		}
		running = append(running, w)
	}
	c.mu.Unlock()
	for _, w := range running {
		if err := w.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// want adds the scopes of one kind.
func (c *Cluster) want(ctx context.Context, wanted map[cache.Scope]schema.GroupVersionKind, gvk schema.GroupVersionKind, side bool) error {
	m, err := c.Mapping(ctx, gvk)
	var unknown *NoKindError
	if errors.As(err, &unknown) {
		return nil
	}
	if err != nil {
		return err
	}
	namespaces := []string{""}
	if m.Namespaced && len(c.Namespaces) > 0 {
		namespaces = c.Namespaces
	}
	for _, ns := range namespaces {
		wanted[cache.Scope{Kind: gvk.GroupKind(), Namespace: ns, Side: side}] = gvk
	}
	return nil
}

// ensure returns the watch of a scope, begun if there is none or one of another API version. The caller holds the lock.
func (c *Cluster) ensure(ctx context.Context, s cache.Scope, gvk schema.GroupVersionKind) (*watch, error) {
	if c.closed {
		return nil, context.Canceled
	}
	if w, ok := c.watches[s]; ok {
		if w.gvk == gvk {
			return w, nil
		}
		w.cancel()
	}
	m, err := c.Mapping(ctx, gvk)
	if err != nil {
		return nil, err
	}
	w := &watch{
		c: c, scope: s, gvk: gvk, synced: make(chan struct{}), ended: make(chan struct{}), wake: make(chan struct{}, 1),
		request: fault.Request{Ref: object.Ref{Group: gvk.Group, Kind: gvk.Kind, Namespace: s.Namespace}, Kind: gvk},
	}
	// The watch outlives the call that began it; Close ends it. client-go must not log: it may quote objects.
	life, cancel := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), logr.Discard()))
	w.cancel = cancel
	silent := logr.Discard()
	reflector := clientcache.NewReflectorWithOptions(w.lister(c.dynamic.Resource(m.Resource).Namespace(s.Namespace)), &unstructured.Unstructured{}, w,
		clientcache.ReflectorOptions{
			Logger: &silent, Name: gvk.String(), MinWatchTimeout: watchFor,
			Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Cap: 5 * time.Second, Steps: 6, Factor: 2, Jitter: 0.5},
		})
	c.watches[s] = w
	c.running.Go(func() { reflector.RunWithContext(life) })
	c.running.Go(func() { w.explain(life) })
	return w, nil
}

// lister asks the API server for the reflector and keeps what goes wrong.
func (w *watch) lister(client dynamic.ResourceInterface) clientcache.ListerWatcher {
	selector := ""
	if !w.scope.Side {
		selector = object.EnvironmentLabel + "=" + string(w.c.Environment)
	}
	return clientcache.ToListWatcherWithWatchListSemantics(&clientcache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = selector
			list, err := client.List(ctx, o)
			w.note(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			o.LabelSelector = selector
			events, err := client.Watch(ctx, o)
			w.note(ctx, err)
			return events, err
		},
	}, w.c.dynamic)
}

// note keeps the last error. A kind that is not served, and a first list that is forbidden, end the watch.
func (w *watch) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // an error of the end, which has its reason already
	}
	err = w.request.Classify(err)
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
	var forbidden *ForbiddenError
	var unknown *NoKindError
	switch {
	case errors.As(err, &unknown):
		w.c.kinds.forget(w.gvk)
		w.c.cache.Forget(w.scope)
		w.end()
		w.c.changed(object.Ref{})
	case errors.As(err, &forbidden):
		select {
		case <-w.synced: // access may come back: go on trying
		default:
			w.end()
		}
	}
}

// end gives the watch up, so that the next call of Watch begins it anew.
func (w *watch) end() {
	w.cancel()
	w.c.mu.Lock()
	if w.c.watches[w.scope] == w {
		delete(w.c.watches, w.scope)
	}
	w.c.mu.Unlock()
	w.once.Do(func() { close(w.ended) })
}

func (w *watch) await(ctx context.Context) error {
	last := func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.err
	}
	select {
	case <-w.synced:
		return nil
	case <-w.ended:
		var unknown *NoKindError
		if err := last(); !errors.As(err, &unknown) {
			return err
		}
		return nil
	case <-ctx.Done():
		if err := last(); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
			return err
		}
		return fault.Request{}.Classify(ctx.Err())
	}
}

// explain asks, one after the other, what became of objects that vanished from the watch.
func (w *watch) explain(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		for {
			w.mu.Lock()
			if len(w.doubts) == 0 {
				w.mu.Unlock()
				break
			}
			was := w.doubts[0]
			w.mu.Unlock()
			found, err := w.c.Read(ctx, was.Ref, w.gvk.Version)
			var unavailable *UnavailableError
			var throttled *ThrottledError
			if errors.As(err, &unavailable) || errors.As(err, &throttled) || ctx.Err() != nil {
				if pause(ctx, time.Second) != nil {
					return
				}
				continue
			}
			w.mu.Lock()
			w.doubts = w.doubts[1:]
			w.mu.Unlock()
			if w.c.cache.Settle(was, found) {
				w.c.changed(was.Ref)
			}
		}
	}
}

func (w *watch) doubt(l *Live) {
	w.mu.Lock()
	w.doubts = append(w.doubts, l)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
