package kube

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	clientcache "k8s.io/client-go/tools/cache"

	"github.com/nexus-platform/reconciler/kube/cache"
	"github.com/nexus-platform/reconciler/object"
)

// A watch is the store that its reflector fills. The reflector keeps the first list
// in a store of its own until it is complete; entry is the compact form in which it does.

// entry is a Live that client-go can name.
type entry struct{ *Live }

// GetObjectMeta tells the reflector namespace and name.
func (e entry) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: e.Ref.Namespace, Name: e.Ref.Name, ResourceVersion: e.ResourceVersion}
}

// Transformer makes the reflector keep entries, not decoded objects.
func (w *watch) Transformer() clientcache.TransformFunc {
	return func(o any) (any, error) { return w.entry(o) }
}

func (w *watch) entry(o any) (entry, error) {
	switch o := o.(type) {
	case entry:
		return o, nil
	case *unstructured.Unstructured:
		l, err := w.compact(o)
		return entry{l}, err
	}
	return entry{}, fmt.Errorf("a watch of %s brought a %T", w.gvk, o)
}

func (w *watch) compact(u *unstructured.Unstructured) (*Live, error) {
	if w.scope.Side {
		return cache.NewSide(u)
	}
	return cache.NewLive(u)
}

// Add stores an object that appeared.
func (w *watch) Add(o any) error { return w.Update(o) }

// Update stores an object that changed.
func (w *watch) Update(o any) error {
	e, err := w.entry(o)
	if err != nil {
		return err
	}
	if w.c.cache.Put(w.scope, e.Live) {
		w.tell(e.Live)
	}
	return nil
}

// Delete looks after an object that is not in the watch any more.
func (w *watch) Delete(o any) error {
	e, err := w.entry(o)
	if err != nil {
		return err
	}
	w.vanished(e.Live)
	return nil
}

func (w *watch) vanished(l *Live) {
	doubtful, removed := w.c.cache.Vanish(w.scope, l.Ref, l.ResourceVersion, l.Deleting)
	switch {
	case doubtful != nil:
		w.doubt(doubtful)
	case removed != nil:
		w.tell(removed)
	}
}

// Replace stores a whole list, after the watch began or had to begin again.
func (w *watch) Replace(list []any, resourceVersion string) error {
	listed := make(map[object.Ref]bool, len(list))
	var news []*Live
	for _, o := range list {
		e, err := w.entry(o)
		if err != nil {
			return err
		}
		listed[e.Ref] = true
		if w.c.cache.Put(w.scope, e.Live) {
			news = append(news, e.Live)
		}
	}
	w.c.cache.Reach(w.scope, resourceVersion)
	for _, r := range w.c.cache.Strayed(w.scope, listed) {
		w.vanished(&Live{Ref: r, ResourceVersion: resourceVersion})
	}
	select {
	case <-w.synced:
		for _, l := range news {
			w.tell(l)
		}
	default:
		close(w.synced)
		if len(news) > 0 {
			w.c.changed(object.Ref{})
		}
	}
	return nil
}

// Resync is part of the reflector's interface; there is no resync.
func (w *watch) Resync() error { return nil }

// UpdateResourceVersion notes how far the watch has come.
func (w *watch) UpdateResourceVersion(resourceVersion string) {
	w.c.cache.Reach(w.scope, resourceVersion)
}

// tell reports a change: of an object of ours, or of the one whose pods or replica sets these are.
func (w *watch) tell(l *Live) {
	if !w.scope.Side {
		w.c.changed(l.Ref)
		return
	}
	if owner, ok := w.c.cache.Owner(l); ok {
		w.c.changed(owner)
	}
}
