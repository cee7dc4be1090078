package cache

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/object"
)

// Put stores what a watch told and reports whether that is news.
func (c *Cache) Put(s Scope, l *Live) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(s, l.ResourceVersion)
	return c.store(s.Side, l)
}

// Reach notes how far a watch has come.
func (c *Cache) Reach(s Scope, resourceVersion string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(s, resourceVersion)
}

// Wrote stores the answer to a write of ours, so that the caller never sees a state older than it wrote. It
// does nothing where the watch is further already: the object may have been deleted since.
func (c *Cache) Wrote(live *unstructured.Unstructured) {
	ref := object.RefOf(live)
	c.mu.Lock()
	defer c.mu.Unlock()
	seen, watched := c.seen[Scope{Kind: ref.GroupKind(), Namespace: ref.Namespace}]
	if !watched {
		seen, watched = c.seen[Scope{Kind: ref.GroupKind()}]
	}
	if !watched || !newer(live.GetResourceVersion(), seen) || !c.labelled(live) {
		return
	}
	if l, err := NewLive(live.DeepCopy()); err == nil {
		c.store(false, l)
	}
}

func (c *Cache) labelled(u *unstructured.Unstructured) bool {
	return u.GetLabels()[object.EnvironmentLabel] == string(c.environment)
}

// Expect says that an object disappears because of us.
func (c *Cache) Expect(r object.Ref, uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.ours[r]; l != nil && l.UID == uid {
		c.leaving[uid] = true
	}
}

// Unexpect takes Expect back.
func (c *Cache) Unexpect(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leaving, uid)
}

// Vanish takes what a watch no longer shows out of the cache if it is surely gone, or ours to explain, and
// returns it as removed. Else it stays and is returned as doubtful: whether it was deleted or only lost our label must be asked.
func (c *Cache) Vanish(s Scope, r object.Ref, resourceVersion string, deleting bool) (doubtful, removed *Live) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(s, resourceVersion)
	have := c.get(s.Side, r)
	switch {
	case have == nil, newer(have.ResourceVersion, resourceVersion):
		return nil, nil
	case s.Side, deleting, have.Deleting, c.leaving[have.UID]:
		c.remove(s.Side, r)
		return nil, have
	}
	return have, nil
}

// Settle stores what was found in the place of a doubtful object: nil if nothing. It reports whether that is news.
func (c *Cache) Settle(was *Live, found *unstructured.Unstructured) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ours[was.Ref] != was {
		return false // a watch or a write was faster
	}
	c.remove(false, was.Ref)
	if found == nil || found.GetUID() != was.UID {
		return true
	}
	if !c.labelled(found) {
		c.shorn[was.Ref] = true
	} else if l, err := NewLive(found); err == nil {
		c.store(false, l)
	}
	return true
}

// Gone forgets an object that lost our label after a read that did not find it: no watch tells of that. It reports whether that is news.
func (c *Cache) Gone(r object.Ref) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.shorn[r]
	delete(c.shorn, r)
	return was
}

// Strayed lists what the cache holds in a scope and list has not.
func (c *Cache) Strayed(s Scope, list map[object.Ref]bool) []object.Ref {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var refs []object.Ref
	look := func(r object.Ref) {
		if s.covers(r) && !list[r] {
			refs = append(refs, r)
		}
	}
	if !s.Side {
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

// Forget drops a scope whose kind is not served any more.
func (c *Cache) Forget(s Scope) {
	strays := c.Strayed(s, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.seen, s)
	for _, r := range strays {
		c.remove(s.Side, r)
	}
}
