package kube

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

// Live is an object as the watch cache has it. It is never changed.
type Live struct {
	Ref             object.Ref
	Version         string // API version without the group
	UID             types.UID
	ResourceVersion string
	Generation      int64
	Deleting        bool
	Unlabelled      bool   // somebody took our label off; as it was found then
	Born            string // the stamp of who created it
	body            []byte // compact JSON: a decoded object takes five times the memory
}

// Object decodes the whole object. The caller owns the result.
func (l *Live) Object() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(l.body); err != nil {
		panic("the watch cache holds what it did not write: " + err.Error()) // written by compact, below
	}
	return u
}

// compact keeps an object as the cache holds it. It uses up u.
func compact(u *unstructured.Unstructured) (*Live, error) {
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

// scope is what one watch covers: a kind in one namespace, or in all if it is empty.
type scope struct {
	kind      schema.GroupKind
	namespace string
	side      bool // pods and replica sets of everybody, stripped
}

func (s scope) covers(r object.Ref) bool {
	return s.kind == r.GroupKind() && (s.namespace == "" || s.namespace == r.Namespace)
}

// place is where the cache keeps the objects of one kind in one namespace.
type place struct {
	kind      schema.GroupKind
	namespace string
}

// cache is what the watches saw last.
type cache struct {
	mu      sync.RWMutex
	ours    map[object.Ref]*Live
	side    map[place]map[string]*Live // pods and replica sets by name
	seen    map[scope]string           // resourceVersion up to which a watch has told everything
	leaving map[types.UID]bool         // deleted or given away by us: their disappearance needs no explanation
}

func (c *cache) open() {
	c.ours, c.side = map[object.Ref]*Live{}, map[place]map[string]*Live{}
	c.seen, c.leaving = map[scope]string{}, map[types.UID]bool{}
}

func (c *cache) live(r object.Ref) (*Live, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l, ok := c.ours[r]
	return l, ok
}

// Live finds an object with our label in the watch cache. It sends nothing.
func (c *Cluster) Live(r object.Ref) (*Live, bool) { return c.cache.live(r) }

// Owned lists, in order, every object of the watched kinds that carries our label.
func (c *Cluster) Owned() []object.Ref {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	refs := make([]object.Ref, 0, len(c.cache.ours))
	for r, l := range c.cache.ours {
		if !l.Unlabelled {
			refs = append(refs, r)
		}
	}
	slices.SortFunc(refs, object.Ref.Compare)
	return refs
}

// newer reports that resourceVersion a comes after b; what cannot be compared is not newer.
func newer(a, b string) bool {
	n, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && n > 0
}

// put stores what a watch told and reports whether that is news.
func (c *cache) put(s scope, l *Live) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(s, l.ResourceVersion)
	return c.store(s.side, l)
}

func (c *cache) store(side bool, l *Live) bool {
	have := c.get(side, l.Ref)
	if have != nil && !have.Unlabelled && (have.ResourceVersion == l.ResourceVersion || newer(have.ResourceVersion, l.ResourceVersion)) {
		return false // the answer to a write of ours was faster than the watch
	}
	if !side {
		c.ours[l.Ref] = l
		return true
	}
	p := place{l.Ref.GroupKind(), l.Ref.Namespace}
	if c.side[p] == nil {
		c.side[p] = map[string]*Live{}
	}
	c.side[p][l.Ref.Name] = l
	return true
}

func (c *cache) get(side bool, r object.Ref) *Live {
	if side {
		return c.side[place{r.GroupKind(), r.Namespace}][r.Name]
	}
	return c.ours[r]
}

func (c *cache) remove(side bool, r object.Ref) {
	if side {
		delete(c.side[place{r.GroupKind(), r.Namespace}], r.Name)
		return
	}
	if l := c.ours[r]; l != nil {
		delete(c.leaving, l.UID)
	}
	delete(c.ours, r)
}

func (c *cache) advance(s scope, resourceVersion string) {
	if resourceVersion != "" {
		c.seen[s] = resourceVersion
	}
}

// wrote stores the answer to a write of ours, so that the caller never sees a state older than it wrote. It
// does nothing where the watch is further already: the object may have been deleted since.
func (c *cache) wrote(live *unstructured.Unstructured, environment types.UID) {
	ref := object.RefOf(live)
	c.mu.Lock()
	defer c.mu.Unlock()
	seen, watched := c.seen[scope{kind: ref.GroupKind(), namespace: ref.Namespace}]
	if !watched {
		seen, watched = c.seen[scope{kind: ref.GroupKind()}]
	}
	if !watched || !newer(live.GetResourceVersion(), seen) || live.GetLabels()[object.EnvironmentLabel] != string(environment) {
		return
	}
	if l, err := compact(live.DeepCopy()); err == nil {
		c.store(false, l)
	}
}

// expect says that an object disappears because of us.
func (c *cache) expect(r object.Ref, uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.ours[r]; l != nil && l.UID == uid {
		c.leaving[uid] = true
	}
}

func (c *cache) unexpect(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leaving, uid)
}

// vanish takes what a watch no longer shows out of the cache if it is surely gone, or ours to explain. Else
// doubt is true: whether it was deleted or only lost our label must be asked.
func (c *cache) vanish(s scope, r object.Ref, resourceVersion string, deleting bool) (doubt, removed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(s, resourceVersion)
	have := c.get(s.side, r)
	switch {
	case have == nil, have.Unlabelled, newer(have.ResourceVersion, resourceVersion):
		return false, false
	case s.side, deleting, have.Deleting, c.leaving[have.UID]:
		c.remove(s.side, r)
		return false, true
	}
	return true, false
}

// settle stores what was found where an object had vanished: nil if it is gone. It reports whether that is news.
func (c *cache) settle(was *Live, found *unstructured.Unstructured, environment types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	have := c.ours[was.Ref]
	if have == nil || have.UID != was.UID || have.ResourceVersion != was.ResourceVersion {
		return false // the watch or a write was faster
	}
	c.remove(false, was.Ref)
	if found == nil || found.GetUID() != was.UID {
		return true
	}
	labelled := found.GetLabels()[object.EnvironmentLabel] == string(environment)
	if l, err := compact(found); err == nil {
		l.Unlabelled = !labelled
		c.ours[l.Ref] = l
	}
	return true
}

// strayed lists what the cache holds in a scope and list has not.
func (c *cache) strayed(s scope, list map[object.Ref]bool) []object.Ref {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var refs []object.Ref
	look := func(r object.Ref) {
		if s.covers(r) && !list[r] {
			refs = append(refs, r)
		}
	}
	if !s.side {
		for r := range c.ours {
			look(r)
		}
		return refs
	}
	for _, names := range c.side {
		for _, l := range names {
			look(l.Ref)
		}
	}
	return refs
}

// forget drops a scope whose kind is not served any more.
func (c *cache) forget(s scope) {
	strays := c.strayed(s, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.seen, s)
	for _, r := range strays {
		c.remove(s.side, r)
	}
}

func (c *cache) find(side bool, r object.Ref) *Live {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.get(side, r)
}

func (c *cache) reach(s scope, resourceVersion string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(s, resourceVersion)
}

// owner climbs from a pod or replica set to the object of ours that it belongs to.
func (c *cache) owner(l *Live) (object.Ref, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for l != nil {
		ref := metav1.GetControllerOf(l.Object())
		if ref == nil {
			return object.Ref{}, false
		}
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		if err != nil {
			return object.Ref{}, false
		}
		up := object.Ref{Group: gv.Group, Kind: ref.Kind, Namespace: l.Ref.Namespace, Name: ref.Name}
		if o := c.ours[up]; o != nil && o.UID == ref.UID {
			return up, true
		}
		l = c.get(true, up)
	}
	return object.Ref{}, false
}
