package objects

import (
	"container/heap"
	"context"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// Commits reads commit objects.
type Commits interface {
	Commit(plumbing.Hash) (Commit, error)
}

// visit is a commit met on a walk.
type visit struct {
	hash    plumbing.Hash
	parents []plumbing.Hash
	when    time.Time
	isNew   bool // reachable from the tip
	old     bool // reachable from a base
	queued  bool
}

// open says that no base has the commit, as far as is known yet.
func (v *visit) open() bool { return v.isNew && !v.old }

// Since walks back from tip and from the bases, newest first, until all that is left belongs to the
// bases. It returns the commits that the bases do not have, tip first, and of the bases those that
// tip descends from. With clocks that run backwards it may return commits that a base has too, never
// fewer, and what it says of descent is exact: a commit between tip and a base is never reachable
// from that base, so the walk cannot stop before it.
func Since(ctx context.Context, from Commits, tip plumbing.Hash, bases ...plumbing.Hash) ([]plumbing.Hash, map[plumbing.Hash]bool, error) {
	w := walk{from: from, seen: make(map[plumbing.Hash]*visit)}
	for _, b := range bases {
		if err := w.add(b, false, true); err != nil {
			return nil, nil, err
		}
	}
	if err := w.add(tip, true, false); err != nil {
		return nil, nil, err
	}
	for w.open > 0 {
		if err := ctx.Err(); err != nil {
			return nil, nil, context.Cause(ctx)
		}
		v := w.pop()
		for _, p := range v.parents {
			if err := w.add(p, v.isNew, v.old); err != nil {
				return nil, nil, err
			}
		}
	}
	reached := make(map[plumbing.Hash]bool)
	for _, b := range bases {
		reached[b] = w.seen[b].isNew
	}
	var fresh []plumbing.Hash
	for _, v := range w.order {
		if v.open() {
			fresh = append(fresh, v.hash)
		}
	}
	return fresh, reached, nil
}

type walk struct {
	from  Commits
	seen  map[plumbing.Hash]*visit
	order []*visit // as first met
	queue byTime
	open  int // queued commits that no base has
}

// add marks a commit; what is new about it must be told to its parents, so it is queued (again).
func (w *walk) add(h plumbing.Hash, isNew, old bool) error {
	v, known := w.seen[h]
	if known && (!isNew || v.isNew) && (!old || v.old) {
		return nil
	}
	if !known {
		c, err := w.from.Commit(h)
		if err != nil {
			return err
		}
		v = &visit{hash: h, parents: c.Parents, when: c.When}
		w.seen[h] = v
		w.order = append(w.order, v)
	}
	if v.queued && v.open() {
		w.open--
	}
	v.isNew, v.old = v.isNew || isNew, v.old || old
	if !v.queued {
		v.queued = true
		heap.Push(&w.queue, v)
	}
	if v.open() {
		w.open++
	}
	return nil
}

func (w *walk) pop() *visit {
	v := heap.Pop(&w.queue).(*visit)
	v.queued = false
	if v.open() {
		w.open--
	}
	return v
}

// byTime is a heap, newest first.
type byTime []*visit

func (q byTime) Len() int           { return len(q) }
func (q byTime) Less(i, j int) bool { return q[i].when.After(q[j].when) }
func (q byTime) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *byTime) Push(v any)        { *q = append(*q, v.(*visit)) }
func (q *byTime) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
