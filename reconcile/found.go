package reconcile

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
)

// unfounded reports a head that says nothing yet.
func unfounded(h journal.Head) bool {
	return h.Good == nil && h.Release == nil && h.Last == nil && h.Inventory == ""
}

// found makes sure that there is a head. Where a person deleted the journal to begin anew, its inventory is what the old one left
// in the cluster, of the kinds that the commit declares: so the first release prunes what it does not declare, within the guards.
func (r *Reconciler) found(ctx context.Context, h journal.Head, c *candidate) (journal.Head, error) {
	if !unfounded(h) {
		return h, nil
	}
	var err error
	if !h.Exists() {
		if h, err = r.swap(ctx, h, h.First(max(r.newest, r.Environment.Status.Release), r.Now())); err != nil {
			return h, err
		}
	}
	base, err := r.deployed(ctx, h)
	if err != nil {
		return h, err
	}
	if err := r.watch(ctx, c.set, base); err != nil {
		return h, err
	}
	left := r.left()
	if len(left) == 0 {
		return h, nil
	}
	digest, err := r.storeInventory(ctx, left)
	if err != nil {
		return h, err
	}
	return r.swap(ctx, h, h.Found(digest))
}

// left is what carries our label and was applied by us, in the kinds that are watched.
func (r *Reconciler) left() object.Inventory {
	var inv object.Inventory
	for _, ref := range r.Cluster.Owned() {
		live, here := r.Cluster.Live(ref)
		if !here || live.Deleting {
			continue
		}
		o := live.Object()
		if !kube.AppliedByUs(o) || metav1.GetControllerOf(o) != nil {
			continue
		}
		phase, err := object.PhaseOf(o, true)
		if err != nil { // its mark is wrong: it has no place of its own
			phase = object.Infrastructure
		}
		inv = append(inv, object.Record{Ref: ref, Version: live.Version, UID: live.UID, Phase: phase})
	}
	return inv
}

// forget makes this process know nothing: the journal was lost, or began anew.
func (r *Reconciler) forget() {
	r.head, r.good, r.work, r.refused, r.same, r.epoch = nil, nil, nil, nil, "", 0
	r.drifted, r.unwell, r.looked = nil, nil, false
}

// overLeftovers reports a first release over objects that were here before it: no set says how they were, so it can't be undone.
func overLeftovers(h journal.Head) bool { return h.Good == nil && h.Release.Before != "" }

// keep ends a first release that failed without undoing it: a person looks at it, and a new commit is released as usual.
func (r *Reconciler) keep(ctx context.Context, h journal.Head, w *work) (Result, error) {
	var inv object.Inventory
	for _, a := range w.plan.Actions {
		live, err := r.Cluster.Read(ctx, a.Ref, a.Version)
		if absent(err) {
			continue
		}
		if err != nil {
			return Result{Head: h}, fmt.Errorf("look at %s: %w", a.Ref, err)
		}
		rec := object.Record{Ref: a.Ref, Version: a.Version, UID: live.GetUID(), Phase: a.Phase}
		if live.GetLabels()[object.EnvironmentLabel] == string(r.Environment.UID) {
			inv = append(inv, rec) // without digests: the next release applies it again
		}
	}
	digest, err := r.storeInventory(ctx, inv)
	if err != nil {
		return Result{Head: h}, err
	}
	return r.undone(ctx, h, w, digest, v1alpha1.Halted, nil)
}
