package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/object"
)

// decide is the only decision of a release (S11): from here on it goes forward.
func (r *Reconciler) decide(ctx context.Context, h journal.Head, w *work) (Result, error) {
	failpoint.Here(failpoint.CommitBefore)
	decided := h.Commit()
	h, err := r.swap(ctx, h, decided)
	var unknown *journal.UnknownOutcomeError
	if errors.As(err, &unknown) && failpoint.Without(failpoint.OneDecision) {
		h, err = decided, nil
	}
	if err != nil {
		return Result{}, fmt.Errorf("decide release %d: %w", w.candidate.info.Number, err)
	}
	failpoint.Here(failpoint.CommitAfter)
	r.tell(Event{Kind: EventDecided, Release: &w.candidate.info})
	return r.finish(ctx, h)
}

// finish prunes and closes a decided release (S12, S13). Every step is safe to repeat.
func (r *Reconciler) finish(ctx context.Context, h journal.Head) (Result, error) {
	w, err := r.load(ctx, h)
	if err != nil {
		return Result{Head: h}, r.halt(h, err)
	}
	for _, phase := range object.Phases { // after a crash: their records are needed, and applying again changes nothing
		if err := each(ctx, w.plan.in(phase), func(ctx context.Context, a Action) error { return r.again(ctx, w, a) }); err != nil {
			return r.undoLater(h, err)
		}
	}
	if err := r.prunes(ctx, w); err != nil {
		return Result{Head: h}, r.halt(h, err)
	}
	inv, err := w.after(nil)
	if err != nil {
		return Result{Head: h}, err
	}
	digest, err := r.storeInventory(ctx, inv)
	if err != nil {
		return Result{Head: h}, err
	}
	now := r.Now()
	message := fmt.Sprintf("%s is deployed and verified", short(h.Release.Commit))
	if h.Release.Kind == KindRemove {
		message = "everything was taken away"
	}
	mark := journal.Mark{Release: h.Release.Number, Commit: h.Release.Commit, Source: h.Release.Source, Set: h.Release.Set, Policy: h.Release.Policy, At: now, Ill: illBefore(w.plan)}
	info := w.candidate.info
	info.Outcome, info.Ended, info.Changes = v1alpha1.Succeeded, now, w.plan.Counts()
	info.Message = message
	for _, a := range w.plan.Actions {
		if a.Do == Keep {
			info.Kept = append(info.Kept, a.Ref.String())
		}
	}
	if failpoint.Without(failpoint.TellAfterDurable) {
		r.tell(Event{Kind: EventEnded, Release: &info, Message: info.Message})
	}
	next := h.Done(mark, message, digest, now.Add(w.candidate.policy.Spec.Bake.Duration), now)
	failpoint.Here(failpoint.DoneBefore)
	if h, err = r.swap(ctx, h, next); err != nil {
		return Result{}, fmt.Errorf("close release %d: %w", w.candidate.info.Number, err)
	}
	r.work, r.unwell, r.looked = nil, nil, false
	r.good = &world{of: identity(h.Good, h.Inventory), set: w.candidate.set, policy: w.candidate.policy, judge: w.candidate.judge, inventory: inv.ByRef(), ignored: w.ignored}
	r.drifted = nil
	r.tell(Event{Kind: EventEnded, Release: &info, Message: info.Message})
	if err := r.tidy(ctx, h); err != nil {
		r.Log.Warn("collect garbage of the journal", "environment", r.Environment.Name, "error", err)
	}
	return Result{Head: h, Why: "released"}, nil
}

// again applies what a process before this one has applied and verified. What was deleted or made again by others since is
// drift, and left to that: the release is decided and must end.
func (r *Reconciler) again(ctx context.Context, w *work, a Action) error {
	if w.applied(a.Ref) {
		return nil
	}
	if o, ok := w.candidate.set.Get(a.Ref); ok && endsItself(o.Body) {
		w.record(object.Record{Ref: a.Ref, Version: a.Version, UID: a.UID, Phase: a.Phase, Rendered: o.Digest}, 0)
		return nil
	}
	if a.Do != Create && a.Do != Recreate {
		live, err := r.live(ctx, a.Ref, a.Version)
		switch {
		case absent(err), err == nil && a.UID != "" && live.GetUID() != a.UID:
			w.record(object.Record{Ref: a.Ref, Version: a.Version, UID: a.UID, Phase: a.Phase, Live: lost}, 0)
			return nil
		case err != nil:
			return err
		}
	}
	err := r.apply(ctx, w, a)
	if absent(err) { // its namespace or its definition went
		w.record(object.Record{Ref: a.Ref, Version: a.Version, UID: a.UID, Phase: a.Phase, Live: lost}, 0)
		return nil
	}
	return err
}

// lost stands for the digest of an object that is not there as it was released: nothing equals it.
const lost = "lost"

// illBefore names what was ill before the release: baking does not hold it against the commit.
func illBefore(p *Plan) []string {
	ill := slices.Sorted(maps.Keys(p.Baseline))
	return ill[:min(len(ill), 50)]
}

// tidy deletes bundles that the head names no more. It may fail: garbage is only garbage.
func (r *Reconciler) tidy(ctx context.Context, h journal.Head) error {
	keep := []string{h.Inventory}
	for _, m := range []*journal.Mark{h.Good, h.Previous} {
		if m != nil {
			keep = append(keep, m.Set, m.Policy)
		}
	}
	_, err := r.Journal.Collect(ctx, keep...)
	return err
}

func short(commit string) string { return commit[:min(len(commit), 10)] }

// prunes deletes what left Git, phase by phase from the last, and lets go of what stays.
func (r *Reconciler) prunes(ctx context.Context, w *work) error {
	for phase := object.Validation; phase >= object.Infrastructure; phase-- {
		var actions []Action
		for _, a := range w.plan.Actions {
			if (a.Do == Prune || a.Do == Keep) && a.Phase == phase {
				actions = append(actions, a)
			}
		}
		err := each(ctx, actions, func(ctx context.Context, a Action) error {
			if a.Do == Keep {
				return r.letGo(ctx, a)
			}
			if err := r.prune(ctx, a); err != nil {
				return fmt.Errorf("prune %s: %w", a.Ref, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// letGo takes our mark off an object that stays in the cluster although it left Git.
func (r *Reconciler) letGo(ctx context.Context, a Action) error {
	live, ok := r.Cluster.Live(a.Ref)
	if !ok || live.UID != a.UID {
		return nil
	}
	if err := r.Cluster.Disown(ctx, live.Object()); err != nil {
		return fmt.Errorf("let go of %s: %w", a.Ref, err)
	}
	return nil
}
