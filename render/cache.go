package render

import "slices"

// cacheObjects bounds what a Renderer remembers, in objects: the newest set of each overlay, the oldest forgotten first.
const cacheObjects = 20_000

// remembered is one result and what it was made of.
type remembered struct {
	key    string
	result *Result
}

// cached finds the result of key if every path that it was made of would read the same in tree.
func (r *Renderer) cached(key string, tree Tree) *Result {
	r.mu.Lock()
	i := slices.IndexFunc(r.results, func(c remembered) bool { return c.key == key })
	var found *Result
	if i >= 0 {
		found = r.results[i].result
	}
	r.mu.Unlock()
	if found == nil || !same(found.Reads, tree) {
		return nil
	}
	r.remember(key, found)
	hit := *found
	hit.Cached, hit.PeakRSS, hit.Took = true, 0, 0
	return &hit
}

// same reports whether every path leads to what it led to.
func same(reads map[string]string, tree Tree) bool {
	for name, state := range reads {
		if stateOf(tree, name) != state {
			return false
		}
	}
	return true
}

// remember puts a result in front, in place of the one of the same key, and forgets the oldest.
func (r *Renderer) remember(key string, result *Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	others := slices.DeleteFunc(r.results, func(c remembered) bool { return c.key == key })
	r.results = slices.Insert(others, 0, remembered{key, result})
	objects := 0
	for i, c := range r.results {
		if objects += c.result.Set.Len(); i > 0 && objects > cacheObjects {
			clear(r.results[i:])
			r.results = r.results[:i]
			return
		}
	}
}
