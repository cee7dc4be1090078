package reconcile

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
		if h, err = r.swap(ctx, h, h.First(max(r.newest, r.Environment.Status.Release))); err != nil {
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
