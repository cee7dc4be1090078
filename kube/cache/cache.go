// Package cache remembers what the watches of a cluster saw last, as compact JSON.
package cache

import (
	"encoding/json"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/nexus-platform/reconciler/object"
)

// Live is an object as a watch told it last. It is never changed.
type Live struct {
	Ref             object.Ref
	Version         string // API version without the group
	UID             types.UID
	ResourceVersion string
	Generation      int64
	Deleting        bool
	Born            string // the stamp of who created it
	body            []byte // compact JSON: a decoded object takes five times the memory
	side            any    // *corev1.Pod or *appsv1.ReplicaSet, then there is no body
}

// Object decodes the whole object. The caller owns the result.
func (l *Live) Object() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(l.body); err != nil {
		panic("the watch cache holds what it did not write: " + err.Error()) // NewLive wrote it
	}
	return u
}

// NewLive makes the compact form of an object. It uses u up.
func NewLive(u *unstructured.Unstructured) (*Live, error) {
	u.SetManagedFields(slices.DeleteFunc(u.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool { return e.Subresource == "status" }))
	body, err := json.Marshal(u.Object)
	if err != nil {
		return nil, err
	}
	return &Live{
		Ref: object.RefOf(u), Version: u.GroupVersionKind().Version, UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(),
		Generation: u.GetGeneration(), Deleting: u.GetDeletionTimestamp() != nil, Born: u.GetAnnotations()[object.BornAnnotation], body: body,
	}, nil
}

// Scope is what one watch covers: a kind in one namespace, or in all if that is empty.
type Scope struct {
	Kind      schema.GroupKind
	Namespace string
	Side      bool // the pods and replica sets of everybody, which stand beside our own objects
}

func (s Scope) covers(r object.Ref) bool {
	return s.Kind == r.GroupKind() && (s.Namespace == "" || s.Namespace == r.Namespace)
}

// place is where side objects of one kind in one namespace are kept.
type place struct {
	kind      schema.GroupKind
	namespace string
}

// Cache holds the objects of one environment. New makes it.
type Cache struct {
	environment types.UID

	mu      sync.RWMutex
	ours    map[object.Ref]*Live
	side    map[place]map[string]*Live // by name
	seen    map[Scope]string           // resourceVersion up to which a watch has told everything
	shorn   map[object.Ref]bool        // there, but somebody took our label off: no watch follows it
	leaving map[types.UID]bool         // deleted or given away by us: that they disappear needs no explanation
}

// New makes an empty cache for the objects whose label names environment.
func New(environment types.UID) *Cache {
	return &Cache{
		environment: environment, ours: map[object.Ref]*Live{}, side: map[place]map[string]*Live{},
		seen: map[Scope]string{}, shorn: map[object.Ref]bool{}, leaving: map[types.UID]bool{},
	}
}

// Live finds an object of ours.
func (c *Cache) Live(r object.Ref) (*Live, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l, ok := c.ours[r]
	return l, ok
}

// Unlabelled reports that an object was found without our label when it vanished from its watch.
func (c *Cache) Unlabelled(r object.Ref) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.shorn[r]
}

// Owned lists, in order, every object that carries our label.
func (c *Cache) Owned() []object.Ref {
	c.mu.RLock()
	defer c.mu.RUnlock()
	refs := make([]object.Ref, 0, len(c.ours))
	for r := range c.ours {
		refs = append(refs, r)
	}
	slices.SortFunc(refs, object.Ref.Compare)
	return refs
}

// newer reports that resourceVersion a comes after b; what cannot be compared is not newer.
func newer(a, b string) bool {
	n, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && n > 0
}

func (c *Cache) get(side bool, r object.Ref) *Live {
	if side {
		return c.side[place{r.GroupKind(), r.Namespace}][r.Name]
	}
	return c.ours[r]
}

func (c *Cache) store(side bool, l *Live) bool {
	have := c.get(side, l.Ref)
	if have != nil && have.Version == l.Version && (have.ResourceVersion == l.ResourceVersion || newer(have.ResourceVersion, l.ResourceVersion)) {
		return false // the answer to a write of ours was faster than the watch
	}
	if !side {
		c.ours[l.Ref] = l
		delete(c.shorn, l.Ref)
		return true
	}
	p := place{l.Ref.GroupKind(), l.Ref.Namespace}
	if c.side[p] == nil {
		c.side[p] = map[string]*Live{}
	}
	c.side[p][l.Ref.Name] = l
	return true
}

func (c *Cache) remove(side bool, r object.Ref) {
	if side {
		delete(c.side[place{r.GroupKind(), r.Namespace}], r.Name)
		return
	}
	if l := c.ours[r]; l != nil {
		delete(c.leaving, l.UID)
	}
	delete(c.ours, r)
}

func (c *Cache) advance(s Scope, resourceVersion string) {
	if resourceVersion != "" {
		c.seen[s] = resourceVersion
	}
}
