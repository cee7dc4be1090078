package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/object"
)

// work is what is known of the open release. All of it but the records can be read
// back from the journal; the records come again when the applies are repeated.
type work struct {
	candidate *candidate
	plan      *Plan
	base      *world
	images    map[object.Ref]*unstructured.Unstructured // of adopted objects, as they were
	before    object.Inventory                          // the inventory when the release began
	ignored   func(object.Ref) []string
	stamp     string // on everything that this release creates

	mu       sync.Mutex
	records  map[object.Ref]object.Record // of what this process applied
	wants    map[object.Ref]int64         // the generation that the last apply gave
	proved   bool                         // the barrier of phase 1 has passed
	waiting  map[object.Phase]waiting     // since when, for phases that wait
	done     map[object.Phase]bool        // phases that have passed once
	told     object.Phase                 // the newest phase that was told
	troubled time.Time                    // since when the cluster does not answer; zero: it does
	healthy  time.Time                    // since when the whole set is healthy at once
	undoing  *undoing                     // the way back, once it has begun
	passed   map[string]bool              // checks of phase 8
}

type waiting struct{ since time.Time }

func newWork(c *candidate, p *Plan, base *world, images []*unstructured.Unstructured) *work {
	w := &work{
		candidate: c, plan: p, base: base, ignored: foreignFields(c.set, c.policy),
		images:  map[object.Ref]*unstructured.Unstructured{},
		records: map[object.Ref]object.Record{}, wants: map[object.Ref]int64{},
		waiting: map[object.Phase]waiting{}, passed: map[string]bool{}, done: map[object.Phase]bool{},
	}
	for _, u := range images {
		w.images[object.RefOf(u)] = u
	}
	w.before = sortedRecords(base.inventory)
	return w
}

func (w *work) applied(ref object.Ref) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.records[ref]
	return ok
}

// ended reports a Job that was applied and removed itself.
func (w *work) ended(ref object.Ref) bool {
	o, ok := w.candidate.set.Get(ref)
	return ok && endsItself(o.Body) && w.applied(ref)
}

func (w *work) record(rec object.Record, generation int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records[rec.Ref] = rec
	w.wants[rec.Ref] = generation
}

func (w *work) want(ref object.Ref) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if failpoint.Without(failpoint.HealthOfApplied) {
		return 0
	}
	return w.wants[ref]
}

// union is what is owned while the release is open: the old world and the new one (protocol rule 1).
func (w *work) union() object.Inventory {
	coming := object.Inventory{}
	for _, a := range w.plan.Actions {
		if a.Do == Create || a.Do == Adopt {
			coming = append(coming, object.Record{Ref: a.Ref, Version: a.Version, UID: a.UID, Phase: a.Phase})
		}
	}
	return w.before.Union(coming)
}

// after is what is owned once the release is finished: the set, and what is still going away.
func (w *work) after(remaining map[object.Ref]bool) (object.Inventory, error) {
	old := w.before.ByRef()
	var inv object.Inventory
	for _, o := range w.candidate.set.Objects {
		rec, ok := w.records[o.Ref]
		if !ok {
			if rec, ok = old[o.Ref]; !ok {
				return nil, fmt.Errorf("no record of %s, which the release declares", o.Ref)
			}
		}
		inv = append(inv, rec)
	}
	for ref := range remaining {
		inv = append(inv, old[ref])
	}
	return inv.Sorted(), nil
}

// store makes the bundles of a release durable before its first write (S1) and names them in a journal.Release.
func (r *Reconciler) store(ctx context.Context, h journal.Head, w *work) (journal.Release, string, error) {
	c := w.candidate
	rel := journal.Release{
		Number: c.info.Number, Commit: c.info.Commit, Kind: c.info.Kind, By: c.info.By, Subject: c.info.Subject,
		BegunAt: r.Now(), Before: h.Inventory,
	}
	lean, err := json.Marshal(w.plan.Lean())
	if err != nil {
		return rel, "", err
	}
	images := make([]*unstructured.Unstructured, 0, len(w.images))
	for _, o := range c.set.Objects {
		if u, ok := w.images[o.Ref]; ok {
			images = append(images, u)
		}
	}
	put := func(into *string, what string) func(journal.Bundle, error) {
		return func(b journal.Bundle, bad error) {
			if err == nil {
				err = bad
			}
			if err == nil {
				*into, err = r.Journal.Store(ctx, b)
			}
			if err != nil {
				err = fmt.Errorf("store the %s: %w", what, err)
			}
		}
	}
	var union string
	put(&rel.Set, "set")(journal.SetBundle(c.set))
	put(&rel.Plan, "plan")(journal.PlanBundle(lean, rel.Number), nil)
	put(&union, "inventory")(journal.InventoryBundle(w.union()))
	if len(c.policyBytes) > 0 {
		put(&rel.Policy, "policy")(journal.BlobBundle("policy", c.policyBytes), nil)
	}
	if len(images) > 0 {
		put(&rel.Images, "pre-images")(journal.ImagesBundle(images))
	}
	return rel, union, err
}

// load reads the open release back from the journal.
func (r *Reconciler) load(ctx context.Context, h journal.Head) (*work, error) {
	if r.work != nil && r.work.candidate.info.Number == h.Release.Number {
		return r.work, nil
	}
	rel := h.Release
	c := &candidate{info: ReleaseInfo{Number: rel.Number, Commit: rel.Commit, Kind: rel.Kind, By: rel.By, Subject: rel.Subject, Began: rel.BegunAt}}
	var err error
	if c.set, err = r.loadSet(ctx, rel.Set); err != nil {
		return nil, fmt.Errorf("load the set of release %d: %w", rel.Number, err)
	}
	if c.policyBytes, err = r.loadBlob(ctx, rel.Policy); err != nil {
		return nil, fmt.Errorf("load the policy of release %d: %w", rel.Number, err)
	}
	if err := c.adopt("release.yaml of "+rel.Commit, r.Now); err != nil {
		return nil, err
	}
	b, err := r.loadBlob(ctx, rel.Plan)
	if err != nil {
		return nil, fmt.Errorf("load the plan of release %d: %w", rel.Number, err)
	}
	plan := &Plan{}
	if err := json.Unmarshal(b, plan); err != nil {
		return nil, fmt.Errorf("read the plan of release %d: %w", rel.Number, err)
	}
	var images []*unstructured.Unstructured
	if rel.Images != "" {
		bundle, err := r.Journal.Load(ctx, rel.Images)
		if err != nil {
			return nil, fmt.Errorf("load the pre-images of release %d: %w", rel.Number, err)
		}
		if images, err = bundle.Images(); err != nil {
			return nil, err
		}
	}
	before := h
	before.Inventory = rel.Before
	base, err := r.deployed(ctx, before)
	if err != nil {
		return nil, err
	}
	if err := r.watch(ctx, c.set, base); err != nil {
		return nil, err
	}
	r.work = newWork(c, plan, base, images)
	r.work.stamp = stamp(r.Environment.UID, h.Release.Epoch)
	return r.work, nil
}
